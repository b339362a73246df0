"""FakeEngine: an engine without weights, so that the whole flow runs in seconds. Knows no torch and no files.

Its picture is a function of (seed, prompt, input pixels, size) alone, as a real engine's is. Flows with failures can be
tried out with marks in the prompt: ``[fail]`` becomes a row error, ``[kill]`` kills the process, ``[hang]`` never comes
to an end, ``[lost]`` loses the engine.
"""

from __future__ import annotations

import hashlib
import os
import signal
import time
from collections.abc import Callable, Iterator, Sequence

import numpy as np
from PIL import Image

from omnigen_actor import uri
from omnigen_actor.engine_settings import EngineSettings
from omnigen_actor.errors import EngineLost, ErrorKind, RowError, Stage
from omnigen_actor.types import (
    PIXELS_PER_TOKEN,
    Failure,
    ModelInfo,
    Outcome,
    Request,
    Result,
    Wave,
    ignore_step,
    round_side,
)

FAIL_MARK, KILL_MARK, HANG_MARK, LOST_MARK = "[fail]", "[kill]", "[hang]", "[lost]"
FAKE_SHA256 = hashlib.sha256(b"omnigen_actor.fake/1").hexdigest()
"""Stands for the weights; the number changes when the pictures do."""


class FakeEngine:
    """Draws a smooth colour field in place of an image. ``seconds_per_image`` is slept away for each.

    Each image is a wave of its own. Approximations and adapters of ``settings`` are reported and change no picture.
    """

    def __init__(self, *, seconds_per_image: float = 0.0, settings: EngineSettings | None = None) -> None:
        settings = settings or EngineSettings()
        self.info = ModelInfo(
            name="fake",
            sha256=FAKE_SHA256,
            device="cpu",
            dtype="uint8",
            versions={"numpy": np.__version__},
            approximations=settings.approximations,
            adapters=tuple(uri.redact(adapter) for adapter in settings.adapters),
        )
        self.on_step: Callable[[], None] = ignore_step
        self._seconds_per_image = seconds_per_image
        self._wave_tokens = settings.wave_tokens
        self._waves: list[Wave] = []

    def generate(self, requests: Sequence[Request]) -> Iterator[Outcome]:
        """Yield exactly one outcome per request, in order. Raises EngineLost for ``[lost]``."""
        for request in requests:
            started = time.perf_counter()
            time.sleep(self._seconds_per_image)
            slept = time.perf_counter()
            _break_down(request)
            self.on_step()
            if FAIL_MARK in request.prompt:
                yield Failure(request=request, error=_failure(request))
                continue
            image = draw(request)
            num_tokens = image.width * image.height // PIXELS_PER_TOKEN**2
            drawn = time.perf_counter()
            self._waves.append(self._wave(request, num_tokens, slept - started, drawn - slept))
            yield Result(request=request, image=image, num_tokens=num_tokens, seconds=drawn - started)

    def take_waves(self) -> list[Wave]:
        """One wave for each image since the last call: sleeping counts as steps, drawing as decoding."""
        taken, self._waves = self._waves, []
        return taken

    def close(self) -> None:
        """There is nothing to free."""

    def _wave(self, request: Request, num_tokens: int, step_seconds: float, decode_seconds: float) -> Wave:
        return Wave(
            num_rows=1,
            num_branches=1,
            num_tokens=num_tokens,
            capacity=self._wave_tokens or num_tokens,
            num_steps=request.steps,
            num_prefill_tokens=0,
            encode_seconds=0.0,
            prefill_seconds=0.0,
            step_seconds=step_seconds,
            decode_seconds=decode_seconds,
        )


def draw(request: Request) -> Image.Image:
    """An RGB picture of the request's size, or of its first input image's: 6 × 6 random colours, enlarged smoothly."""
    width, height = request.width, request.height
    if width is None or height is None:
        width, height = request.images[0].size
    noise = np.random.default_rng(_entropy(request)).integers(0, 256, (6, 6, 3), dtype=np.uint8)
    return Image.fromarray(noise).resize((round_side(width), round_side(height)), Image.Resampling.BICUBIC)


def _break_down(request: Request) -> None:
    """What no engine comes back from, as the prompt asks."""
    if KILL_MARK in request.prompt:
        os.kill(os.getpid(), signal.SIGKILL)
    if LOST_MARK in request.prompt:
        raise EngineLost(f"the prompt of {request.id!r} contains {LOST_MARK}: lost as asked")
    while HANG_MARK in request.prompt:
        time.sleep(1)


def _entropy(request: Request) -> int:
    digest = hashlib.sha256(f"{request.seed}\0{request.prompt}\0".encode())
    for image in request.images:
        digest.update(f"{image.size}\0".encode())
        digest.update(image.tobytes())
    return int.from_bytes(digest.digest(), "little")


def _failure(request: Request) -> RowError:
    return RowError(
        ErrorKind.ENGINE_FAILED, Stage.GENERATE, f"the prompt of {request.id!r} contains {FAIL_MARK}: fails as asked"
    )
