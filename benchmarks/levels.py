"""What the barrier between levels of rows costs: a level begins when the one before is complete.

The same rows in turn as one level (every row edits a file of its own) and as chains (all but the first of a chain edit
the image of the row before). Ids, prompts, sizes and steps are equal, and so is the number of batches. Three cases:

fake   one actor, an engine that sleeps: the barrier without the price of an engine
tiny   one actor, the tiny random checkpoint
slow   two actors, the engine that sleeps, and one row of each level takes ten times as long, at another place in each
       level: a level waits for its slowest batch while the other engine is idle

One local Ray is started before all runs and used by all; a first run of each case is not counted. Its slots only count,
and a sleeping engine needs no core: two actors fit on a machine with two.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

sys.path.insert(0, str(Path(__file__).parents[1]))

from benchmarks import report
from omnigen_actor import seeding, store
from omnigen_actor.fake import FakeEngine, draw
from omnigen_actor.types import ModelInfo, Outcome, Request
from pipelines.config import GenerationConfig, InputConfig, RunConfig, WorkerConfig
from pipelines.generate import run

RAY_CPUS = 4
SIDE = 64
SECONDS_PER_STEP = 0.01
SLOW = 10
TINY_STEPS = 2
ONE, CHAINS = "one level", "chains"


class SleepingEngine:
    """An engine without weights whose images take SECONDS_PER_STEP × steps each. Its name tells which process it is."""

    def __init__(self, **_settings: object) -> None:
        self.info = ModelInfo(name=f"sleeping-{os.getpid()}", sha256="", device="cpu", dtype="uint8")

    def generate(self, requests: Sequence[Request]) -> Iterator[Outcome]:
        """Yield one outcome per request, in order."""
        for request in requests:
            yield from FakeEngine(seconds_per_image=request.steps * SECONDS_PER_STEP).generate([request])

    def close(self) -> None:
        """There is nothing to free."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """What is run as one level and as chains. ``slow`` is how much longer one row of each level takes."""

    name: str
    model: str
    steps: int
    num_rounds: int
    num_actors: int = 1
    slow: int = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Shape:
    """``num_rows`` rows, in chains of ``num_levels`` where they are chains, in batches of ``batch_size``."""

    num_rows: int
    num_levels: int
    batch_size: int

    @property
    def rows_per_level(self) -> int:
        return self.num_rows // self.num_levels


@dataclass(frozen=True, slots=True, kw_only=True)
class Waits:
    """When a run's engines did nothing, from its records; sums over all levels.

    ``between_s``: seconds from the last image of a level to the start of the first of the next one.
    ``late_s``: engine seconds from the start of a level's first image to that of the engine's own first image; an
    engine that makes none is late for the whole level. ``tail_s``: engine seconds from the engine's last image of a
    level to the level's last.
    """

    between_s: float
    late_s: float
    tail_s: float


def main() -> None:
    """Print the figures, and save them where asked."""
    options = parse_options()
    shape = Shape(num_rows=options.rows, num_levels=options.levels, batch_size=options.batch_size)
    measured = {}
    with tempfile.TemporaryDirectory() as scratch, local_ray():
        folder = Path(scratch)
        draw_inputs(folder, shape.num_rows)
        for case in cases(options, folder / "model"):
            measured[case.name] = measure(case, shape, folder)
            show(case, shape, measured[case.name])
    fixed = {"side": SIDE, "seconds_per_step": SECONDS_PER_STEP, "slow": SLOW, "ray_cpus": RAY_CPUS}
    report.save(options.output, asdict(shape) | fixed | {"cases": measured})


def parse_options() -> argparse.Namespace:
    """The options of the command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rows", type=int, default=64)
    parser.add_argument("--levels", type=int, default=4)
    parser.add_argument("--batch-size", type=int, default=4)
    parser.add_argument("--steps", type=int, default=10, help=f"of the engine that sleeps, {SECONDS_PER_STEP} s each")
    parser.add_argument("--rounds", type=int, default=3, help="of the engine that sleeps")
    parser.add_argument("--tiny-rounds", type=int, default=2, help="of the tiny checkpoint")
    parser.add_argument("--output", type=Path)
    options = parser.parse_args()
    if options.levels < 2:
        parser.error(f"--levels {options.levels}: with less than 2 there is no barrier")
    if options.rows % (options.levels * options.batch_size):
        parser.error(f"--rows {options.rows}: give a multiple of levels × batch size, so that all batches are whole")
    return options


