"""Sections of the GPU benchmark that are about speed: shapes, approximations, memory, attention."""

from __future__ import annotations

from contextlib import closing
from functools import partial

import torch
from torch import Tensor

from benchmarks import measure
from benchmarks.diffusers_baseline import Baseline, Prepared, decode, encode
from benchmarks.floors import Shape
from benchmarks.gpu_bench import (
    Bench,
    Cell,
    Cells,
    Column,
    Section,
    Values,
    compare_floor,
    decibels,
    number,
    percent,
    step_seconds,
    time_engine,
    times,
)
from omnigen_actor.engine import OmniGenEngine
from omnigen_actor.model.attention import BACKENDS
from omnigen_actor.types import Request

APPROXIMATIONS = (
    {"fp8": True},
    {"guidance_from": 0.1, "guidance_to": 0.9},
    {"step_cache": 0.1},
)
SMALL_CARDS_GIB = (22.0, 15.0)
"""What a 24 GB and a 16 GB card have left beside the driver."""

SECONDS = Column("s/image", "seconds_per_image", number(3))
STEP = Column("s/step", "seconds_per_step", number(4))
TFLOPS = Column("TFLOP/s", "tflops", number(1))
OF_RATE = Column("of matmul", "of_matmul_rate", percent)
OF_FLOOR = Column("of floor", "of_floor", percent)
PEAK = Column("GiB", "peak_gib", number(1))


# -- shapes ------------------------------------------------------------------------------------------------------------


def shapes(bench: Bench) -> Cells:
    """For each row of the floor table: the engine with full waves, with one row, and diffusers."""
    baseline = Baseline(bench.model, bench.model.dtype)
    with closing(bench.model.engine(bench.model.settings())) as engine:
        for shape in bench.shapes:
            yield from _shape(bench, engine, baseline, shape)


def _shape(bench: Bench, engine: OmniGenEngine, baseline: Baseline, shape: Shape) -> Cells:
    found: Values = {}
    most = bench.rows_per_wave(shape)

    def ours(num_rows: int) -> Values:
        values = time_engine(bench, engine, shape, num_rows, waves=bench.waves if num_rows == most else 1)
        found.setdefault("seconds", values["seconds_per_image"])
        return values

    def theirs(num_rows: int, *, compiled: bool) -> Values:
        values = time_diffusers(bench, baseline, shape, num_rows, compiled=compiled)
        return values | ({"speedup": values["seconds_per_image"] / found["seconds"]} if found else {})

    for num_rows in sorted({most, 1}, reverse=True):
        yield Cell(f"{shape.title}, engine, {_rows(num_rows)}", partial(ours, num_rows))
    for compiled, name in ((False, "eager"), (True, "compiled")):
        for num_rows in sorted({1, most}):
            title = f"{shape.title}, diffusers {name}, {_rows(num_rows)}"
            yield Cell(title, partial(theirs, num_rows, compiled=compiled))


def _rows(num_rows: int) -> str:
    return f"{num_rows} row{'s' * (num_rows > 1)}"


def time_diffusers(bench: Bench, baseline: Baseline, shape: Shape, num_rows: int, *, compiled: bool) -> Values:
    """A few steps of diffusers' batched call after one to warm up. An image is the steps at that price, and encoding
    and decoding once; there is no prefill.
    """
    prepared = baseline.prepare(bench.requests(shape, num_rows, bench.steps), batched=True)
    measure.free_memory(bench.device)
    if compiled:
        with baseline.compiled(bench.compiler):
            step = _diffusers_step(bench, baseline, prepared)
    else:
        step = _diffusers_step(bench, baseline, prepared)
    step /= num_rows
    flops = bench.flops.diffusers_step(bench.branches(shape))
    vae = vae_seconds(bench, shape)
    return {
        "num_rows": num_rows,
        "seconds_per_image": bench.steps * step + vae,
        "seconds_per_step": step,
        "vae_seconds": vae,
        "tflop_per_step": flops / 1e12,
        "tflops": flops / step / 1e12,
        "of_matmul_rate": flops / step / bench.rate,
        "peak_gib": measure.peak_gib(bench.device),
    }


def _diffusers_step(bench: Bench, baseline: Baseline, prepared: Prepared) -> float:
    baseline.denoise(prepared, 1)
    steps = bench.diffusers_steps
    return measure.seconds(lambda: baseline.denoise(prepared, steps), bench.device) / steps


