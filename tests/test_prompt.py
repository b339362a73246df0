"""Prompts become the token ids that diffusers' own processor makes of them."""

from __future__ import annotations

import pytest

from omnigen_actor.model.prompt import DEFAULT_NEGATIVE_PROMPT, ImageSpan, Text, images_only_prompt, segments

IMAGE_1 = "<img><|image_1|></img>"
IMAGE_2 = "<img><|image_2|></img>"


def characters(text: str) -> list[int]:
    """A tokenizer that begins everything with 1, as Llama's does."""
    return [1, *(ord(character) + 10 for character in text)]


def test_a_prompt_without_images_is_one_run_of_text():
    (text,) = segments("a cat", characters)
    assert isinstance(text, Text)
    assert text.ids[0] == 1
    assert text.ids.count(1) == 1


def test_images_stand_where_their_marks_stand():
    parts = segments(f"{IMAGE_2} and {IMAGE_1}", characters)
    assert [type(part) for part in parts] == [Text, ImageSpan, Text, ImageSpan, Text]
    assert [part.index for part in parts if isinstance(part, ImageSpan)] == [1, 0]


def test_only_the_first_run_of_text_keeps_its_begin_mark():
    texts = [part for part in segments(f"{IMAGE_1} x {IMAGE_2}", characters) if isinstance(part, Text)]
    assert [part.ids[0] == 1 for part in texts] == [True, False, False]


def test_the_images_branch_holds_nothing_but_the_images():
    assert images_only_prompt(2) == f"{IMAGE_1} {IMAGE_2}"


@pytest.mark.parametrize("prompt", ["a cat", f"{IMAGE_1} a cat", f"one {IMAGE_2} two {IMAGE_1} three {IMAGE_2}"])
def test_token_ids_are_those_of_diffusers(prompt: str, reference):
    import torch

    images = [torch.zeros(3, 32, 48), torch.zeros(3, 16, 16)][: 2 if IMAGE_2 in prompt else prompt.count("image_1")]
    theirs = reference.processor.process_multi_modal_prompt(prompt, images)["input_ids"]
    sizes = [image.shape[-2] * image.shape[-1] // 256 for image in images]
    tokenizer = reference.processor.text_tokenizer
    ours: list[int] = []
    for part in segments(prompt, lambda text: tokenizer(text).input_ids):
        ours += part.ids if isinstance(part, Text) else [0] * sizes[part.index]
    assert ours == theirs


def test_the_negative_prompt_is_that_of_diffusers():
    from inspect import signature

    from diffusers.pipelines.omnigen.processor_omnigen import OmniGenMultiModalProcessor

    theirs = signature(OmniGenMultiModalProcessor.__call__).parameters["negative_prompt"].default
    assert theirs == DEFAULT_NEGATIVE_PROMPT
