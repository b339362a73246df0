"""What the sections of the GPU benchmark share: the model, the rows, the options, and how an engine is timed."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Generator, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from functools import partial
from typing import Any, NamedTuple

import torch
from PIL import Image

from benchmarks import measure
from benchmarks.floors import Branches, Flops, Shape
from benchmarks.full_size import Model
from omnigen_actor.engine import OmniGenEngine
from omnigen_actor.types import Failure, Request

Values = dict[str, Any]


class Cell(NamedTuple):
    """One line of a section: its name, and what measures it."""

    name: str
    run: Callable[[], Values]


Cells = Generator[Cell, None, None]
"""A section's lines in order. Closing it lets go of what they share."""


class Column(NamedTuple):
    """One column of a section's table: its title, the value's name, and how it is written."""

    title: str
    key: str
    form: Callable[[Any], str]

    @property
    def width(self) -> int:
        """Characters, the space before it included."""
        return max(11, len(self.title) + 2)


class Section(NamedTuple):
    """A part of the benchmark. ``about`` says how to read its table."""

    about: str
    columns: tuple[Column, ...]
    cells: Callable[[Bench], Cells]


@dataclass(frozen=True, slots=True, kw_only=True)
class Bench:
    """What all sections are given. ``rate``: FLOP/s of one large product, measured in this run."""

    model: Model
    shapes: tuple[Shape, ...]
    rate: float
    steps: int
    diffusers_steps: int
    waves: int
    few: int
    many: int
    small_side: int
    large_side: int
    compiler: str
    _indices: Iterator[int] = field(default_factory=lambda: itertools.count(1))

    @property
    def device(self) -> torch.device:
        """Where all runs."""
        return self.model.device

    @property
    def flops(self) -> Flops:
        """Counts for the model's size."""
        return Flops.of(self.model.config)

    def branches(self, shape: Shape) -> Branches:
        """A shape's prefixes under the model's tokenizer."""
        return Branches.of(shape, self.model.tokenize)

    def rows_per_wave(self, shape: Shape) -> int:
        """As many as the engine packs: matrix products are at their full rate from a few thousand tokens on."""
        full = 8192 if self.device.type == "cuda" else 4 * self.small_side**2 // 16**2
        return max(1, full // shape.wave_tokens)

    def requests(self, shape: Shape, num_rows: int, steps: int) -> list[Request]:
        """Rows that no engine has seen: nothing that it remembers is of use."""
        return [shape.request(next(self._indices), steps) for _ in range(num_rows)]

    def only(self, *num_images: int, side: int | None = None) -> list[Shape]:
        """The chosen shapes with these numbers of images, of one side."""
        return [s for s in self.shapes if s.num_images in num_images and side in (None, s.side)]


def generate(engine: OmniGenEngine, requests: Sequence[Request]) -> list[Image.Image]:
    """Images in the order of the requests. Raises RowError when a row fails."""
    images: dict[str, Image.Image] = {}
    for outcome in engine.generate(requests):
        if isinstance(outcome, Failure):
            raise outcome.error
        images[outcome.request.id] = outcome.image
    return [images[request.id] for request in requests]


def time_engine(bench: Bench, engine: OmniGenEngine, shape: Shape, num_rows: int, *, waves: int = 1) -> Values:
    """The real thing: all steps of ``waves`` × ``num_rows`` rows, from prompts and pictures to pictures.

    ``seconds_per_image`` is the wall time of that; ``seconds_per_step`` is one more step of one wave, per row.
    """
    for steps in (2, 3):  # two, so that nothing takes the number of steps for a constant
        generate(engine, bench.requests(shape, num_rows, steps))
    step = step_seconds(bench, engine, shape, num_rows) / num_rows
    measure.free_memory(bench.device)
    engine.take_waves()
    requests = bench.requests(shape, num_rows * waves, bench.steps)
    image = measure.seconds(lambda: generate(engine, requests), bench.device) / len(requests)
    return {
        "num_rows": len(requests),
        "seconds_per_image": image,
        "seconds_per_step": step,
        "peak_gib": measure.peak_gib(bench.device),
        "reserved_gib": measure.peak_reserved_gib(bench.device),
        "waves": [asdict(wave) for wave in engine.take_waves()],
    } | compare_floor(bench, shape, image, step)


def step_seconds(bench: Bench, engine: OmniGenEngine, shape: Shape, num_rows: int) -> float:
    """Seconds of one more step of a wave of that many rows."""

    rows = {steps: bench.requests(shape, num_rows, steps) for steps in (bench.few, bench.many)}
    runs = {steps: partial(engine.latents, requests) for steps, requests in rows.items()}
    return measure.marginal_seconds(runs, bench.device)


def compare_floor(bench: Bench, shape: Shape, image: float, step: float) -> Values:
    """Seconds of an image and of a step against the exact mathematics at the rate of one large product."""
    branches = bench.branches(shape)
    image_flops, step_flops = bench.flops.image(branches, bench.steps), bench.flops.step(branches)
    return {
        "tflop_per_image": image_flops / 1e12,
        "tflop_per_step": step_flops / 1e12,
        "tflops": step_flops / step / 1e12,
        "of_matmul_rate": step_flops / step / bench.rate,
        "floor_seconds": image_flops / bench.rate,
        "of_floor": image_flops / bench.rate / image,
    }


def number(digits: int) -> Callable[[Any], str]:
    """A number with that many decimals."""
    return lambda value: f"{value:.{digits}f}"


def percent(value: Any) -> str:
    """A share."""
    return f"{value:.0%}"


def times(value: Any) -> str:
    """A ratio."""
    return f"{value:.2f}×"


def decibels(value: Any) -> str:
    """A PSNR; None is what bit-equal images have."""
    return "equal" if value is None else f"{value:.1f} dB"
