"""A disk that is full ends the run with one line; what was recorded stays, and the run goes on once there is room."""

from __future__ import annotations

import hashlib
import json
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from omnigen_actor.errors import RunStopped
from pipelines.config import GenerationConfig, RunConfig, WorkerConfig
from pipelines.generate import run

pytestmark = [pytest.mark.ray, pytest.mark.slow, pytest.mark.usefixtures("local_ray")]

NUM_ROWS = 64
CONFIG = RunConfig(
    model="fake:0.02",
    generation=GenerationConfig(width=128, height=128, steps=2),
    workers=WorkerConfig(batch_size=4, num_actors=1),
)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of one megabyte."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=1m", "none", folder], capture_output=True, check=False
    )
    if mounted.returncode:
        pytest.skip("this user can't mount a small disk")
    yield folder
    subprocess.run(["umount", folder], check=True)


def images_of(store: Path) -> dict[str, str]:
    """The files that records name, with their sums; each must be that of its record."""
    rows = [row for file in (store / "records").glob("*.parquet") for row in pq.read_table(file).to_pylist()]
    found = {row["output_key"]: hashlib.sha256((store / row["output_key"]).read_bytes()).hexdigest() for row in rows}
    assert found == {row["output_key"]: row["sha256"] for row in rows}
    return found


def test_a_full_disk_ends_the_run_and_damages_nothing(small_disk: Path, tmp_path: Path) -> None:
    manifest = tmp_path / "rows.jsonl"
    rows = [{"id": f"r{n}", "task": "text_to_image", "instruction": f"picture {n}"} for n in range(NUM_ROWS)]
    manifest.write_text("".join(json.dumps(row) + "\n" for row in rows))
    store = small_disk / "out"
    with pytest.raises(RunStopped, match=r"No space left on device.*run the same command to go on"):
        run(str(manifest), str(store), CONFIG)
    before = images_of(store)
    assert 0 < len(before) < NUM_ROWS

    subprocess.run(["mount", "-o", "remount,size=64m", small_disk], check=True)
    summary = run(str(manifest), str(store), CONFIG)
    assert (summary.num_ok, summary.num_doubled, summary.adds_up) == (NUM_ROWS, 0, True)
    after = images_of(store)
    assert len(after) == NUM_ROWS
    assert before.items() <= after.items()
