"""A store whose server fails: a fifth of all requests break, it goes away, it takes no more writes. Nothing is lost."""

from __future__ import annotations

import hashlib
import io
import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pyarrow.parquet as pq
import pytest
from PIL import Image

from tests.conftest import Bucket
from tests.servers.faulty_proxy import KINDS, FaultyProxy

pytestmark = [pytest.mark.s3, pytest.mark.ray, pytest.mark.slow]

NUM_ROWS = 32
ROOT = Path(__file__).parent.parent


def upload(s3: Bucket) -> None:
    """Rows of which every fifth edits a picture of its own."""
    rows: list[dict[str, Any]] = []
    for number in range(NUM_ROWS):
        row: dict[str, Any] = {"id": f"r{number}", "task": "text_to_image", "instruction": f"picture {number}"}
        if number % 5 == 0:
            row |= {"task": "edit", "images": [f"{number}.png"]}
            file = io.BytesIO()
            Image.new("RGB", (48, 48), (number, 100, 200)).save(file, "PNG")
            s3.put(f"in/{number}.png", file.getvalue())
        rows.append(row)
    s3.put("in/rows.jsonl", "".join(json.dumps(row) + "\n" for row in rows).encode())


def start(
    s3: Bucket, proxy: FaultyProxy, log: Path, model: str = "fake", store_timeout_s: int = 300
) -> subprocess.Popen[bytes]:
    """The job, with the proxy as its S3 server."""
    command = [sys.executable, "-m", "jobs.generate", f"{s3.uri}/in/rows.jsonl", f"{s3.uri}/run", "--model", model]
    command += ["--width", "48", "--height", "48", "--steps", "2", "--batch-size", "4"]
    command += ["--store-timeout-s", str(store_timeout_s)]
    env = os.environ | {"AWS_ENDPOINT_URL": proxy.endpoint_url}
    with log.open("wb") as output:
        return subprocess.Popen(command, cwd=ROOT, env=env, stdout=output, stderr=subprocess.STDOUT)


def upstream(s3: Bucket) -> int:
    """The port of the real server."""
    port = urlsplit(s3.env["AWS_ENDPOINT_URL"]).port
    assert port
    return port


def records_of(s3: Bucket) -> dict[str, dict[str, Any]]:
    """Each row's record, read from the server itself; every image of one must be whole."""
    tables = [pq.read_table(io.BytesIO(s3.get(key))) for key in s3.keys("run/records/")]
    rows = [row for table in tables for row in table.to_pylist()]
    assert len({row["id"] for row in rows}) == len(rows)
    for row in rows:
        if row["status"] == "ok":
            assert hashlib.sha256(s3.get(f"run/{row['output_key']}")).hexdigest() == row["sha256"]
    return {row["id"]: row for row in rows}


def wait_for_records(s3: Bucket, job: subprocess.Popen[bytes]) -> None:
    until = time.monotonic() + 120
    while not s3.keys("run/records/") and job.poll() is None and time.monotonic() < until:
        time.sleep(0.1)


def test_all_rows_complete_though_a_fifth_of_the_requests_break(s3: Bucket, tmp_path: Path) -> None:
    upload(s3)
    with FaultyProxy(upstream(s3), share=0.2, seed=1) as proxy:
        code = start(s3, proxy, tmp_path / "log").wait(400)
    assert code == 0, (tmp_path / "log").read_text()
    assert set(proxy.broken) == set(KINDS)
    assert 0.1 < proxy.broken.total() / proxy.num_requests < 0.3
    assert {row["status"] for row in records_of(s3).values()} == {"ok"}
    assert len(records_of(s3)) == NUM_ROWS


def test_a_server_that_takes_no_more_writes_ends_the_run_with_one_line(s3: Bucket, tmp_path: Path) -> None:
    upload(s3)
    with FaultyProxy(upstream(s3), share=0) as proxy:
        job = start(s3, proxy, tmp_path / "log", "fake:0.3")
        wait_for_records(s3, job)
        proxy.refuses_writes = True
        code = job.wait(300)
        last = (tmp_path / "log").read_text().splitlines()[-1]
        assert code == 75, last
        assert last.startswith("stopped: ")
        assert "403" in last
        assert "run the same command to go on" in last
        before = records_of(s3)
        assert 0 < len(before) < NUM_ROWS
        assert {row["status"] for row in before.values()} == {"ok"}

        proxy.refuses_writes = False
        assert start(s3, proxy, tmp_path / "log", "fake:0.3").wait(300) == 0, (tmp_path / "log").read_text()
    assert len(records_of(s3)) == NUM_ROWS
    assert {row["status"] for row in records_of(s3).values()} == {"ok"}


def test_a_server_that_goes_away_ends_the_run_in_bounded_time_and_a_later_one_goes_on(
    s3: Bucket, tmp_path: Path
) -> None:
    upload(s3)
    with FaultyProxy(upstream(s3), share=0) as proxy:
        job = start(s3, proxy, tmp_path / "log", "fake:0.3", store_timeout_s=5)
        wait_for_records(s3, job)
    gone_at = time.monotonic()
    code = job.wait(300)
    last = (tmp_path / "log").read_text().splitlines()[-1]
    assert code == 75, last
    assert last.startswith("stopped: ")
    assert "run the same command to go on" in last
    assert time.monotonic() - gone_at < 180
    before = records_of(s3)
    assert 0 < len(before) < NUM_ROWS

    with FaultyProxy(upstream(s3), share=0) as proxy:
        assert start(s3, proxy, tmp_path / "log").wait(300) == 0, (tmp_path / "log").read_text()
    after = records_of(s3)
    assert len(after) == NUM_ROWS
    assert {row["status"] for row in after.values()} == {"ok"}
    assert {name: after[name]["finished_at"] for name in before} == {n: r["finished_at"] for n, r in before.items()}


def test_a_server_that_is_not_there_is_told_before_anything_starts(s3: Bucket, tmp_path: Path) -> None:
    with FaultyProxy(upstream(s3), share=0) as proxy:
        pass
    began = time.monotonic()
    assert start(s3, proxy, tmp_path / "log").wait(300) == 2
    last = (tmp_path / "log").read_text().splitlines()[-1]
    assert last.startswith("error: ")
    assert "rows.jsonl" in last
    assert time.monotonic() - began < 120
