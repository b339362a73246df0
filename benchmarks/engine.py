"""The engine against diffusers' transformer on a CPU: equal weights, rows, steps, guidance, sizes and starting noise.

Two baselines, both with diffusers' own transformer, prompt processing and collator:

    batched    as diffusers' users call it: all branches padded into one batch, dense mask. Its images are wrong where
               the branches differ in length (tests/test_parity.py), so its time is compared and its result is not.
    branches   one branch at a time, no padding: the reference that the engine must equal, checked in each run.

Each round is another row, for all contenders alike, from its prompt and pixels to its final latent. The condition of
the negative prompt is warm, as it is after an actor's first row. The floor is what the products of the exact
mathematics would take at the rate that this machine reaches in one large product, measured beside each row. Memory is
how far a contender raised the process's peak above what it held before.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
from collections.abc import Callable
from itertools import count
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).parents[1]))  # the reference lives with the tests

from benchmarks import report
from benchmarks.floors import Branches, Flops, Shape
from benchmarks.measure import matmul_rate
from benchmarks.models import MODEL
from benchmarks.peak import Peak
from omnigen_actor.checkpoint.opening import open_checkpoint
from omnigen_actor.checkpoint.tiny import write_tiny_checkpoint
from omnigen_actor.engine import OmniGenEngine
from omnigen_actor.engine_settings import EngineSettings
from omnigen_actor.model.loading import load_tokenizer
from omnigen_actor.model.prompt import Tokenize
from omnigen_actor.types import Request
from tests.reference import Reference, relative_error

SHAPES = (Shape(0, 512), Shape(1, 512), Shape(3, 256))
CONTENDERS = ("engine", "batched", "branches")


def main() -> None:
    """Print the table, and save it where asked."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--side", type=int, help="pixels of all sides; default: 512, and 256 for three images")
    parser.add_argument("--rows", nargs="+", type=int, default=[0, 1, 3], help="numbers of input images")
    parser.add_argument("--steps", type=int, default=50)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--output", type=Path)
    options = parser.parse_args()
    print(f"hidden size {MODEL['hidden_size']}, {MODEL['num_layers']} layers, fp32, {torch.get_num_threads()} threads")
    print(f"{options.steps} steps, {options.rounds} rounds in turn")
    print(f"{'row':<18}{'engine s':>10}{'batched/engine':>24}{'branches/engine':>24}{'of floor':>10}{'error':>8}"
          f"{'peak MiB: ' + ', '.join(CONTENDERS):>36}")  # fmt: skip
    with tempfile.TemporaryDirectory() as scratch:
        write_tiny_checkpoint(Path(scratch), **MODEL)
        engine = OmniGenEngine.from_pretrained(scratch, EngineSettings(device="cpu"))
        reference = Reference(Path(scratch))
        tokenize = load_tokenizer(open_checkpoint(scratch))
        result: dict[str, object] = {"steps": options.steps, "model": MODEL, "rows": (rows := [])}
        for shape in SHAPES:
            if shape.num_images in options.rows:
                sized = Shape(shape.num_images, options.side or shape.side)
                rows.append(measure(sized, engine, reference, tokenize, options))
                report.save(options.output, result)  # after each, as a whole run takes its time


def measure(
    shape: Shape, engine: OmniGenEngine, reference: Reference, tokenize: Tokenize, options: argparse.Namespace
) -> dict[str, object]:
    """Time one shape and print its line."""
    runs: dict[str, Callable[[Request], torch.Tensor]] = {
        "engine": lambda request: engine.latents([request])[0],
        "batched": lambda request: reference.denoise(request, reference.prepare(request, batched=True)),
        "branches": lambda request: reference.denoise(request, reference.prepare(request)),
    }
    peaks = {name: Peak() for name in runs}
    error = check(shape.request(0, 2), runs, peaks)
    rate = matmul_rate(torch.device("cpu"), torch.float32, (2048, 2048, 2048))
    contenders = {name: contender(run, shape, options.steps, peaks[name]) for name, run in runs.items()}
    seconds = report.rounds(contenders, options.rounds)
    against = {name: report.ratios(seconds[name], seconds["engine"]) for name in ("batched", "branches")}
    floor = Flops.of(MODEL).image(Branches.of(shape, tokenize), options.steps) / rate
    fraction = floor / statistics.median(seconds["engine"])
    spans = [f"{r['median']:.2f} ({r['min']:.2f}–{r['max']:.2f})" for r in against.values()]
    memory = ", ".join(f"{peaks[name].mib:.0f}" for name in CONTENDERS)
    print(f"{shape.title:<18}{statistics.median(seconds['engine']):>10.2f}{spans[0]:>24}{spans[1]:>24}{fraction:>10.0%}"
          f"{error:>8.0e}{memory:>36}", flush=True)  # fmt: skip
    return {
        "row": shape.title,
        "seconds": seconds,
        "ratios": against,
        "floor_seconds": floor,
        "matmul_gflops": rate / 1e9,
        "error": error,
        "peak_mib": {name: peak.mib for name, peak in peaks.items()},
    }


def check(request: Request, runs: dict[str, Callable[[Request], torch.Tensor]], peaks: dict[str, Peak]) -> float:
    """The engine's error against the reference. Exits where the times would compare unequal work.

    Every contender's first run, so that what it keeps for later ones shows in its peak.
    """
    found = {}
    for name, run in runs.items():
        with peaks[name].watched():
            found[name] = run(request)
    error = relative_error(found["engine"], found["branches"])
    if error > 1e-4:
        raise SystemExit(f"{request.id}: the engine's latent is off by {error:.1e}: this would compare unequal work")
    return error


def contender(run: Callable[[Request], object], shape: Shape, steps: int, peak: Peak) -> report.Contender:
    """Runs another row each time; every contender meets the same rows."""
    indices = count(1)

    def once() -> float:
        request = shape.request(next(indices), steps)
        with peak.watched():
            return report.timed(lambda: run(request))()

    return once


if __name__ == "__main__":
    main()
