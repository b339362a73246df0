"""``ray job submit`` on a local head: the same file, the same options, the exit code of the job."""

from __future__ import annotations

import json
import os
import secrets
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from tests.servers import listens, wait_until

pytestmark = [pytest.mark.ray, pytest.mark.slow]

ROOT = Path(__file__).parents[1]
RAY = [sys.executable, "-m", "ray.scripts.scripts"]
ENVIRONMENT = os.environ | {
    "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",  # as in an activated environment
    "RAY_AUTH_MODE": "token",  # as on a cluster that others can reach
    "RAY_AUTH_TOKEN": secrets.token_hex(32),
}


@pytest.fixture(scope="module")
def head(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of a Ray head's job server. Ports of 6379–9999: higher ones may meet those of Ray's own workers."""
    port, dashboard = free_port(6400), free_port(8300)
    folder = tempfile.mkdtemp(prefix="ray-", dir="/tmp")  # socket paths must be short
    command = [*RAY, "start", "--head", f"--port={port}", f"--dashboard-port={dashboard}", "--num-cpus=2"]
    command += [
        "--node-ip-address=127.0.0.1",
        f"--temp-dir={folder}",
        "--disable-usage-stats",
        "--include-dashboard=true",
    ]
    command += ["--block"]
    log = tmp_path_factory.mktemp("head") / "head.log"
    with log.open("ab") as output:
        started = subprocess.Popen(command, stdout=output, stderr=subprocess.STDOUT, env=ENVIRONMENT)
    try:
        address = f"http://127.0.0.1:{dashboard}"
        wait_until(lambda: listens(dashboard) and takes_jobs(address), "the Ray head", started, log, timeout_s=120)
        yield address
    finally:
        started.terminate()
        started.wait(60)
        shutil.rmtree(folder, ignore_errors=True)


def test_a_submitted_job_leaves_its_records_and_its_exit_code(head: str, tmp_path: Path):
    rows = [{"id": f"row-{i}", "task": "text_to_image", "instruction": "a boat"} for i in range(6)]
    good, bad = tmp_path / "good.jsonl", tmp_path / "bad.jsonl"
    good.write_text("".join(json.dumps(row) + "\n" for row in rows))
    bad.write_text("".join(json.dumps(row) + "\n" for row in [*rows, {"task": "nothing", "instruction": "x"}]))

    done = submit(head, good, tmp_path / "store")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "in 6 = ok 6 + failed 0 + skipped 0" in done.stdout
    records = pq.read_table(tmp_path / "store" / "records").to_pylist()
    assert sorted(record["id"] for record in records) == [row["id"] for row in rows]
    assert all((tmp_path / "store" / record["output_key"]).is_file() for record in records)

    failed = submit(head, bad, tmp_path / "other")
    assert failed.returncode != 0
    assert "in 7 = ok 6 + failed 1 + skipped 0" in failed.stdout


def submit(head: str, manifest: Path, store: Path) -> subprocess.CompletedProcess[str]:
    """Submit from a clean copy of the tree, as a user's checkout is."""
    checkout = store.parent / "checkout"
    for package in ("jobs", "pipelines", "omnigen_actor"):
        shutil.copytree(ROOT / package, checkout / package, dirs_exist_ok=True)
    job = [
        "python",
        "-m",
        "jobs.generate",
        str(manifest),
        str(store),
        "--model",
        "fake",
        "--width",
        "64",
        "--height",
        "64",
    ]
    command = [*RAY, "job", "submit", f"--address={head}", "--working-dir", ".", "--", *job]
    return subprocess.run(
        command,
        cwd=checkout,
        capture_output=True,
        text=True,
        check=False,
        timeout=180,
        env=ENVIRONMENT,
    )


def takes_jobs(address: str) -> bool:
    """Whether the head has an agent to run jobs with: its job server answers before there is one."""
    command = [*RAY, "job", "submit", f"--address={address}", "--no-wait", "--", "true"]
    return subprocess.run(command, capture_output=True, check=False, timeout=60, env=ENVIRONMENT).returncode == 0


def free_port(first: int) -> int:
    return next(port for port in range(first, first + 400) if not listens(port))
