"""A request -> a row that the sampler can integrate: size, latents, noise, one condition per guidance branch.

Keeps what requests share: the latent of an input image, and the condition of the negative prompt. Knows no waves.
"""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from collections.abc import Callable, Hashable, Sequence
from typing import TypeVar

from PIL.Image import Image
from torch import Tensor

from omnigen_actor import images, placeholders
from omnigen_actor.errors import ErrorKind, RowError, Stage
from omnigen_actor.model import sampler
from omnigen_actor.model.condition import Condition, prefill
from omnigen_actor.model.prompt import DEFAULT_NEGATIVE_PROMPT, Segment, Text, Tokenize, images_only_prompt, segments
from omnigen_actor.model.transformer import Transformer
from omnigen_actor.model.vae import Vae
from omnigen_actor.types import PIXELS_PER_TOKEN, Request, round_side

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")

MAX_LATENTS = 64
MAX_NEGATIVES = 8


class Preparer:
    """Prepares requests for one loaded model."""

    def __init__(self, transformer: Transformer, vae: Vae, tokenize: Tokenize, shift: float) -> None:
        """``shift`` is the scheduler's."""
        self._transformer = transformer
        self._vae = vae
        self._tokenize = tokenize
        self._shift = shift
        self._latents: OrderedDict[bytes, Tensor] = OrderedDict()
        self._negatives: OrderedDict[tuple[str, int, bool], Condition] = OrderedDict()

    def prepare(self, request: Request) -> sampler.Row:
        """Everything that happens before the first step. Raises RowError (stage generate) for what can't be made."""
        placeholders.check(request.prompt, len(request.images))
        fitted = [images.fit(image, request.max_input_image_size) for image in request.images]
        width, height = self._output_size(request, fitted)
        times = sampler.euler_times(request.steps, self._shift).to(self._transformer.device)
        shift, scale = self._transformer.modulation(times[:-1])
        cells = (height // self._vae.factor, width // self._vae.factor)
        return sampler.Row(
            latent=sampler.noise(request.seed, self._vae.channels, *cells).to(self._transformer.device),
            times=times,
            shift=shift,
            scale=scale,
            branches=self._branches(request, fitted, times[:-1], num_tokens(width, height)),
        )

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

    def _branches(
        self, request: Request, fitted: Sequence[Image], times: Tensor, num_image_tokens: int
    ) -> tuple[sampler.Branch, ...]:
        weights = sampler.branch_weights(
            request.guidance_scale, request.img_guidance_scale, has_images=bool(request.images)
        )
        conditions: tuple[Callable[[], Condition], ...] = (
            lambda: self._condition(request.prompt, fitted, times, num_image_tokens),
            lambda: self._condition(images_only_prompt(len(fitted)), fitted, times, num_image_tokens),
            lambda: self._negative(request.negative_prompt, times, num_image_tokens),
        )
        branches = []
        for weight, condition in zip(weights, conditions, strict=True):
            if weight:  # a branch that the guidance does not use is not computed
                cached = condition()
                rotary = cached.image_rotary(self._transformer, num_image_tokens)
                branches.append(sampler.Branch(cached, rotary, weight))
        return tuple(branches)

    def _condition(self, prompt: str, fitted: Sequence[Image], times: Tensor, num_image_tokens: int) -> Condition:
        parts = segments(prompt, self._tokenize)
        long = self._is_long(parts, fitted, num_image_tokens)
        latents = [self._latent(image) for image in fitted]
        return prefill(self._transformer, parts, latents, times, long=long)

    def _negative(self, prompt: str | None, times: Tensor, num_image_tokens: int) -> Condition:
        """The negative prompt's condition is a constant of (prompt, steps, regime)."""
        text = DEFAULT_NEGATIVE_PROMPT if prompt is None else placeholders.normalise(prompt)
        placeholders.check(text, 0)
        parts = segments(text, self._tokenize)
        long = self._is_long(parts, (), num_image_tokens)
        return _remember(
            self._negatives,
            (text, len(times), long),
            lambda: prefill(self._transformer, parts, (), times, long=long),
            MAX_NEGATIVES,
        )

    def _is_long(self, parts: Sequence[Segment], fitted: Sequence[Image], num_image_tokens: int) -> bool:
        """The rotary regime of the whole sequence. Raises RowError when the sequence is beyond the model."""
        config = self._transformer.config
        num_prefix = sum(
            len(part.ids) if isinstance(part, Text) else num_tokens(*fitted[part.index].size) for part in parts
        )
        num_positions = num_prefix + 1 + num_image_tokens
        if num_positions > config.max_position_embeddings:
            raise _failed(
                ErrorKind.PROMPT_TOO_LONG,
                f"{num_prefix} tokens of prompt and input images and {num_image_tokens} of output make "
                f"{num_positions} positions; the model has {config.max_position_embeddings}: shorten the instruction",
            )
        return config.is_long(num_positions)

    def _latent(self, image: Image) -> Tensor:
        """One latent for one distinct picture, whichever rows and branches use it."""
        key = hashlib.sha256(repr(image.size).encode() + image.tobytes()).digest()
        return _remember(self._latents, key, lambda: self._vae.encode(image), MAX_LATENTS)


def num_tokens(width: int, height: int) -> int:
    """Image tokens of a picture whose sides are multiples of 16."""
    return width * height // PIXELS_PER_TOKEN**2


def _remember(cache: OrderedDict[K, V], key: K, compute: Callable[[], V], limit: int) -> V:
    """Look up or compute, and forget the least recently used beyond ``limit``."""
    if key not in cache:
        cache[key] = compute()
    cache.move_to_end(key)
    if len(cache) > limit:
        cache.popitem(last=False)
    return cache[key]


def _failed(kind: ErrorKind, message: str) -> RowError:
    return RowError(kind, Stage.GENERATE, message)
