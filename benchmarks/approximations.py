"""Each approximation against the exact engine: how far it moves the images, and what it saves. One run, equal rows.

PSNR is that of the decoded 8-bit images against the exact engine's, over all rows. With the default checkpoint, whose
weights are random, it says how far the mathematics moves and not what a viewer sees: its images are noise, and a
trained model passes errors on in its own way. Give --model a published checkpoint for figures that say something of
pictures. Two lines help to read the others: a second exact engine, which differs by nothing but the noise of the
clock, and the PSNR between different rows of the exact engine, which is what "another image" amounts to.

Seconds are those of whole rows, prefill and decoding included, and each ratio is of two runs in turn. "Saved" is the
share of image tokens, over all branches and steps, that did not enter the model, as the engine's waves tell; what a
step cache leaves out lies inside a step, where they do not see it. On a CPU fp8 is emulated, so its seconds there mean
nothing and only its PSNR counts.
"""

from __future__ import annotations

import argparse
import json
import math
import statistics
import sys
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

sys.path.insert(0, str(Path(__file__).parents[1]))

from benchmarks import report
from benchmarks.models import MODEL
from omnigen_actor import images
from omnigen_actor.checkpoint.tiny import write_tiny_checkpoint
from omnigen_actor.engine import OmniGenEngine
from omnigen_actor.engine_settings import EngineSettings
from omnigen_actor.errors import OmniGenBatchError
from omnigen_actor.tasks import TASKS
from omnigen_actor.types import Engine, Failure, Request, Wave

EXAMPLES = Path(__file__).parents[1] / "examples"
KINDS = ("text_to_image", "edit")
RANDOM = "random weights: the PSNR says how far the mathematics moves, not what a viewer sees"

CONTROL: dict[str, Any] = {}
GUIDANCE_INTERVALS = ((0.1, 0.9), (0.0, 0.8), (0.2, 0.8))
STEP_CACHES = (0.05, 0.1, 0.2)


@dataclass(frozen=True, slots=True)
class Run:
    """What an engine made of the rows: images in the rows' order, and its waves."""

    images: list[Image.Image]
    waves: list[Wave]

    @property
    def num_tokens(self) -> int:
        """Image tokens that entered the model, over all branches and steps."""
        return sum(wave.num_tokens * wave.num_steps for wave in self.waves)


@dataclass(frozen=True, slots=True)
class Exact:
    """The exact engine, what it was loaded from, and its images of the rows."""

    model: str
    settings: EngineSettings
    engine: OmniGenEngine
    requests: Sequence[Request]
    run: Run


def main() -> None:
    """Print the table, and save it where asked."""
    options = parse_options()
    requests = rows(options.rows, options.side, options.steps)
    with tempfile.TemporaryDirectory() as scratch:
        if options.model is None:
            write_tiny_checkpoint(Path(scratch), **MODEL)
        exact = EngineSettings(device=options.device, dtype=options.dtype, cpu_threads=options.threads)
        result = measure(options.model or scratch, exact, approximations(options.step_cache), requests, options.rounds)
    model = MODEL if options.model is None else {"name": options.model}
    note = RANDOM if options.model is None else None
    report.save(options.output, {"model": model, "note": note, "steps": options.steps, "side": options.side} | result)


def parse_options() -> argparse.Namespace:
    """The options of the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", help="checkpoint: hub id, folder or URI; default: a random one")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--dtype", default="auto")
    parser.add_argument("--threads", type=int, default=1, help="CPU threads")
    parser.add_argument("--side", type=int, default=256, help="pixels of input and output sides")
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--rows", type=int, default=2, choices=range(1, 5), help="rows of each kind: text, edit")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--step-cache", type=float, nargs="*", default=STEP_CACHES, metavar="THRESHOLD")
    parser.add_argument("--output", type=Path)
    return parser.parse_args()


def rows(num_each: int, side: int, steps: int) -> list[Request]:
    """``num_each`` rows of each kind out of the examples' manifest, each with a seed of its own."""
    listed = [json.loads(line) for line in (EXAMPLES / "manifest.jsonl").read_text(encoding="utf-8").splitlines()]
    chosen = [row for kind in KINDS for row in [row for row in listed if row["task"] == kind][:num_each]]
    return [_request(row, seed, side, steps) for seed, row in enumerate(chosen)]


def approximations(step_caches: Iterable[float]) -> list[dict[str, Any]]:
    """What each line of the table changes in the exact settings. The first changes nothing."""
    intervals = [{"guidance_from": start, "guidance_to": end} for start, end in GUIDANCE_INTERVALS]
    caches = [{"step_cache": threshold} for threshold in step_caches]
    together = [{"fp8": True} | intervals[0] | cache for cache in caches[:1]]
    return [CONTROL, {"fp8": True}, *intervals, *caches, *together]


