"""Sections of the GPU benchmark that are about exactness: parity with the reference, and rows that share a wave."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import closing
from functools import partial

import numpy as np
import torch
from PIL import Image

from benchmarks import measure
from benchmarks.diffusers_baseline import Baseline
from benchmarks.floors import Shape
from benchmarks.gpu_bench import Bench, Cell, Cells, Column, Section, Values, decibels, generate, number, percent
from omnigen_actor.engine import OmniGenEngine

MAX_PARITY_ERROR = 0.05
PARITY_STEPS = 4
NUM_ROWS = 8


def parity(bench: Bench) -> Cells:
    """The engine against diffusers' transformer in fp32, one branch at a time, on small images and few steps."""
    side = 256 if bench.device.type == "cuda" else bench.small_side
    reference = Baseline(bench.model, torch.float32)
    rounded = Baseline(bench.model, bench.model.dtype)
    with closing(bench.model.engine(bench.model.settings())) as engine:
        for num_images in (0, 1, 3):
            shape = Shape(num_images, side)
            yield Cell(shape.title, partial(_parity, bench, engine, shape, reference, rounded))


def _parity(bench: Bench, engine: OmniGenEngine, shape: Shape, reference: Baseline, rounded: Baseline) -> Values:
    """``baseline_error``: what diffusers' own transformer loses in the same dtype."""
    requests = bench.requests(shape, 1, PARITY_STEPS)
    found = engine.latents(requests)[0]
    expected, baseline = (
        one.denoise(one.prepare(requests, batched=False), PARITY_STEPS)[0] for one in (reference, rounded)
    )
    error = measure.relative_error(found, expected)
    return {
        "relative_error": error,
        "baseline_error": measure.relative_error(baseline, expected),
        "psnr": measure.psnr(found, expected, peak=float(expected.max() - expected.min())),
        "limit": MAX_PARITY_ERROR,
        "holds": bool(error < MAX_PARITY_ERROR),
    }


def waves(bench: Bench) -> Cells:
    """The same rows in full waves, with one row a wave, and alone."""
    shape = Shape(0, bench.small_side)
    requests = bench.requests(shape, NUM_ROWS, bench.steps)
    kept: dict[str, list[Image.Image]] = {}
    seconds: dict[str, float] = {}

    def together(engine: OmniGenEngine, name: str) -> Values:
        for steps in (2, 3):
            generate(engine, bench.requests(shape, NUM_ROWS, steps))
        engine.take_waves()
        seconds[name] = (
            measure.seconds(lambda: kept.update({name: generate(engine, requests)}), bench.device) / NUM_ROWS
        )
        most = max(wave.num_rows for wave in engine.take_waves())
        values: Values = {"rows_per_wave": most, "seconds_per_image": seconds[name]}
        if name == "one" and "full" in seconds:
            values["price"] = seconds["one"] / seconds["full"] - 1
        return values

    def alone(engine: OmniGenEngine, name: str) -> Values:
        chosen = (0, NUM_ROWS - 1)
        images = [generate(engine, [requests[i]])[0] for i in chosen]
        return _distance(images, [kept[name][i] for i in chosen])

    with closing(bench.model.engine(bench.model.settings())) as engine:
        yield Cell(f"{NUM_ROWS} rows in full waves", partial(together, engine, "full"))
        yield Cell("a row of them alone", partial(alone, engine, "full"))
    with closing(bench.model.engine(bench.model.settings(rows_per_wave=1))) as engine:
        yield Cell(f"{NUM_ROWS} rows, rows_per_wave=1", partial(together, engine, "one"))
        yield Cell("a row of them alone, rows_per_wave=1", partial(alone, engine, "one"))
    yield Cell("full waves against rows_per_wave=1", lambda: _distance(kept["full"], kept["one"]))


def _distance(found: Sequence[Image.Image], expected: Sequence[Image.Image]) -> Values:
    """PSNR of 8-bit images: over all, and of the worst."""
    pairs = [(_pixels(a), _pixels(b)) for a, b in zip(found, expected, strict=True)]
    each = [psnr for pair in pairs if (psnr := measure.psnr(*pair, peak=255.0)) is not None]
    all_found, all_expected = (torch.stack(side) for side in zip(*pairs, strict=True))
    return {
        "psnr": measure.psnr(all_found, all_expected, peak=255.0),
        "worst_psnr": min(each, default=None),
        "equal": not each,
    }


def _pixels(image: Image.Image) -> torch.Tensor:
    return torch.from_numpy(np.array(image)).double()


SECTIONS = {
    "parity": Section(
        f"Latents after {PARITY_STEPS} steps against fp32, relative error; beside it diffusers' own in the same dtype.",
        (
            Column("error", "relative_error", number(5)),
            Column("diffusers' own", "baseline_error", number(5)),
            Column("latent PSNR", "psnr", decibels),
        ),
        parity,
    ),
    "waves": Section(
        "How far other rows in its wave move a row's image (8 bits), and the price of the setting that prevents it.",
        (
            Column("rows/wave", "rows_per_wave", number(0)),
            Column("s/image", "seconds_per_image", number(3)),
            Column("price", "price", percent),
            Column("PSNR", "psnr", decibels),
            Column("worst", "worst_psnr", decibels),
        ),
        waves,
    ),
}
