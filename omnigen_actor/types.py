"""What goes into an engine and what comes out: Request, Result, Failure. Knows nothing of files, tables or tensors."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from PIL.Image import Image

from omnigen_actor.errors import ErrorKind, RowError, Stage

PIXELS_PER_TOKEN = 16
"""Side of the square of pixels that one image token covers (VAE factor 8, patch 2)."""

MAX_SIDE = 3072
"""Longest output side: the position table of the published model has 192 × 192 patches."""

MAX_SEED = 2**63 - 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """One image to make. Validated once, here.

    ``width`` and ``height`` are pixels; both None means the size of the first input image, fitted to the model.
    ``images`` are RGB pictures of any size; the engine fits them. Raises RowError (stage check) for unusable values.
    """

    id: str
    sample: int = 0
    prompt: str
    images: tuple[Image, ...] = ()
    width: int | None = None
    height: int | None = None
    seed: int
    steps: int = 50
    guidance_scale: float = 2.5
    img_guidance_scale: float = 1.6
    negative_prompt: str | None = None
    max_input_image_size: int = 1024

    def __post_init__(self) -> None:
        check_size(self.width, self.height, has_images=bool(self.images))
        check_steps(self.steps)
        check_guidance("guidance_scale", self.guidance_scale)
        check_guidance("img_guidance_scale", self.img_guidance_scale)
        check_seed(self.seed)


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """One finished image, with what it took. ``seconds`` is engine time attributed to this row alone."""

    request: Request
    image: Image
    num_tokens: int
    seconds: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Failure:
    """One request that could not become an image."""

    request: Request
    error: RowError


Outcome = Result | Failure


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelInfo:
    """Which weights answered: the name as the user gave it and the sha256 over all weight files.

    ``device``: ``cpu``, or the name of the GPU as its driver tells it.
    """

    name: str
    sha256: str
    device: str
    dtype: str
    versions: dict[str, str] = field(default_factory=dict)
    approximations: tuple[str, ...] = ()
    adapters: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Wave:
    """What one wave took: a stretch of steps with the same rows. A row that enters or leaves begins another wave.

    ``num_tokens`` are the packed image tokens of a step, over all rows and branches; ``capacity`` is how many there
    could have been; as many as there were, where the number of rows was bounded and reached. ``encode_seconds`` and
    ``prefill_seconds`` are those of the rows that entered with this wave, ``decode_seconds`` those of the rows that
    left with it. On a GPU these are the device's seconds, and a decode runs beside the next wave.
    """

    num_rows: int
    num_branches: int
    num_tokens: int
    capacity: int
    num_steps: int
    num_prefill_tokens: int
    encode_seconds: float
    prefill_seconds: float
    step_seconds: float
    decode_seconds: float

    @property
    def occupancy(self) -> float:
        """Share of the capacity that was used; above 1 where a single row is larger than the capacity."""
        return self.num_tokens / self.capacity


class Engine(Protocol):
    """What the actor needs from an engine. OmniGenEngine and FakeEngine have it."""

    info: ModelInfo

    on_step: Callable[[], None]
    """Called as a sign of life after each step of some rows; the actor puts its own here. Cheap, and never raises."""

    def generate(self, requests: Sequence[Request]) -> Iterator[Outcome]:
        """Yield exactly one outcome per request, in any order. Raises EngineLost when only a new process helps."""
        ...

    def take_waves(self) -> list[Wave]:
        """What the waves took since the last call, in order."""
        ...

    def close(self) -> None:
        """Free the device."""
        ...


def ignore_step() -> None:
    """An ``on_step`` that nobody listens to."""


def round_side(pixels: int) -> int:
    """The documented size rule: down to a multiple of 16, but never below 16."""
    return max(PIXELS_PER_TOKEN, pixels // PIXELS_PER_TOKEN * PIXELS_PER_TOKEN)


def check_size(width: int | None, height: int | None, *, has_images: bool) -> None:
    """Raise RowError unless both sides are given within 1…3072, or neither and an input image gives the size."""
    if (width is None) != (height is None):
        raise _bad(ErrorKind.BAD_SIZE, f"width={width} and height={height}: give both, or neither")
    if width is None and not has_images:
        raise _bad(ErrorKind.BAD_SIZE, "no width and height, and no input image to take them from")
    for name, side in (("width", width), ("height", height)):
        if side is not None and not 1 <= side <= MAX_SIDE:
            raise _bad(ErrorKind.BAD_SIZE, f"{name}={side}: must be between 1 and {MAX_SIDE} pixels")


def check_steps(steps: int) -> None:
    """Raise RowError unless 1 ≤ steps ≤ 1000."""
    if not 1 <= steps <= 1000:
        raise _bad(ErrorKind.BAD_PARAMETER, f"steps={steps}: must be between 1 and 1000")


def check_guidance(name: str, value: float) -> None:
    """Raise RowError unless the scale is finite and not negative."""
    if not math.isfinite(value) or value < 0:
        raise _bad(ErrorKind.BAD_PARAMETER, f"{name}={value}: must be a finite number, 0 or greater")


def check_seed(seed: int) -> None:
    """Raise RowError unless the seed fits an unsigned 63-bit integer."""
    if not 0 <= seed <= MAX_SEED:
        raise _bad(ErrorKind.BAD_PARAMETER, f"seed={seed}: must be between 0 and {MAX_SEED}")


def _bad(kind: ErrorKind, message: str) -> RowError:
    return RowError(kind, Stage.CHECK, message)