def measure(
    model: str, settings: EngineSettings, changes: Sequence[dict[str, Any]], requests: Sequence[Request], rounds: int
) -> dict[str, Any]:
    """Every approximation against one exact engine; each line is printed as it is done."""
    with closing(OmniGenEngine.from_pretrained(model, settings)) as engine:
        exact = Exact(model, settings, engine, requests, run(engine, requests))
        apart = apart_psnr(exact.run.images)
        print(f"{engine.info.device}, {engine.info.dtype}, {len(requests)} rows, {rounds} rounds in turn")
        print(f"different rows of the exact engine: median PSNR {_decibels(apart)}")
        print(f"{'approximation':<56}{'min PSNR':>12}{'median PSNR':>14}{'exact/approximate':>24}{'saved':>8}")
        lines = []
        for change in changes:
            lines.append(compare(exact, change, rounds))
            print_line(lines[-1])
        return {
            "device": engine.info.device,
            "dtype": engine.info.dtype,
            "rows": [request.id for request in requests],
            "different_rows_psnr": apart,
            "approximations": lines,
        }


def compare(exact: Exact, change: dict[str, Any], rounds: int) -> dict[str, Any]:
    """One approximation. What can't run here is a line that says why. A PSNR of None: identical images."""
    settings = replace(exact.settings, **change)
    name = ", ".join(settings.approximations) or "none: a second exact engine"
    try:
        with closing(OmniGenEngine.from_pretrained(exact.model, settings)) as engine:
            found = run(engine, exact.requests)  # also warms up
            contenders = {"exact": report.timed(lambda: run(exact.engine, exact.requests))}
            contenders |= {"approximate": report.timed(lambda: run(engine, exact.requests))}
            seconds = report.rounds(contenders, rounds)
    except OmniGenBatchError as error:
        return {"approximation": name, "error": str(error)}
    distances = [psnr(*pair) for pair in zip(found.images, exact.run.images, strict=True)]
    return {
        "approximation": name,
        "emulated": settings.fp8 and exact.engine.info.device == "cpu",
        "psnr": [_finite(distance) for distance in distances],
        "psnr_min": _finite(min(distances)),
        "psnr_median": _finite(statistics.median(distances)),
        "seconds": seconds,
        "ratio": report.ratios(seconds["exact"], seconds["approximate"]),
        "saved": None if settings.step_cache else 1 - found.num_tokens / exact.run.num_tokens,
    }


def run(engine: Engine, requests: Sequence[Request]) -> Run:
    """All rows once. Raises RowError when one fails: the others would no longer be equal work."""
    engine.take_waves()
    found: dict[str, Image.Image] = {}
    for outcome in engine.generate(requests):
        if isinstance(outcome, Failure):
            raise outcome.error
        found[outcome.request.id] = outcome.image
    return Run([found[request.id] for request in requests], engine.take_waves())


def psnr(found: Image.Image, expected: Image.Image) -> float:
    """Peak signal-to-noise ratio of two 8-bit images of one size, in dB; infinite where they are identical."""
    if found.size != expected.size:
        raise ValueError(f"images of {found.size} and {expected.size} pixels can't be compared")
    error = np.mean((np.asarray(found, dtype=np.float64) - np.asarray(expected, dtype=np.float64)) ** 2)
    return 10 * math.log10(255**2 / error) if error else math.inf


def apart_psnr(pictures: Sequence[Image.Image]) -> float | None:
    """The median PSNR between different images of one size; None where all are identical."""
    return _finite(statistics.median(psnr(*pair) for pair in combinations(pictures, 2)))


def print_line(line: dict[str, Any]) -> None:
    """One approximation's line of the table."""
    print("".join(_cells(line)))


def _cells(line: dict[str, Any]) -> Iterator[str]:
    yield f"{line['approximation']:<56}"
    if "error" in line:
        yield f"  {line['error']}"
        return
    ratio = line["ratio"]
    yield f"{_decibels(line['psnr_min']):>12}{_decibels(line['psnr_median']):>14}"
    span = f"{ratio['median']:.2f} ({ratio['min']:.2f}–{ratio['max']:.2f})"
    saved = "–" if line["saved"] is None else f"{line['saved']:.0%}"
    yield f"{'emulated' if line['emulated'] else span:>24}{saved:>8}"


def _request(row: dict[str, Any], seed: int, side: int, steps: int) -> Request:
    pictures = tuple(_photo(EXAMPLES / uri) for uri in row["images"])
    return Request(
        id=row["id"],
        prompt=TASKS[row["task"]].prompt(row["instruction"], len(pictures)),
        images=pictures,
        width=side,
        height=side,
        seed=seed,
        steps=steps,
        max_input_image_size=side,
    )


def _photo(path: Path) -> Image.Image:
    return images.decode(path.read_bytes(), max_pixels=100_000_000)


def _finite(decibels: float) -> float | None:
    return decibels if math.isfinite(decibels) else None


def _decibels(value: float | None) -> str:
    return "identical" if value is None else f"{value:.1f} dB"


if __name__ == "__main__":
    main()
