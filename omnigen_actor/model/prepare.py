"""A request -> what it will need -> a row that can step: size, latents, noise, one condition per guidance branch.

``plan`` touches no device: it finds what can't be made, and what the row will take. ``prepare`` encodes and prefills.
Keeps what requests share: the latent of an input image, the conditions of the negative prompt and of recent prompts.
Knows no waves.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

from PIL.Image import Image
from torch import Tensor

from omnigen_actor import images, placeholders
from omnigen_actor.engine_settings import EXACT_INTERVAL
from omnigen_actor.errors import ErrorKind, RowError, Stage
from omnigen_actor.model import sampler
from omnigen_actor.model.condition import Condition, prefill, share
from omnigen_actor.model.memory import Memory
from omnigen_actor.model.prompt import (
    DEFAULT_NEGATIVE_PROMPT,
    ImageSpan,
    Segment,
    Text,
    Tokenize,
    images_only_prompt,
    segments,
)
from omnigen_actor.model.stopwatch import Stopwatch
from omnigen_actor.model.transformer import Transformer
from omnigen_actor.model.vae import Vae
from omnigen_actor.types import PIXELS_PER_TOKEN, Request, round_side

MAX_LATENTS = 64
MAX_NEGATIVES = 8


@dataclass(frozen=True, slots=True)
class PlannedBranch:
    """A guidance branch before it is computed. ``long``: its rotary regime."""

    segments: tuple[Segment, ...]
    weight: float
    long: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Planned:
    """A request that can be made. ``pictures``: digests of ``fitted``. Branches that guidance does not use are None."""

    request: Request
    fitted: tuple[Image, ...]
    pictures: tuple[bytes, ...]
    width: int
    height: int
    full: PlannedBranch | None
    images_only: PlannedBranch | None
    negative: PlannedBranch | None

    @property
    def num_image_tokens(self) -> int:
        """Image tokens of the output, of one branch."""
        return num_tokens(self.width, self.height)

    @property
    def num_packed_tokens(self) -> int:
        """Image tokens of all branches: what the row adds to a step."""
        return self.num_image_tokens * sum(b is not None for b in (self.full, self.images_only, self.negative))

    @property
    def num_cached_tokens(self) -> int:
        """Tokens whose keys and values the row keeps, time tokens included, as if it shared none with other rows."""
        sizes = self.image_sizes
        kept = [_length(b.segments, sizes) for b in (self.full, self.images_only, self.negative) if b]
        shared = 0
        if self.full and self.images_only and self.full.long == self.images_only.long:
            shared = share(self.full.segments, self.images_only.segments, sizes).num_tokens
        return sum(kept) - shared + len(kept) * self.request.steps

    @property
    def image_sizes(self) -> tuple[int, ...]:
        """Tokens of each input image."""
        return tuple(num_tokens(*image.size) for image in self.fitted)


class Preparer:
    """Prepares requests for one loaded model."""

    def __init__(
        self,
        transformer: Transformer,
        vae: Vae,
        tokenize: Tokenize,
        *,
        shift: float,
        stopwatch: Stopwatch,
        kept_bytes: int,
        guided: tuple[float, float] = EXACT_INTERVAL,
    ) -> None:
        """``shift`` is the scheduler's; ``guided`` the times between which guidance is applied. ``kept_bytes`` bounds
        the conditions of recent prompts that are kept, for further samples and further edits of one image.
        """
        self._transformer = transformer
        self._vae = vae
        self._tokenize = tokenize
        self._shift = shift
        self._stopwatch = stopwatch
        self._guided = guided
        self._latents: Memory[bytes, Tensor] = Memory(MAX_LATENTS)
        self._negatives: Memory[object, Condition] = Memory(MAX_NEGATIVES)
        self._conditions: Memory[object, Condition] = Memory(kept_bytes, lambda condition: condition.num_bytes)
        self.num_prefilled = 0

    def plan(self, request: Request) -> Planned:
        """Check, fit and tokenize. Raises RowError (stage generate) for what can't be made."""
        placeholders.check(request.prompt, len(request.images))
        fitted = tuple(images.fit(image, request.max_input_image_size) for image in request.images)
        width, height = self._output_size(request, fitted)
        weights = sampler.branch_weights(
            request.guidance_scale, request.img_guidance_scale, has_images=bool(request.images)
        )
        negative = DEFAULT_NEGATIVE_PROMPT
        if request.negative_prompt is not None:
            negative = placeholders.normalise(request.negative_prompt)
            placeholders.check(negative, 0)
        prompts = (request.prompt, images_only_prompt(len(fitted)), negative)
        full, images_only, without = (
            self._branch(prompt, weight, fitted, num_tokens(width, height)) if weight else None
            for prompt, weight in zip(prompts, weights, strict=True)
        )
        return Planned(
            request=request,
            fitted=fitted,
            pictures=tuple(_digest(image) for image in fitted),
            width=width,
            height=height,
            full=full,
            images_only=images_only,
            negative=without,
        )

    def prepare(self, planned: Planned) -> sampler.Row:
        """Everything that the device does before the first step."""
        request = planned.request
        times = sampler.euler_times(request.steps, self._shift)
        latents = [self._latent(*one) for one in zip(planned.pictures, planned.fitted, strict=True)]
        with self._stopwatch.lap("prefill"):
            shift, scale = self._transformer.modulation(times[:-1].to(self._transformer.device))
            branches = self._branches(planned, latents, times[:-1].to(self._transformer.device))
        cells = (planned.height // self._vae.factor, planned.width // self._vae.factor)
        noise = sampler.noise(request.seed, self._vae.channels, *cells)
        return sampler.Row(
            patches=self._transformer.patch(noise).to(self._transformer.device).contiguous(),
            height=cells[0],
            width=cells[1],
            times=tuple(times.tolist()),
            shift=shift,
            scale=scale,
            branches=branches,
            guided=self._guided,
        )

    def forget(self) -> None:
        """Let go of what is kept for later requests."""
        for memory in (self._latents, self._negatives, self._conditions):
            memory.clear()

    def _output_size(self, request: Request, fitted: Sequence[Image]) -> tuple[int, int]:
        width, height = request.width, request.height
        if width is None or height is None:
            width, height = fitted[0].size
        width, height = round_side(width), round_side(height)
        longest = self._transformer.config.pos_embed_max_size * PIXELS_PER_TOKEN
        for name, side in (("width", width), ("height", height), *((("input image"), max(i.size)) for i in fitted)):
            if side > longest:
                raise _failed(ErrorKind.BAD_SIZE, f"{name} of {side} pixels: this model goes up to {longest}")
        return width, height

    def _branch(self, prompt: str, weight: float, fitted: Sequence[Image], num_image_tokens: int) -> PlannedBranch:
        parts = segments(prompt, self._tokenize)
        num_prefix = _length(parts, [num_tokens(*image.size) for image in fitted])
        return PlannedBranch(parts, weight, self._is_long(num_prefix, num_image_tokens))

    def _is_long(self, num_prefix: int, num_image_tokens: int) -> bool:
        """The rotary regime of the whole sequence. Raises RowError when the sequence is beyond the model."""
        config = self._transformer.config
        num_positions = num_prefix + 1 + num_image_tokens
        if num_positions > config.max_position_embeddings:
            raise _failed(
                ErrorKind.PROMPT_TOO_LONG,
                f"{num_prefix} tokens of prompt and input images and {num_image_tokens} of output make "
                f"{num_positions} positions; the model has {config.max_position_embeddings}: shorten the instruction",
            )
        return config.is_long(num_positions)

    def _branches(self, planned: Planned, latents: Sequence[Tensor], times: Tensor) -> tuple[sampler.Branch, ...]:
        """The branches that count. Whether one goes on from another follows from the request, never from what is kept:
        else an image would depend on the requests before it.
        """
        found: list[sampler.Branch] = []
        base = None
        if planned.images_only:
            base = self._condition(planned.images_only, planned.pictures, latents, times)
        if planned.full:
            full = self._full(planned, base, latents, times)
            found.append(sampler.Branch(full, planned.full.weight, is_full=True))
        if planned.images_only and base:
            found.append(sampler.Branch(base, planned.images_only.weight))
        if planned.negative:
            negative = planned.negative
            key = (negative.segments, len(times), negative.long)
            condition = self._negatives.get(key, lambda: self._prefill(negative.segments, (), times, negative.long))
            found.append(sampler.Branch(condition, negative.weight))
        return tuple(found)

    def _full(self, planned: Planned, base: Condition | None, latents: Sequence[Tensor], times: Tensor) -> Condition:
        """The prompt's own branch. Where it begins with the images, it goes on from the images-only branch."""
        full, images_only = planned.full, planned.images_only
        assert full
        if base is None or images_only is None or images_only.long != full.long:
            return self._condition(full, planned.pictures, latents, times)
        shared = share(full.segments, images_only.segments, planned.image_sizes)
        if not shared.rest and shared.num_tokens == base.num_prefix:
            return base
        if not any(isinstance(part, ImageSpan) for part in full.segments[: len(full.segments) - len(shared.rest)]):
            return self._condition(full, planned.pictures, latents, times)
        key = (full.segments, planned.pictures, len(times), full.long, "shared")  # rounded otherwise than all at once
        return self._conditions.get(
            key, lambda: self._prefill(shared.rest, latents, times, full.long, base.first(shared.num_tokens))
        )

    def _condition(
        self, branch: PlannedBranch, pictures: tuple[bytes, ...], latents: Sequence[Tensor], times: Tensor
    ) -> Condition:
        key = (branch.segments, pictures, len(times), branch.long)
        return self._conditions.get(key, lambda: self._prefill(branch.segments, latents, times, branch.long))

    def _prefill(
        self,
        parts: Sequence[Segment],
        latents: Sequence[Tensor],
        times: Tensor,
        long: bool,
        past: Sequence[Tensor] = (),
    ) -> Condition:
        condition = prefill(self._transformer, parts, latents, times, long=long, past=past)
        self.num_prefilled += condition.num_prefix - sum(part.shape[2] for part in past) + len(times)
        return condition

    def _latent(self, picture: bytes, image: Image) -> Tensor:
        """One latent for one distinct picture, whichever rows and branches use it."""
        return self._latents.get(picture, lambda: self._encode(image))

    def _encode(self, image: Image) -> Tensor:
        with self._stopwatch.lap("encode"):
            return self._vae.encode(image)


def num_tokens(width: int, height: int) -> int:
    """Image tokens of a picture whose sides are multiples of 16."""
    return width * height // PIXELS_PER_TOKEN**2


def _length(parts: Sequence[Segment], image_sizes: Sequence[int]) -> int:
    return sum(len(part.ids) if isinstance(part, Text) else image_sizes[part.index] for part in parts)


def _digest(image: Image) -> bytes:
    return hashlib.sha256(repr(image.size).encode() + image.tobytes()).digest()


def _failed(kind: ErrorKind, message: str) -> RowError:
    return RowError(kind, Stage.GENERATE, message)
