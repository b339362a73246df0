"""Bad input, through the whole job: every bad row is a record that says why, and every good row of the run is complete.

One manifest holds them all and runs once, with the tiny checkpoint and a real web server.
"""

from __future__ import annotations

import io
import json
import struct
import subprocess
import sys
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image

from omnigen_actor.types import MAX_SIDE
from tests.servers.http import HttpServer

pytestmark = [pytest.mark.ray, pytest.mark.slow]

IMAGE_1 = "<img><|image_1|></img>"
IMAGE_2 = "<img><|image_2|></img>"
IMAGE_3 = "<img><|image_3|></img>"

TEXT = {"task": "text_to_image", "instruction": "a red boat", "width": 64, "height": 64}
EDIT = {"task": "edit", "instruction": "make it blue"}
PHOTO = "good.jpg"

# id -> (the row, error kind, stage, what the message names)
BAD_ROWS: dict[str, tuple[dict[str, Any], str, str, str]] = {
    "missing-file": (EDIT | {"images": ["nowhere.jpg"]}, "not_found", "fetch", "nowhere.jpg"),
    "http-404": (EDIT | {"images": ["{http}/status/404"]}, "not_found", "fetch", "/status/404"),
    "http-403": (EDIT | {"images": ["{http}/status/403"]}, "fetch_failed", "fetch", "403"),
    "not-an-image": (EDIT | {"images": ["page.jpg"]}, "not_an_image", "fetch", "page.jpg"),
    "truncated-jpeg": (EDIT | {"images": ["truncated.jpg"]}, "truncated_image", "fetch", "truncated.jpg"),
    "bomb": (EDIT | {"images": ["bomb.png"]}, "image_too_large", "fetch", "2500000000 pixels"),
    "large": (EDIT | {"images": ["large.png"]}, "image_too_large", "fetch", "12000x12000"),
    "zero-byte": (EDIT | {"images": ["empty.jpg"]}, "empty_file", "fetch", "empty.jpg"),
    "no-placeholder": (
        {"task": "custom", "instruction": "a boat", "images": [PHOTO]},
        "bad_placeholders",
        "check",
        IMAGE_1,
    ),
    "surplus-placeholder": (
        {"task": "custom", "instruction": f"{IMAGE_1} and {IMAGE_2}", "images": [PHOTO]},
        "bad_placeholders",
        "check",
        IMAGE_2,
    ),
    "gap-in-placeholders": (
        {"task": "custom", "instruction": f"{IMAGE_1} and {IMAGE_3}", "images": [PHOTO, PHOTO]},
        "bad_placeholders",
        "check",
        "[1, 3]",
    ),
    "unknown-task": (TEXT | {"task": "text_to_imge"}, "unknown_task", "check", "text_to_image"),
    "null-task": (TEXT | {"task": None}, "unknown_task", "check", "None"),
    "size-0": (TEXT | {"width": 0}, "bad_size", "check", "width=0"),
    "size-negative": (TEXT | {"height": -64}, "bad_size", "check", "height=-64"),
    "size-over-3072": (TEXT | {"width": MAX_SIDE + 1}, "bad_size", "check", "3073"),
    "size-half": (TEXT | {"height": None}, "bad_size", "check", "height=None"),
    "empty-instruction": (TEXT | {"instruction": " "}, "bad_instruction", "check", "text_to_image"),
    "null-instruction": (TEXT | {"instruction": None}, "bad_instruction", "check", "text_to_image"),
    "null-images": (EDIT | {"images": None}, "bad_image_count", "check", "edit"),
    "null-image": (EDIT | {"images": [None]}, "bad_uri", "check", "images"),
    "unknown-scheme": (EDIT | {"images": ["gopher://host/a.jpg"]}, "bad_uri", "check", "gopher"),
    "endless-instruction": (TEXT | {"instruction": "cat " * 10_000}, "prompt_too_long", "generate", "8192"),
    "nan-guidance": (TEXT | {"guidance_scale": float("nan")}, "bad_parameter", "check", "nan"),
    "infinite-guidance": (EDIT | {"img_guidance_scale": 1e999, "images": [PHOTO]}, "bad_parameter", "check", "inf"),
    "steps-0": (TEXT | {"steps": 0}, "bad_parameter", "check", "steps=0"),
    "negative-seed": (TEXT | {"seed": -1}, "bad_parameter", "check", "seed=-1"),
}

