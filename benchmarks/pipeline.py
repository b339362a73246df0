"""What the pipeline adds to the engine: wall time of the whole job over that of the bare engine, on the same rows.

Bare: the rows' requests straight into OmniGenEngine, one thread, images kept in memory. Pipeline: manifest, plan,
fetch, Ray actor, encoding, images and records on disk, with one actor of one thread. Starting Ray and loading the model
is a fixed price; the ratio per row is taken from the difference of a long and a short run, which leaves it out.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

from benchmarks import report
from omnigen_actor.checkpoint.tiny import write_tiny_checkpoint

SHORT, LONG = 8, 40
PHOTO = Path(__file__).parents[1] / "examples" / "photos" / "cat.jpg"
STEPS, SIDE = 10, 256

BARE = """
import json, sys, time
import torch
from PIL import Image
from omnigen_actor.engine import OmniGenEngine
from omnigen_actor.engine_settings import EngineSettings
from omnigen_actor.types import Request
model, rows = sys.argv[1], json.loads(sys.stdin.read())
torch.set_num_threads(1)
engine = OmniGenEngine.from_pretrained(model, EngineSettings(device="cpu"))
def request(row):
    images = tuple(Image.open(path).convert("RGB") for path in row["images"])
    mark = "<img><|image_1|></img> " if images else ""
    return Request(id=row["id"], prompt=mark + row["instruction"], images=images, width=row["width"],
                   height=row["height"], seed=1, steps=row["steps"], max_input_image_size=256)
list(engine.generate([request(row) for row in rows[:2]]))
started = time.perf_counter()
outcomes = list(engine.generate([request(row) for row in rows]))
assert all(hasattr(outcome, "image") for outcome in outcomes)
print(time.perf_counter() - started)
"""


@dataclass(frozen=True, slots=True)
class Bench:
    """A model and where runs go."""

    model: Path
    folder: Path

    def bare(self, rows: list[dict[str, Any]]) -> float:
        """Seconds of the engine alone, in a process of its own, its loading left out."""
        command = [sys.executable, "-W", "ignore", "-c", BARE, str(self.model)]
        done = subprocess.run(command, input=json.dumps(rows), capture_output=True, text=True, check=True)
        return float(done.stdout)

    def pipeline(self, rows: list[dict[str, Any]]) -> float:
        """Seconds of the whole job as a user runs it, from start to exit."""
        with tempfile.TemporaryDirectory(dir=self.folder) as folder:
            manifest = Path(folder) / "manifest.jsonl"
            manifest.write_text("".join(json.dumps(row) + "\n" for row in rows))
            command = [sys.executable, "-m", "jobs.generate", str(manifest), f"{folder}/store"]
            command += ["--model", str(self.model), "--max-input-image-size", "256", "--num-actors", "1"]
            command += ["--allow", str(PHOTO.parent)]
            return report.timed(lambda: subprocess.run(command, capture_output=True, check=True))()


def main() -> None:
    """Print the ratios, and save them where asked."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--output", type=Path)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        write_tiny_checkpoint(folder / "model", hidden_size=384, num_layers=4, intermediate_size=1024)
        bench = Bench(folder / "model", folder)
        contenders = {}
        for size in (SHORT, LONG):
            rows = make_rows(size, str(PHOTO))
            contenders[f"bare {size}"] = partial(bench.bare, rows)
            contenders[f"pipeline {size}"] = partial(bench.pipeline, rows)
        seconds = report.rounds(contenders, options.rounds)
    show(seconds, options.output)


def show(seconds: dict[str, list[float]], output: Path | None) -> None:
    """The table, the ratio of the whole and the ratio per row."""
    for name, values in seconds.items():
        print(f"{name:<14}{statistics.median(values):>8.1f} s  ({min(values):.1f}–{max(values):.1f})")
    whole = report.ratios(seconds[f"pipeline {LONG}"], seconds[f"bare {LONG}"])
    longer = {
        name: [b - a for a, b in zip(seconds[f"{name} {SHORT}"], seconds[f"{name} {LONG}"], strict=True)]
        for name in ("pipeline", "bare")
    }
    per_row = report.ratios(longer["pipeline"], longer["bare"])
    start = statistics.median(seconds[f"pipeline {SHORT}"]) - SHORT / (LONG - SHORT) * statistics.median(
        longer["pipeline"]
    )
    print(f"pipeline / engine, whole job of {LONG} rows: {whole['median']:.2f} ({whole['min']:.2f}–{whole['max']:.2f})")
    print(f"pipeline / engine, per further row: {per_row['median']:.2f} ({per_row['min']:.2f}–{per_row['max']:.2f})")
    print(f"fixed price of a run (start of Ray, loading, end): {start:.1f} s")
    report.save(output, {"seconds": seconds, "whole": whole, "per_row": per_row, "fixed_seconds": start})


def make_rows(count: int, photo: str) -> list[dict[str, Any]]:
    """Text to image and edits in turn."""
    rows = []
    for number in range(count):
        is_edit = bool(number % 2)
        rows.append(
            {
                "id": f"row-{number:04}",
                "task": "edit" if is_edit else "text_to_image",
                "instruction": "make the picture look like a watercolour",
                "images": [photo] if is_edit else [],
                "width": SIDE,
                "height": SIDE,
                "steps": STEPS,
            }
        )
    return rows


if __name__ == "__main__":
    main()
