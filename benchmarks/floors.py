"""The six rows of the floor table, and the multiply-adds × 2 that the exact mathematics of each needs. Knows no torch.

Counted: the linear layers and the attention of the blocks. Not counted: embeddings, output projection and autoencoder,
under 1 % of a step. The negative prompt's keys and values are a constant of the engine's life and count nothing.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from PIL import Image

from omnigen_actor.model.prompt import DEFAULT_NEGATIVE_PROMPT, Segment, Text, Tokenize, images_only_prompt, segments
from omnigen_actor.placeholders import placeholder
from omnigen_actor.types import PIXELS_PER_TOKEN, Request

WORDS = (
    "a wide photograph of a small red boat on a quiet lake in front of snowy mountains at dawn, with soft light, "
    "long shadows, a wooden pier on the left and a few birds far away, picture number"
)


@dataclass(frozen=True, slots=True)
class Shape:
    """One row of the table: square input images, and an output of the same side."""

    num_images: int
    side: int

    @property
    def key(self) -> str:
        """Short name, as ``--rows`` takes it."""
        return f"{self.num_images}x{self.side}" if self.num_images else f"text-{self.side}"

    @property
    def title(self) -> str:
        """The name in tables."""
        source = f"{self.num_images} × {self.side}²" if self.num_images else "text"
        return f"{source} → {self.side}²"

    @property
    def num_tokens(self) -> int:
        """Tokens of one image, input or output."""
        return (self.side // PIXELS_PER_TOKEN) ** 2

    @property
    def num_branches(self) -> int:
        """Guidance branches."""
        return 3 if self.num_images else 2

    @property
    def wave_tokens(self) -> int:
        """Packed image tokens that one row brings to a wave."""
        return self.num_tokens * self.num_branches

    def prompt(self, index: int = 0) -> str:
        """The image marks first, as the authors' edits have them. All indices below 100 000 give equal lengths."""
        marks = " ".join(placeholder(number) for number in range(1, self.num_images + 1))
        return f"{marks} {WORDS} {index}".strip()

    def request(self, index: int, steps: int) -> Request:
        """The ``index``-th row of this shape: prompt, images and seed are its own."""
        return Request(
            id=f"{self.key}-{index}",
            prompt=self.prompt(index),
            images=tuple(photograph(self.side, seed=100 * index + number) for number in range(self.num_images)),
            width=self.side,
            height=self.side,
            seed=index,
            steps=steps,
        )


def table(small: int, large: int) -> tuple[Shape, ...]:
    """Text, one image and three images, each at two sides."""
    return tuple(Shape(num_images, side) for num_images in (0, 1, 3) for side in (small, large))


@dataclass(frozen=True, slots=True, kw_only=True)
class Branches:
    """The prefixes of a row: ``full`` (the prompt), ``images`` (the images alone, if any) and ``negative``."""

    full: tuple[Segment, ...]
    images: tuple[Segment, ...] | None
    negative: tuple[Segment, ...]
    tokens_per_image: int

    @classmethod
    def of(cls, shape: Shape, tokenize: Tokenize) -> Branches:
        """Those of a shape, under the default negative prompt."""
        images = segments(images_only_prompt(shape.num_images), tokenize) if shape.num_images else None
        return cls(
            full=segments(shape.prompt(), tokenize),
            images=images,
            negative=segments(DEFAULT_NEGATIVE_PROMPT, tokenize),
            tokens_per_image=shape.num_tokens,
        )

    @property
    def lengths(self) -> list[int]:
        """Prefix tokens of each branch."""
        branches = (self.full, self.images, self.negative)
        return [sum(self._lengths(branch)) for branch in branches if branch is not None]

    @property
    def num_shared(self) -> int:
        """Leading tokens that the full and the images branch have in common: up to the end of the last image."""
        if self.images is None:
            return 0
        end = max(i for i, segment in enumerate(self.images) if not isinstance(segment, Text)) + 1
        return sum(self._lengths(self.full[:end])) if self.full[:end] == self.images[:end] else 0

    def pairs(self, branch: Sequence[Segment], start: int = 0) -> int:
        """(query, key) pairs of a prefix's tokens from ``start`` on: text is causal, an image sees all of itself."""
        total = first = 0
        for segment, length in zip(branch, self._lengths(branch), strict=True):
            last = first + length
            if first >= start:
                seen = range(first + 1, last + 1)
                total += sum(seen) if isinstance(segment, Text) else length * last
            elif last > start:
                raise ValueError(f"start {start} lies inside a segment")
            first = last
        return total

    def _lengths(self, branch: Sequence[Segment]) -> list[int]:
        return [len(one.ids) if isinstance(one, Text) else self.tokens_per_image for one in branch]


@dataclass(frozen=True, slots=True, kw_only=True)
class Flops:
    """Multiply-adds × 2 of a transformer of this size."""

    hidden: int
    kv: int
    ffn: int
    num_layers: int

    @classmethod
    def of(cls, config: Mapping[str, Any]) -> Flops:
        """Those of a diffusers transformer configuration."""
        head = config["hidden_size"] // config["num_attention_heads"]
        return cls(
            hidden=config["hidden_size"],
            kv=head * config["num_key_value_heads"],
            ffn=config["intermediate_size"],
            num_layers=config["num_layers"],
        )

    @property
    def qkv(self) -> int:
        """One token through one layer's fused query, key and value projection."""
        return 2 * self.hidden * (self.hidden + 2 * self.kv)

    @property
    def linear(self) -> int:
        """One token through all linear layers of one block."""
        return self.qkv + 2 * self.hidden * (self.hidden + 3 * self.ffn)

    @property
    def pair(self) -> int:
        """One query with one key, in all heads of one layer."""
        return 4 * self.hidden

    def step(self, branches: Branches) -> int:
        """The engine's denoising step of one row: image tokens alone, over [prefix | time token | themselves]."""
        n = branches.tokens_per_image
        return self.num_layers * sum(n * (self.linear + self.pair * (p + 1 + n)) for p in branches.lengths)

    def prefill(self, branches: Branches, steps: int) -> int:
        """The engine's prefill of one row: prefixes, shared tokens once, and the time tokens of all steps."""
        total = self._prefill(branches, branches.full, 0, steps)
        if branches.images is not None:
            total += self._prefill(branches, branches.images, branches.num_shared, steps)
        return total

    def _prefill(self, branches: Branches, branch: Sequence[Segment], start: int, steps: int) -> int:
        """The last layer gives keys and values and nothing else."""
        length = sum(branches._lengths(branch))
        tokens = length - start + steps
        pairs = branches.pairs(branch, start) + steps * (length + 1)
        return (self.num_layers - 1) * (tokens * self.linear + pairs * self.pair) + tokens * self.qkv

    def image(self, branches: Branches, steps: int) -> int:
        """The engine's whole row."""
        return self.prefill(branches, steps) + steps * self.step(branches)

    def diffusers_step(self, branches: Branches) -> int:
        """Diffusers' step of one row: every token of every branch, padded to the longest."""
        length = max(branches.lengths) + 1 + branches.tokens_per_image
        tokens = len(branches.lengths) * length
        return self.num_layers * tokens * (self.linear + self.pair * length)


def photograph(side: int, seed: int) -> Image.Image:
    """A smooth picture of that size."""
    small = np.random.default_rng(seed).integers(0, 256, (8, 8, 3), dtype=np.uint8)
    return Image.fromarray(small).resize((side, side), Image.Resampling.BICUBIC)