# id -> (the row, size of the image that it must give)
GOOD_ROWS: dict[str, tuple[dict[str, Any], tuple[int, int]]] = {
    "text": (TEXT, (64, 64)),
    "edit": (EDIT | {"images": [PHOTO]}, (64, 48)),
    "over-http": (EDIT | {"images": ["{http}/good.jpg"]}, (64, 48)),
    "after-503": (EDIT | {"images": ["{http}/flaky/2/good.jpg"]}, (64, 48)),
    "animated": (EDIT | {"images": ["animated.gif"]}, (64, 48)),
    "cmyk": (EDIT | {"images": ["cmyk.jpg"]}, (64, 48)),
    "16-bit": (EDIT | {"images": ["deep.png"]}, (64, 48)),
    "palette": (EDIT | {"images": ["palette.png"]}, (64, 48)),
    "alpha": (EDIT | {"images": ["alpha.png"]}, (64, 48)),
    "exif-rotated": (EDIT | {"images": ["rotated.jpg"]}, (48, 64)),
    "broken-closer": (
        {"task": "custom", "instruction": "<img><|image_1|><img> blue", "images": [PHOTO], "width": 64, "height": 48},
        (64, 48),
    ),
    "escaped-closer": (
        {
            "task": "custom",
            "instruction": r"<img><|image_1|><\/img> blue",
            "images": [PHOTO],
            "width": 64,
            "height": 48,
        },
        (64, 48),
    ),
    "size-rounded-down": (TEXT | {"width": 79, "height": 100}, (64, 96)),
    "unknown-columns": (TEXT | {"photographer": "Ann", "rating": 5}, (64, 64)),
}


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of pictures in every state."""
    folder = tmp_path_factory.mktemp("photos")
    gradient = np.linspace(0, 255, 48 * 64 * 3).reshape(48, 64, 3).astype(np.uint8)
    photo = Image.fromarray(gradient)
    photo.save(folder / PHOTO, quality=90)
    (folder / "page.jpg").write_text("<html>not found</html>")
    (folder / "truncated.jpg").write_bytes((folder / PHOTO).read_bytes()[:-300])
    (folder / "empty.jpg").write_bytes(b"")
    (folder / "bomb.png").write_bytes(bomb(50_000))
    (folder / "large.png").write_bytes(bomb(12_000))
    photo.save(folder / "animated.gif", save_all=True, append_images=[photo.rotate(180)] * 3)
    photo.convert("CMYK").save(folder / "cmyk.jpg")
    Image.fromarray(gradient[:, :, 0].astype(np.uint16) * 257).save(folder / "deep.png")
    photo.quantize(16).save(folder / "palette.png")
    photo.convert("RGBA").save(folder / "alpha.png")
    exif = Image.Exif()
    exif[0x0112] = 6
    photo.save(folder / "rotated.jpg", exif=exif)
    return folder


@pytest.fixture(scope="module")
def finished(photos: Path, tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[int, str, Path]:
    """Exit code, output and store of one run over all rows, good and bad in turn."""
    store = tmp_path_factory.mktemp("runs") / "store"
    with HttpServer(photos) as server:
        rows = [{"id": name} | row for name, (row, *_) in {**BAD_ROWS, **GOOD_ROWS}.items()]
        rows.sort(key=lambda row: row["id"])
        keys = sorted({key for row in rows for key in row})
        lines = [json.dumps({key: row.get(key) for key in keys}) for row in rows]
        manifest = photos / "manifest.jsonl"
        manifest.write_text("\n".join(lines).replace("{http}", server.base_url))
        options = ("--model", tiny_model, "--steps", "2", "--batch-size", "4", "--allow", server.base_url)
        done = generate(manifest, store, *options)
    return done.returncode, done.stdout + done.stderr, store


@pytest.fixture(scope="module")
def records(finished: tuple[int, str, Path]) -> dict[str, dict[str, Any]]:
    """All records by id."""
    rows = pq.read_table(finished[2] / "records").to_pylist()
    assert len({row["id"] for row in rows}) == len(rows)
    return {row["id"]: row for row in rows}


@pytest.mark.parametrize("name", BAD_ROWS)
def test_a_bad_row_is_a_record_that_says_why(name: str, records: dict[str, dict[str, Any]]):
    _, kind, stage, named = BAD_ROWS[name]
    record = records[name]
    assert (record["status"], record["error_kind"], record["error_stage"]) == ("failed", kind, stage), record["error"]
    assert named in record["error"]
    assert "\n" not in record["error"]
    assert record["output_key"] is None


@pytest.mark.parametrize("name", GOOD_ROWS)
def test_a_good_row_is_complete(name: str, records: dict[str, dict[str, Any]], finished: tuple[int, str, Path]):
    record, size = records[name], GOOD_ROWS[name][1]
    assert record["status"] == "ok", record["error"]
    assert (record["width"], record["height"]) == size
    with Image.open(finished[2] / record["output_key"]) as image:
        image.load()
        assert image.size == size


def test_every_row_has_exactly_one_record(records: dict[str, dict[str, Any]]):
    assert set(records) == set(BAD_ROWS) | set(GOOD_ROWS)


def test_the_run_says_so(finished: tuple[int, str, Path]):
    code, output, store = finished
    total, good, bad = len(BAD_ROWS) + len(GOOD_ROWS), len(GOOD_ROWS), len(BAD_ROWS)
    assert code == 1
    assert f"in {total} = ok {good} + failed {bad} + skipped 0" in output
    assert "Traceback" not in output
    summary = json.loads((store / "summary.json").read_text())
    assert (summary["num_in"], summary["num_ok"], summary["num_failed"]) == (total, good, bad)


def test_unknown_columns_are_carried_through(records: dict[str, dict[str, Any]]):
    assert (records["unknown-columns"]["photographer"], records["unknown-columns"]["rating"]) == ("Ann", 5)
    assert records["text"]["photographer"] is None


def test_placeholders_are_normalised_in_the_record(records: dict[str, dict[str, Any]]):
    for name in ("broken-closer", "escaped-closer"):
        assert records[name]["prompt"] == f"{IMAGE_1} blue"


# --- what stops a run before it starts ---


def test_a_duplicate_id_with_different_content_names_both_rows(tmp_path: Path):
    rows = [{"id": "a"} | TEXT, {"id": "b"} | TEXT, {"id": "a"} | TEXT | {"instruction": "a green boat"}]
    message = refuse(write(tmp_path, rows), tmp_path / "store")
    assert "'a'" in message
    assert "1" in message
    assert "3" in message


def test_an_empty_manifest(tmp_path: Path):
    assert "manifest.jsonl" in refuse(write(tmp_path, []), tmp_path / "store")


def test_a_manifest_without_the_required_columns(tmp_path: Path):
    message = refuse(write(tmp_path, [{"id": "a", "prompt": "a boat"}]), tmp_path / "store")
    assert "task" in message
    assert "instruction" in message


def test_a_manifest_that_is_not_there(tmp_path: Path):
    assert "nowhere.jsonl" in refuse(tmp_path / "nowhere.jsonl", tmp_path / "store")


def test_an_output_that_cannot_be_written(tmp_path: Path):
    (tmp_path / "file").write_text("in the way")
    assert "file" in refuse(write(tmp_path, [TEXT]), tmp_path / "file" / "store")


def test_no_such_model(tmp_path: Path):
    manifest = write(tmp_path, [TEXT])
    assert "no-such-model" in refuse(manifest, tmp_path / "store", "--model", "./no-such-model")


@pytest.mark.parametrize("damage", ["missing", "cut short"])
def test_a_model_with_a_bad_shard(damage: str, tiny_model: Path, tmp_path: Path):
    import shutil

    model = Path(shutil.copytree(tiny_model, tmp_path / "model"))
    shard = model / "transformer" / "diffusion_pytorch_model.safetensors"
    if damage == "missing":
        shard.unlink()
    else:
        shard.write_bytes(shard.read_bytes()[:-1000])
    message = refuse(write(tmp_path, [TEXT]), tmp_path / "store", "--model", model)
    assert "transformer/diffusion_pytorch_model.safetensors" in message


def test_an_unknown_option_names_the_nearest(tmp_path: Path):
    message = refuse(write(tmp_path, [TEXT]), tmp_path / "store", "--num-actor", "2")
    assert "--num-actor" in message
    assert "--num-actors" in message


def refuse(manifest: Path, store: Path, *options: object) -> str:
    """Run the job, which must not start; return its one line."""
    done = generate(manifest, store, *(options or ("--model", "fake")))
    assert done.returncode == 2, done.stderr
    assert done.stdout == ""
    (line,) = done.stderr.splitlines()
    assert line.startswith("error: ")
    assert not (store / "images").exists()
    return line


def generate(manifest: Path, store: Path, *options: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "jobs.generate", manifest, store, *options]
    return subprocess.run([str(part) for part in command], capture_output=True, text=True, check=False, timeout=300)


def write(folder: Path, rows: list[dict[str, Any]]) -> Path:
    manifest = folder / "manifest.jsonl"
    manifest.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return manifest


def bomb(side: int) -> bytes:
    """A PNG of a few kilobytes that would be gigabytes of pixels."""
    whole = io.BytesIO()
    Image.new("L", (1, 1)).save(whole, "PNG")
    header = struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0)
    chunk = struct.pack(">I", 13) + b"IHDR" + header + struct.pack(">I", zlib.crc32(b"IHDR" + header))
    return whole.getvalue()[:8] + chunk + whole.getvalue()[33:]
