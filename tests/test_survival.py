"""Workers that die and runs that are told to stop, on a real local Ray: nothing lost, doubled or endless."""

from __future__ import annotations

import hashlib
import json
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from pipelines.config import GenerationConfig, RunConfig, WorkerConfig
from pipelines.generate import run

pytestmark = [pytest.mark.ray, pytest.mark.slow, pytest.mark.usefixtures("local_ray")]

ROOT = Path(__file__).parent.parent
NUM_ROWS = 24
CONFIG = RunConfig(
    model="fake",
    generation=GenerationConfig(width=48, height=32, steps=2),
    workers=WorkerConfig(batch_size=8, num_actors=1, stall_timeout_s=5.0),
)


def write_manifest(folder: Path, **instructions: str) -> Path:
    """Rows r0 … r23; ``instructions`` of some of them."""
    rows = [
        {"id": f"r{n}", "task": "text_to_image", "instruction": instructions.get(f"r{n}", f"picture {n}")}
        for n in range(NUM_ROWS)
    ]
    (folder / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder / "rows.jsonl"


def records_of(store: Path) -> dict[str, dict[str, Any]]:
    found = [row for file in (store / "records").iterdir() for row in pq.read_table(file).to_pylist()]
    assert len(found) == len({row["id"] for row in found})
    return {row["id"]: row for row in found}


def images_of(store: Path) -> dict[str, str]:
    """Without the temporary files of writes that were cut off."""
    return {file.name: hashlib.sha256(file.read_bytes()).hexdigest() for file in (store / "images").rglob("*.png")}


@pytest.fixture(scope="module")
def quiet(local_ray: None, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """The images of a run in which nothing happens."""
    folder = tmp_path_factory.mktemp("quiet")
    assert run(str(write_manifest(folder)), str(folder / "out"), CONFIG).num_ok == NUM_ROWS
    return images_of(folder / "out")


def test_a_row_that_kills_its_worker_fails_alone(quiet: dict[str, str], tmp_path: Path) -> None:
    summary = run(str(write_manifest(tmp_path, r11="a [kill] picture")), str(tmp_path / "out"), CONFIG)
    assert (summary.num_ok, summary.num_failed, summary.adds_up) == (NUM_ROWS - 1, 1, True)
    records = records_of(tmp_path / "out")
    assert len(records) == NUM_ROWS
    assert (records["r11"]["error_kind"], records["r11"]["error_stage"]) == ("poison", "generate")
    assert images_of(tmp_path / "out") == {name: sha for name, sha in quiet.items() if name != "r11-0.png"}
    assert not (tmp_path / "out" / "attempts").exists()


def test_rows_that_hang_or_lose_the_device_fail_alone(quiet: dict[str, str], tmp_path: Path) -> None:
    config = replace(CONFIG, workers=replace(CONFIG.workers, max_crashes=1))
    manifest = write_manifest(tmp_path, r2="a [hang] picture", r20="a [lost] picture")
    summary = run(str(manifest), str(tmp_path / "out"), config)
    assert (summary.num_ok, summary.num_failed, summary.adds_up) == (NUM_ROWS - 2, 2, True)
    kinds = {name: record["error_kind"] for name, record in records_of(tmp_path / "out").items()}
    assert {name: kind for name, kind in kinds.items() if kind} == {"r2": "poison", "r20": "poison"}
    assert images_of(tmp_path / "out").items() <= quiet.items()


def test_a_run_that_gets_sigterm_ends_what_runs_and_is_continued_by_the_next(
    quiet: dict[str, str], tmp_path: Path
) -> None:
    manifest, store = write_manifest(tmp_path), tmp_path / "out"
    options = ["--model", "fake:1", "--width", "48", "--height", "32", "--steps", "2", "--batch-size", "2"]
    command = [sys.executable, "-m", "jobs.generate", str(manifest), str(store), *options, "--num-actors", "1"]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as job:
        until = time.monotonic() + 120
        while not list(store.glob("records/*.parquet")) and job.poll() is None and time.monotonic() < until:
            time.sleep(0.05)
        job.send_signal(signal.SIGTERM)
        out, err = job.communicate(timeout=120)
    assert job.returncode == 143, err
    done = records_of(store)
    assert 0 < len(done) < NUM_ROWS
    assert err.splitlines()[-1] == f"stopped by SIGTERM: {len(done)} rows done, run the same command to go on"
    assert (out, "Traceback" in err) == ("", False)
    assert {record["status"] for record in done.values()} == {"ok"}
    assert json.loads((store / "summary.json").read_text())["num_ok"] == len(done)

    summary = run(str(manifest), str(store), CONFIG)
    assert (summary.num_ok, summary.num_already_done, summary.num_doubled) == (NUM_ROWS, len(done), 0)
    assert summary.adds_up
    assert images_of(store) == quiet
