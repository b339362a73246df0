"""The whole job on a real S3 server: manifest, input images, checkpoint and output are s3:// URIs."""

from __future__ import annotations

import hashlib
import io
import json
import os
import subprocess
import sys
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from PIL import Image

from tests.conftest import Bucket

pytestmark = [pytest.mark.s3, pytest.mark.ray, pytest.mark.slow]


def test_manifest_images_model_and_output_on_s3(s3: Bucket, tiny_model: Path, picture, tmp_path: Path):
    upload(s3, tiny_model, picture)
    done = generate(s3, tmp_path)
    assert done.returncode == 1, done.stderr
    assert "in 5 = ok 4 + failed 1 + skipped 0" in done.stdout
    records = read_records(s3)
    assert sorted(records) == ["beside", "elsewhere", "missing", "text", "whole"]
    assert (records["missing"]["status"], records["missing"]["error_kind"]) == ("failed", "not_found")
    for record in records.values():
        if record["status"] == "ok":
            data = s3.get(f"run/{record['output_key']}")
            assert hashlib.sha256(data).hexdigest() == record["sha256"]
            assert Image.open(io.BytesIO(data)).size == (record["width"], record["height"])
    assert len([key for key in s3.keys("run/images/") if key.endswith(".png")]) == 4
    assert json.loads(s3.get("run/summary.json"))["num_in"] == 5

    before = {key: s3.get(key) for key in s3.keys("run/images/")}
    again = generate(s3, tmp_path)
    assert again.returncode == 1
    assert "already done: 5" in again.stdout
    assert {key: s3.get(key) for key in s3.keys("run/images/")} == before
    assert len(read_records(s3)) == 5


def test_a_bucket_that_is_not_there_is_refused(s3: Bucket, tmp_path: Path):
    manifest = tmp_path / "manifest.jsonl"
    manifest.write_text(json.dumps({"task": "text_to_image", "instruction": "a boat"}) + "\n")
    command = [sys.executable, "-m", "jobs.generate", manifest, "s3://no-such-bucket-here/run", "--model", "fake"]
    done = subprocess.run([str(part) for part in command], capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 2, done.stderr
    (line,) = done.stderr.splitlines()
    assert "no-such-bucket-here" in line
    assert s3.env["AWS_SECRET_ACCESS_KEY"] not in line


def upload(s3: Bucket, model: Path, picture) -> None:
    """A model, two pictures and a manifest that names them in every way."""
    for path in model.rglob("*.*"):
        s3.put(f"model/{path.relative_to(model).as_posix()}", path.read_bytes())
    for key in ("in/photos/a.png", "other/b.png"):
        file = io.BytesIO()
        picture(70, 64).save(file, "PNG")
        s3.put(key, file.getvalue())
    rows = [
        {"id": "beside", "task": "edit", "instruction": "blue", "images": ["photos/a.png"]},
        {"id": "elsewhere", "task": "depth", "instruction": "", "images": [f"{s3.uri}/other/b.png"]},
        {"id": "missing", "task": "edit", "instruction": "blue", "images": ["photos/none.png"]},
        {"id": "text", "task": "text_to_image", "instruction": "a boat", "images": []},
        {"id": "whole", "task": "custom", "instruction": "a <img><|image_1|></img> boat", "images": ["../other/b.png"]},
    ]
    s3.put("in/manifest.jsonl", "".join(json.dumps(row) + "\n" for row in rows).encode())


def generate(s3: Bucket, cache: Path) -> subprocess.CompletedProcess[str]:
    """The command that a user gives, with nothing but AWS_* variables beside it."""
    command = [sys.executable, "-m", "jobs.generate", f"{s3.uri}/in/manifest.jsonl", f"{s3.uri}/run"]
    command += ["--model", f"{s3.uri}/model", "--steps", "2", "--width", "64", "--height", "64", "--batch-size", "2"]
    command += ["--allow", f"{s3.uri}/other"]
    env = os.environ | {"OMNIGEN_BATCH_CACHE": str(cache / "cache")}
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=300, env=env)


def read_records(s3: Bucket) -> dict[str, dict]:
    tables = [pq.read_table(io.BytesIO(s3.get(key))) for key in s3.keys("run/records/")]
    rows = [row for table in tables for row in table.to_pylist()]
    assert len({row["id"] for row in rows}) == len(rows)
    return {row["id"]: row for row in rows}