def cases(options: argparse.Namespace, model: Path) -> list[Case]:
    """The three cases; writes the tiny checkpoint."""
    from omnigen_actor.checkpoint.tiny import write_tiny_checkpoint

    write_tiny_checkpoint(model)
    sleeping = f"benchmarks.levels:{SleepingEngine.__name__}"
    return [
        Case(name="fake", model=sleeping, steps=options.steps, num_rounds=options.rounds),
        Case(name="tiny", model=str(model), steps=TINY_STEPS, num_rounds=options.tiny_rounds),
        Case(name="slow", model=sleeping, steps=options.steps, num_rounds=options.rounds, num_actors=2, slow=SLOW),
    ]


@contextmanager
def local_ray() -> Iterator[None]:
    """One local Ray for all runs, whose workers find this module."""
    import ray

    root = str(Path(__file__).parents[1])
    os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, (root, os.environ.get("PYTHONPATH"))))
    ray.init("local", num_cpus=RAY_CPUS, include_dashboard=False, log_to_driver=False, logging_level="ERROR")
    try:
        yield
    finally:
        ray.shutdown()


def draw_inputs(folder: Path, num_rows: int) -> None:
    """A picture for each row: an engine remembers those that it has read, so equal ones would be less work."""
    for number in range(num_rows):
        seed = seeding.row_seed(0, row_id(number), 0)
        draw(Request(id="", prompt="", width=SIDE, height=SIDE, seed=seed)).save(folder / f"{row_id(number)}.png")


def make_rows(case: Case, shape: Shape, folder: Path, *, chains: bool) -> list[dict[str, Any]]:
    """Level by level; a row's parent is the one at its place in the level before."""
    rows: list[dict[str, Any]] = []
    for number in range(shape.num_rows):
        level, place = divmod(number, shape.rows_per_level)
        is_slow = place == level * shape.rows_per_level // shape.num_levels
        parent = row_id(number - shape.rows_per_level)
        row = {"id": row_id(number), "task": "edit", "instruction": "make the picture look like a watercolour"}
        images = [f"row:{parent}" if chains and level else str(folder / f"{row_id(number)}.png")]
        steps = case.steps * (case.slow if is_slow else 1)
        rows.append(row | {"images": images, "width": SIDE, "height": SIDE, "steps": steps})
    return rows


def row_id(number: int) -> str:
    """The id of one row."""
    return f"row-{number:05d}"


def measure(case: Case, shape: Shape, folder: Path) -> dict[str, Any]:
    """Seconds of both contenders in turn, and what follows from them."""
    waits: dict[str, list[Waits]] = {ONE: [], CHAINS: []}
    contenders: dict[str, report.Contender] = {}
    for name, found in waits.items():
        rows = make_rows(case, shape, folder, chains=name == CHAINS)
        num_levels = shape.num_levels if name == CHAINS else 1
        contenders[name] = partial(generate, case, shape.batch_size, rows, num_levels, found)
    contenders[ONE]()
    waits[ONE].clear()
    seconds = report.rounds(contenders, case.num_rounds)
    num_barriers = shape.num_levels - 1
    more = [chains - one for one, chains in zip(seconds[ONE], seconds[CHAINS], strict=True)]
    return {
        "num_actors": case.num_actors,
        "steps": case.steps,
        "seconds": seconds,
        "per_further_level_s": spread([value / num_barriers for value in more]),
        "between_levels_s": spread([found.between_s / num_barriers for found in waits[CHAINS]]),
    } | (idle_ends(case, shape, waits, more) if case.num_actors > 1 else {})


def idle_ends(case: Case, shape: Shape, waits: dict[str, list[Waits]], more: Sequence[float]) -> dict[str, Any]:
    """How long engines wait for the slowest batch of a level, and the share of it in what chains take ``more``.

    The share is of engine seconds: the wait at the end of one level alone is taken off, pair by pair.
    """
    tails = {name: [one.tail_s for one in found] for name, found in waits.items()}
    longer = [chains - one for one, chains in zip(tails[ONE], tails[CHAINS], strict=True)]
    return {
        "late_engine_s": {name: [one.late_s for one in found] for name, found in waits.items()},
        "tail_engine_s": tails,
        "tail_per_level_s": spread([value / shape.num_levels for value in tails[CHAINS]]),
        "tail_share_of_more": spread([a / (b * case.num_actors) for a, b in zip(longer, more, strict=True)]),
    }


