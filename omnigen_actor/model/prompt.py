"""A prompt as the model reads it: token ids and image spans of the three guidance branches. Knows no weights.

Template and negative prompt are the authors' (OmniGen processor; diffusers pipelines/omnigen/processor_omnigen.py).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from omnigen_actor import placeholders

DEFAULT_NEGATIVE_PROMPT = (
    "low quality, jpeg artifacts, ugly, duplicate, morbid, mutilated, extra fingers, mutated hands, "
    "poorly drawn hands, poorly drawn face, mutation, deformed, blurry, dehydrated, bad anatomy, bad "
    "proportions, extra limbs, cloned face, disfigured, gross proportions, malformed limbs, missing arms,"
    " missing legs, extra arms, extra legs, fused fingers, too many fingers."
)
_BEGIN_ID = 1

Tokenize = Callable[[str], Sequence[int]]
"""Text -> token ids, with whatever the tokenizer adds by itself."""


@dataclass(frozen=True, slots=True)
class Text:
    """A run of text tokens: causal."""

    ids: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class ImageSpan:
    """A run of image tokens: bidirectional inside. ``index`` counts the request's images from 0."""

    index: int


Segment = Text | ImageSpan


def segments(prompt: str, tokenize: Tokenize) -> tuple[Segment, ...]:
    """Split a canonical prompt, inside the authors' template, at its image marks."""
    chunks = placeholders.IMAGE_MARK.split(_in_template(prompt))
    found: list[Segment] = []
    for position, chunk in enumerate(chunks):
        if position % 2:
            found.append(ImageSpan(int(chunk) - 1))
        else:
            ids = tuple(tokenize(chunk))
            # The tokenizer begins every chunk anew; only the first may keep its begin mark.
            found.append(Text(ids[1:] if position and ids[:1] == (_BEGIN_ID,) else ids))
    return tuple(found)


def images_only_prompt(num_images: int) -> str:
    """The prompt of the image branch: nothing but the images."""
    return " ".join(placeholders.placeholder(number) for number in range(1, num_images + 1))


def _in_template(prompt: str) -> str:
    return (
        "<|user|>\nGenerate an image according to the following instructions\n"
        f"{prompt}<|end|>\n<|assistant|>\n<|diffusion|>"
    )
