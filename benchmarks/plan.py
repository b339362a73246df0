"""Planning a large manifest on the driver: time and memory, with rows that refer to rows and without.

Equal rows but for what their images are: of four rows, three refer to the one before (a chain of depth 3), or to files.
Each run is a process of its own, in turn; its peak is the process's. Nothing is fetched and nothing generated.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

sys.path.insert(0, str(Path(__file__).parents[1]))

from benchmarks import report

ROWS_PER_GROUP = 100_000
PLAN = """
import json, sys, time
from pathlib import Path
from pipelines.config import RunConfig
from pipelines.ledger import Ledger
from pipelines.manifest import open_manifest
from pipelines.plan import stage_plan
manifest, store = sys.argv[1:]
started = time.perf_counter()
plan = stage_plan(open_manifest(manifest), RunConfig(), Ledger.load(store), store, "r1")
peak = next(line.split()[1] for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM"))
print(json.dumps({"seconds": time.perf_counter() - started, "peak_mib": int(peak) / 1024, "rows": plan.num_planned,
                  "bad": plan.num_bad, "levels": len(plan.levels)}))
"""


def main() -> None:
    """Print the table, and save it where asked."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--output", type=Path)
    options = parser.parse_args()
    peaks: dict[str, list[float]] = {}
    with tempfile.TemporaryDirectory() as scratch:
        contenders = {}
        for name in ("references", "files"):
            manifest = Path(scratch) / f"{name}.parquet"
            write_manifest(manifest, options.rows, references=name == "references")
            contenders[name] = partial(plan, manifest, options.rows, peaks.setdefault(name, []))
        seconds = report.rounds(contenders, options.rounds)
    print(f"{options.rows} rows, {options.rounds} rounds in turn")
    for name, values in seconds.items():
        median = statistics.median(values)
        print(f"{name:<12}{median:>8.1f} s {options.rows / median:>10.0f} rows/s{max(peaks[name]):>8.0f} MiB")
    result = {"rows": options.rows, "seconds": seconds, "peak_mib": peaks}
    report.save(options.output, result | {"ratio": report.ratios(seconds["references"], seconds["files"])})


def write_manifest(path: Path, num_rows: int, *, references: bool) -> None:
    """Groups of four rows: a picture, an edit of it, its pose, a new picture by that pose."""
    with pq.ParquetWriter(path, schema := pa.schema([("id", pa.string()), ("task", pa.string()),
                          ("instruction", pa.string()), ("images", pa.list_(pa.string()))])) as writer:  # fmt: skip
        for first in range(0, num_rows, ROWS_PER_GROUP):
            rows = list(rows_of(first, min(first + ROWS_PER_GROUP, num_rows), references=references))
            writer.write_table(pa.Table.from_pylist(rows, schema))


def rows_of(first: int, stop: int, *, references: bool) -> Iterator[dict[str, Any]]:
    """Rows first … stop - 1."""
    tasks = ("text_to_image", "edit", "pose", "condition")
    for number in range(first, stop):
        place = number % 4
        image = f"row:row-{number - 1:09d}" if references else f"photos/{number - 1:09d}.png"
        yield {
            "id": f"row-{number:09d}",
            "task": tasks[place],
            "instruction": f"a picture of number {number} on a quiet lake at dawn",
            "images": [image] if place else [],
        }


def plan(manifest: Path, num_rows: int, peaks: list[float]) -> float:
    """Seconds of one planning in a fresh process."""
    with tempfile.TemporaryDirectory() as store:
        command = [sys.executable, "-c", PLAN, str(manifest), store]
        done = subprocess.run(command, check=True, capture_output=True, text=True, cwd=Path(__file__).parents[1])
    found = json.loads(done.stdout)
    if found["rows"] != num_rows or found["bad"]:
        raise SystemExit(f"{found['rows']} rows planned, {found['bad']} bad: this would measure something else")
    peaks.append(found["peak_mib"])
    return float(found["seconds"])


if __name__ == "__main__":
    main()