def vae_seconds(bench: Bench, shape: Shape) -> float:
    """Encoding each input image once and decoding the output, in fp32, after a first time."""
    request = shape.request(0, 1)
    latent = torch.zeros(4, shape.side // 8, shape.side // 8, device=bench.device)

    def run() -> None:
        for image in request.images:
            encode(bench.model, image)
        decode(bench.model, latent)

    run()
    return measure.seconds(run, bench.device)


# -- approximations ----------------------------------------------------------------------------------------------------


def approximations(bench: Bench) -> Cells:
    """Each approximation on full waves, against the exact engine on the same rows."""
    exact: dict[str, tuple[float, list[Tensor]]] = {}
    rows = {shape.key: bench.requests(shape, bench.rows_per_wave(shape), bench.steps) for shape in bench.shapes}

    def run(engine: OmniGenEngine, shape: Shape) -> Values:
        seconds, latents = _denoise(bench, engine, rows[shape.key])
        exact.setdefault(shape.key, (seconds, latents))
        return {"seconds_per_image": seconds} | _against(bench, exact[shape.key], seconds, latents)

    for changes in ({}, *APPROXIMATIONS):
        settings = bench.model.settings(**changes)
        name = ", ".join(settings.approximations) or "exact"
        try:
            engine = bench.model.engine(settings)
        except Exception as error:  # what this device can't do is a line of the table
            yield Cell(name, partial(_again, error))
            continue
        with closing(engine):
            for shape in bench.shapes:
                yield Cell(f"{shape.title}, {name}", partial(run, engine, shape))


def _denoise(bench: Bench, engine: OmniGenEngine, requests: list[Request]) -> tuple[float, list[Tensor]]:
    """Seconds of an image without decoding, and the final latents."""
    shape = Shape(len(requests[0].images), requests[0].width or 0)
    for steps in (2, 3):
        engine.latents(bench.requests(shape, len(requests), steps))
    measure.free_memory(bench.device)
    latents: list[Tensor] = []
    seconds = measure.seconds(lambda: latents.extend(engine.latents(requests)), bench.device)
    return seconds / len(requests), latents


def _against(bench: Bench, exact: tuple[float, list[Tensor]], seconds: float, latents: list[Tensor]) -> Values:
    """Speed and distance. The image's PSNR is that of all rows' pixels; None: equal."""
    expected, found = torch.stack(exact[1]), torch.stack(latents)
    pictures, originals = (torch.stack([decode(bench.model, one) for one in rows]) for rows in (found, expected))
    return {
        "speedup": exact[0] / seconds,
        "image_psnr": measure.psnr(pictures, originals, peak=1.0),
        "latent_psnr": measure.psnr(found, expected, peak=float(expected.max() - expected.min())),
        "latent_error": measure.relative_error(found, expected),
    }


def _again(error: Exception) -> Values:
    raise error


# -- memory ------------------------------------------------------------------------------------------------------------


def memory(bench: Bench) -> Cells:
    """One row at the large side on less memory, the whole process being held to it."""
    for gib in SMALL_CARDS_GIB:
        try:
            measure.free_memory(bench.device)
            with closing(bench.model.engine(bench.model.settings(memory_gib=gib))) as engine:
                for shape in bench.only(0, 1, side=bench.large_side):
                    yield Cell(f"{shape.title}, {gib:g} GiB", partial(time_engine, bench, engine, shape, 1))
        except Exception as error:
            yield Cell(f"{gib:g} GiB", partial(_again, error))
        finally:
            if bench.device.type == "cuda":
                torch.cuda.set_per_process_memory_fraction(1.0, bench.device.index)


# -- attention ---------------------------------------------------------------------------------------------------------


def attention(bench: Bench) -> Cells:
    """One step through each attention kernel."""
    for name in ("auto", "varlen", *BACKENDS):
        try:
            engine = bench.model.engine(bench.model.settings(attention=name))
        except Exception as error:
            yield Cell(name, partial(_again, error))
            continue
        with closing(engine):
            for shape in bench.only(0, 1, side=bench.large_side):
                yield Cell(f"{shape.title}, {name}", partial(_step, bench, engine, shape))


def _step(bench: Bench, engine: OmniGenEngine, shape: Shape) -> Values:
    for steps in (2, 3):
        engine.latents(bench.requests(shape, 1, steps))
    measure.free_memory(bench.device)
    step = step_seconds(bench, engine, shape, 1)
    floor = compare_floor(bench, shape, step, step)
    return {"seconds_per_step": step, "peak_gib": measure.peak_gib(bench.device)} | {
        name: floor[name] for name in ("tflops", "of_matmul_rate")
    }


SECTIONS = {
    "shapes": Section(
        "s/image of the engine: wall time of whole rows; of diffusers: measured s/step × steps, and the autoencoder.\n"
        "TFLOP/s are those of a step. Of floor: the exact mathematics at the matmul rate, over s/image.\n"
        "Times: s/image over that of the engine's full waves.",
        (SECONDS, STEP, TFLOPS, OF_RATE, OF_FLOOR, PEAK, Column("times", "speedup", times)),
        shapes,
    ),
    "approximations": Section(
        "s/image without decoding. With random weights a PSNR says how far the mathematics moves, not what one sees.",
        (
            SECONDS,
            Column("faster", "speedup", times),
            Column("image PSNR", "image_psnr", decibels),
            Column("latent PSNR", "latent_psnr", decibels),
            Column("error", "latent_error", number(4)),
        ),
        approximations,
    ),
    "memory": Section(
        "One row with the process held to so much memory, weights included.",
        (SECONDS, STEP, PEAK, Column("reserved", "reserved_gib", number(1))),
        memory,
    ),
    "attention": Section("One step of one row.", (STEP, TFLOPS, OF_RATE, PEAK), attention),
}
