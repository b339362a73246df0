"""The engine equals the reference, row by row, whatever rows it is packed with."""

from __future__ import annotations

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from omnigen_actor import placeholders
from omnigen_actor.engine import OmniGenEngine
from omnigen_actor.types import Request
from tests.reference import Reference, initial_noise, relative_error, to_tensor

TOLERANCE = 1e-5
WORDS = [
    "a",
    "red",
    "cat",
    "on",
    "the",
    "roof",
    "of",
    "an",
    "old",
    "house",
    "at",
    "night",
    "with",
    "rain",
    "two",
    "dogs",
]

sides = st.integers(1, 20).map(lambda tokens: 16 * tokens)
scales = st.floats(0.0, 4.0).map(lambda scale: round(scale, 2))


@st.composite
def requests(draw: st.DrawFn, picture) -> Request:
    num_images = draw(st.integers(0, 3))
    order = draw(st.permutations(range(1, num_images + 1)))
    texts = [" ".join(draw(st.lists(st.sampled_from(WORDS), min_size=1, max_size=60))) for _ in range(num_images + 1)]
    marks = [placeholders.placeholder(number) for number in order]
    prompt = texts[0] + "".join(f" {mark} {text}" for mark, text in zip(marks, texts[1:], strict=True))
    images = tuple(picture(draw(st.integers(16, 260)), draw(st.integers(16, 260)), seed) for seed in range(num_images))
    sized = not num_images or draw(st.booleans())
    return Request(
        id="row",
        prompt=prompt,
        images=images,
        width=draw(sides) if sized else None,
        height=draw(sides) if sized else None,
        steps=draw(st.integers(1, 4)),
        seed=draw(st.integers(0, 2**32)),
        guidance_scale=draw(scales),
        img_guidance_scale=draw(scales),
        max_input_image_size=draw(st.sampled_from([64, 144, 256])),
    )


@pytest.mark.slow
@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture], derandomize=True)
@given(data=st.data())
def test_a_mixed_wave_equals_the_reference_row_by_row(data, engine: OmniGenEngine, reference: Reference, picture):
    wave = data.draw(st.lists(requests(picture), min_size=1, max_size=3))
    for request, latent in zip(wave, engine.latents(wave), strict=True):
        assert relative_error(latent, reference.latent(request)) <= TOLERANCE


def test_both_rotary_regimes_equal_the_reference(engine: OmniGenEngine, reference: Reference):
    limit = reference.transformer.config.original_max_position_embeddings
    for side, is_long in ((64, False), (352, True)):
        request = Request(id="row", prompt="a cat", width=side, height=side, steps=2, seed=3)
        inputs = reference.processor.process_multi_modal_prompt(request.prompt, None)["input_ids"]
        assert (len(inputs) + 1 + (side // 16) ** 2 > limit) == is_long
        assert relative_error(engine.latents([request])[0], reference.latent(request)) <= TOLERANCE


def test_the_branches_of_one_row_may_lie_in_different_regimes(engine: OmniGenEngine, reference: Reference):
    limit = reference.transformer.config.original_max_position_embeddings
    request = Request(id="row", prompt="a cat", width=288, height=288, steps=2, seed=3)
    lengths = [len(inputs["input_ids"]) + 1 + 18 * 18 for inputs in reference.branch_inputs(request, [])]
    assert min(lengths) <= limit < max(lengths)
    assert relative_error(engine.latents([request])[0], reference.latent(request)) <= TOLERANCE


def test_a_prompt_of_its_own_negative_equals_the_reference(engine: OmniGenEngine, reference: Reference):
    request = Request(id="row", prompt="a cat", negative_prompt="blurry", width=64, height=64, steps=2, seed=3)
    assert relative_error(engine.latents([request])[0], reference.latent(request)) <= TOLERANCE


def test_diffusers_batched_call_is_wrong_on_rows_longer_than_row_0(reference: Reference, picture):
    """Its rotary embedding takes row 0's positions for all rows: the reference must not be 'fixed' to agree with it."""
    image = to_tensor(picture(64, 64))
    request = Request(id="row", prompt="a cat", width=64, height=64, steps=1, seed=3)
    short, negative = reference.branch_inputs(request, [])
    with_image = reference.processor.process_multi_modal_prompt("<img><|image_1|></img> " + "a red cat " * 30, [image])
    z, t = initial_noise(3, 64, 64)[None], torch.tensor(0.5)
    alone = [_velocity(reference, [inputs], z, t)[0] for inputs in (short, negative, with_image)]
    batched = _velocity(reference, [short, negative, with_image], z, t)
    errors = [relative_error(found, expected) for found, expected in zip(batched, alone, strict=True)]
    assert errors[0] < TOLERANCE  # its own positions
    assert min(errors[1:]) > 1e-2  # somebody else's


def test_diffusers_batched_call_is_right_where_all_rows_have_one_length(reference: Reference):
    """The control: the error above is that of mixed lengths, not of our way of calling."""
    request = Request(id="row", prompt="a cat", width=64, height=64, steps=1, seed=3)
    short, _ = reference.branch_inputs(request, [])
    z, t = initial_noise(3, 64, 64)[None], torch.tensor(0.5)
    alone = _velocity(reference, [short], z, t)[0]
    assert relative_error(_velocity(reference, [short, short], z, t)[1], alone) < 1e-6


@torch.no_grad()
def _velocity(reference: Reference, inputs: list[dict], z: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
    batch = reference.collate([dict(one) for one in inputs], 64, 64)
    return reference.velocity(
        z.expand(len(inputs), -1, -1, -1), t, batch, reference.encode(batch["input_pixel_values"])
    )