def generate(case: Case, batch_size: int, rows: Sequence[dict[str, Any]], num_levels: int, waits: list[Waits]) -> float:
    """Seconds of one whole run, from manifest to summary, into a store of its own; its waits go to ``waits``."""
    config = RunConfig(
        model=case.model,
        generation=GenerationConfig(max_input_image_size=SIDE),
        inputs=InputConfig(allow=(str(Path(rows[0]["images"][0]).parent),)),
        workers=WorkerConfig(batch_size=batch_size, num_actors=case.num_actors, device="cpu"),
    )
    with tempfile.TemporaryDirectory() as folder:
        manifest, output = Path(folder) / "rows.jsonl", Path(folder) / "store"
        manifest.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
        started = time.perf_counter()
        summary = run(str(manifest), str(output), config)
        seconds = time.perf_counter() - started
        levels = read_levels(output)
        if (summary.num_ok, len(levels)) != (len(rows), num_levels):
            made = f"{summary.num_ok} of {len(rows)} rows in {len(levels)} of {num_levels} levels"
            raise SystemExit(f"{made}: this would measure something else {summary.errors}")
        waits.append(waits_of(levels, case.num_actors))
    return seconds


def read_levels(output: Path) -> list[dict[str, tuple[float, float]]]:
    """Of each level, lowest first: when each engine began its first image and had finished its last one, in seconds.

    An engine is known by the name in its records, so the engines of one checkpoint look like one.
    """
    columns = ["depth", "model", "finished_at", "generate_seconds", "write_seconds"]
    levels: dict[int, dict[str, tuple[float, float]]] = {}
    for row in pq.read_table(output / store.RECORDS, columns=columns).to_pylist():
        finished = row["finished_at"].timestamp()
        started = finished - row["generate_seconds"] - row["write_seconds"]
        engines = levels.setdefault(row["depth"], {})
        first, last = engines.get(row["model"], (started, finished))
        engines[row["model"]] = min(first, started), max(last, finished)
    return [levels[depth] for depth in sorted(levels)]


def waits_of(levels: Sequence[dict[str, tuple[float, float]]], num_actors: int) -> Waits:
    """The waits of a run."""
    began = [min(first for first, _ in engines.values()) for engines in levels]
    ended = [max(last for _, last in engines.values()) for engines in levels]
    late_s = tail_s = 0.0
    for engines, begin, end in zip(levels, began, ended, strict=True):
        late_s += sum(first - begin for first, _ in engines.values()) + (num_actors - len(engines)) * (end - begin)
        tail_s += sum(end - last for _, last in engines.values())
    between_s = sum(begin - end for end, begin in zip(ended, began[1:], strict=False))
    return Waits(between_s=between_s, late_s=late_s, tail_s=tail_s)


def spread(values: Sequence[float]) -> dict[str, float]:
    """Minimum, median and maximum over the rounds."""
    return {"min": min(values), "median": statistics.median(values), "max": max(values)}


def show(case: Case, shape: Shape, result: dict[str, Any]) -> None:
    """The figures of one case."""
    print(f"{case.name}: {shape.num_rows} rows, {case.num_actors} actors, {case.num_rounds} rounds in turn")
    for name, values in result["seconds"].items():
        print(f"  {'seconds, ' + name:<42}{statistics.median(values):>7.2f}  ({min(values):.2f}–{max(values):.2f})")
    for name, text in (
        ("per_further_level_s", "seconds of a further level"),
        ("between_levels_s", "seconds between levels, no engine at work"),
        ("tail_per_level_s", "engine seconds idle at the end of a level"),
        ("tail_share_of_more", "share of that in what chains take more"),
    ):
        if value := result.get(name):
            print(f"  {text:<42}{value['median']:>7.2f}  ({value['min']:.2f}–{value['max']:.2f})")


if __name__ == "__main__":
    main()
