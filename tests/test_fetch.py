"""FetchImages: one row out for one row in, in order, whatever the images are; read from disk and from a real server."""

from __future__ import annotations

import hashlib
import http.server
import io
import pickle
import random
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from PIL import Image

from omnigen_actor import images
from omnigen_actor.errors import ErrorKind, Stage
from omnigen_actor.schema import FETCHED, PLAN, with_user_fields
from pipelines.config import InputConfig
from pipelines.fetch import FetchImages

CONFIG = InputConfig(max_image_bytes=50_000, max_image_pixels=100_000, fetch_timeout_s=5.0, fetch_retries=0)
MAX_SIDE = 128


def photo(width: int = 200, height: int = 150, seed: int = 0) -> Image.Image:
    noise = np.random.default_rng(seed).integers(0, 256, (6, 8, 3), dtype=np.uint8)
    return Image.fromarray(noise).resize((width, height), Image.Resampling.BICUBIC)


def jpeg(image: Image.Image) -> bytes:
    file = io.BytesIO()
    image.save(file, "JPEG")
    return file.getvalue()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "a.jpg").write_bytes(jpeg(photo()))
    (tmp_path / "b.png").write_bytes(images.encode(photo(90, 300, seed=1), "png"))
    (tmp_path / "empty.jpg").write_bytes(b"")
    (tmp_path / "page.jpg").write_bytes(b"<html>Not found</html>")
    (tmp_path / "cut.jpg").write_bytes(jpeg(photo())[:900])
    (tmp_path / "bomb.png").write_bytes(images.encode(Image.new("RGB", (1000, 1000)), "png"))
    (tmp_path / "fat.jpg").write_bytes(jpeg(photo()) + b"\0" * 50_000)
    return tmp_path


class Server(http.server.ThreadingHTTPServer):
    """Serves a folder and counts what it is asked for."""

    def __init__(self, folder: Path) -> None:
        self.asked: Counter[str] = Counter()
        super().__init__(("127.0.0.1", 0), lambda *args: Handler(*args, directory=str(folder)))

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"


class Handler(http.server.SimpleHTTPRequestHandler):
    server: Server

    def do_GET(self) -> None:
        self.server.asked[self.path] += 1
        super().do_GET()

    def log_message(self, *args: Any) -> None:
        pass


@pytest.fixture
def server(folder: Path) -> Iterator[Server]:
    with Server(folder) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def plan(*rows: list[str | None] | dict[str, Any], **columns: list[Any]) -> pa.Table:
    """A PLAN table of rows given by their image URIs, with the user's columns."""
    base: dict[str, Any] = dict.fromkeys(PLAN.names) | {
        "sample": 0,
        "attempt": 1,
        "row_hash": "0",
        "images": [],
    }
    given = [row if isinstance(row, dict) else {"image_uris": row} for row in rows]
    full = [base | {"id": f"row-{number}", "image_uris": []} | row for number, row in enumerate(given)]
    table = pa.Table.from_pylist(full, schema=PLAN)
    for name, values in columns.items():
        table = table.append_column(name, pa.array(values))
    return table


def fetch(table: pa.Table, config: InputConfig = CONFIG) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = FetchImages(config, MAX_SIDE)(table).to_pylist()
    assert [row["id"] for row in rows] == table.column("id").to_pylist()
    return rows


def test_a_row_gets_its_images_fitted_with_the_sha256_of_their_files(folder: Path) -> None:
    (row,) = fetch(plan([f"{folder}/a.jpg", f"{folder}/b.png"]))
    assert row["error"] is None
    files = [(folder / name).read_bytes() for name in ("a.jpg", "b.png")]
    assert row["image_sha256"] == [hashlib.sha256(file).hexdigest() for file in files]
    expected = [images.fit(images.decode(file, max_pixels=10**6), MAX_SIDE) for file in files]
    assert row["pixel_sizes"] == [128, 96, 32, 128]
    back = images.from_pixels(row["pixels"], row["pixel_sizes"])
    assert [image.tobytes() for image in back] == [image.tobytes() for image in expected]
    assert 0 < row["fetch_seconds"] < 5


def test_the_schema_is_fetched_then_the_columns_of_the_user(folder: Path) -> None:
    table = plan([f"{folder}/a.jpg"], [], note=["x", None], score=[{"a": 1.5}, {"a": 2.5}])
    fetched = FetchImages(CONFIG, MAX_SIDE)(table)
    assert fetched.schema.equals(with_user_fields(FETCHED, [table.field("note"), table.field("score")]))
    assert fetched.select(["note", "score"]).equals(table.select(["note", "score"]))


def test_a_row_without_images_and_an_empty_table_pass(folder: Path) -> None:
    (row,) = fetch(plan([]))
    assert (row["pixels"], row["pixel_sizes"], row["image_sha256"], row["error"]) == ([], [], [], None)
    assert row["fetch_seconds"] == 0.0
    assert FetchImages(CONFIG, MAX_SIDE)(plan()).schema.equals(FETCHED)


def test_every_planned_column_stays_as_it_is() -> None:
    values: dict[str, Any] = {
        "id": "x", "sample": 3, "attempt": 2, "row_hash": "abc", "task": "edit", "instruction": "i", "prompt": "p",
        "images": ["a"], "width": 16, "height": 32, "seed": 2**62, "steps": 7, "guidance_scale": 0.1,
        "img_guidance_scale": 1.6, "negative_prompt": "n", "image_uris": [],
    }  # fmt: skip
    table = plan(values)
    assert FetchImages(CONFIG, MAX_SIDE)(table).select(PLAN.names).equals(table)


@pytest.mark.parametrize(
    ("name", "kind", "said"),
    [
        ("none.jpg", ErrorKind.NOT_FOUND, "no"),
        ("empty.jpg", ErrorKind.EMPTY_FILE, "0 bytes"),
        ("page.jpg", ErrorKind.NOT_AN_IMAGE, "<html>"),
        ("cut.jpg", ErrorKind.TRUNCATED_IMAGE, "cut off"),
        ("bomb.png", ErrorKind.IMAGE_TOO_LARGE, "1000x1000"),
        ("fat.jpg", ErrorKind.IMAGE_TOO_LARGE, "50000"),
    ],
)
@pytest.mark.parametrize("is_remote", [False, True], ids=["local", "http"])
def test_an_image_that_cannot_be_had_is_an_error_of_its_row_alone(
    request: pytest.FixtureRequest, is_remote: bool, name: str, kind: ErrorKind, said: str
) -> None:
    base = request.getfixturevalue("server").url if is_remote else str(request.getfixturevalue("folder"))
    good, bad, also_good = fetch(plan([f"{base}/a.jpg"], [f"{base}/b.png", f"{base}/{name}"], [f"{base}/a.jpg"]))
    assert (bad["error_kind"], bad["error_stage"]) == (kind, Stage.FETCH)
    assert f"{base}/{name}" in bad["error"]
    assert said in bad["error"]
    assert (bad["pixels"], bad["pixel_sizes"], bad["image_sha256"]) == ([], [], [])
    for row in (good, also_good):
        assert row["error"] is None
        assert row["pixel_sizes"] == [128, 96]


def test_the_first_bad_image_of_a_row_names_its_error(folder: Path) -> None:
    (row,) = fetch(plan([f"{folder}/a.jpg", f"{folder}/cut.jpg", f"{folder}/none.jpg"]))
    assert row["error_kind"] == ErrorKind.TRUNCATED_IMAGE


def test_a_row_with_an_error_passes_through_and_nothing_of_it_is_read(server: Server) -> None:
    error = {"error_kind": "bad_size", "error_stage": "check", "error": "width=0"}
    (row,) = fetch(plan({"image_uris": [f"{server.url}/a.jpg"], **error}))
    assert {key: row[key] for key in error} == error
    assert (row["pixels"], row["pixel_sizes"], row["image_sha256"], row["fetch_seconds"]) == ([], [], [], 0.0)
    assert not server.asked


def test_an_image_that_rows_share_is_read_once(server: Server) -> None:
    shared, missing = f"{server.url}/a.jpg", f"{server.url}/none.jpg"
    rows = fetch(plan([shared], [shared, shared], [missing], [f"{server.url}/b.png", shared], [missing]))
    assert server.asked == {"/a.jpg": 1, "/b.png": 1, "/none.jpg": 1}
    assert rows[0]["pixels"][0] == rows[1]["pixels"][1] == rows[3]["pixels"][1]
    assert [row["error_kind"] for row in rows] == [None, None, "not_found", None, "not_found"]


def test_a_folder_is_no_image(folder: Path) -> None:
    (row,) = fetch(plan([str(folder)]))
    assert row["error_kind"] == ErrorKind.FETCH_FAILED
    assert str(folder) in row["error"]


def test_a_server_that_is_not_there_is_fetch_failed() -> None:
    (row,) = fetch(plan(["http://127.0.0.1:1/a.jpg"]))
    assert (row["error_kind"], row["error_stage"]) == (ErrorKind.FETCH_FAILED, Stage.FETCH)
    assert "http://127.0.0.1:1/a.jpg" in row["error"]


@pytest.mark.parametrize("name", ["none.jpg", "page.jpg", "fat.jpg", "empty.jpg"])
def test_messages_hold_no_credentials(server: Server, name: str) -> None:
    host = server.url.removeprefix("http://")
    (row,) = fetch(plan([f"http://user:hunter2@{host}/{name}?X-Amz-Signature=deadbeef99"]))
    assert row["error"]
    assert f"http://{host}/{name}" in row["error"]
    assert "hunter2" not in row["error"]
    assert "deadbeef99" not in row["error"]


def test_an_unexpected_error_is_fetch_failed_and_its_text_stays_out(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def explode(data: bytes, *, max_pixels: int) -> Image.Image:
        raise ZeroDivisionError("token=hunter2")

    monkeypatch.setattr(images, "decode", explode)
    (row,) = fetch(plan([f"{folder}/a.jpg"]))
    assert row["error_kind"] == ErrorKind.FETCH_FAILED
    assert row["error"] == f"{folder}/a.jpg: unexpected ZeroDivisionError"


@pytest.mark.parametrize("odd", [None, "", "\0", "nosuch://x/y", "http://[", "s3://", "data:,", "C:\\a.jpg"])
def test_an_impossible_uri_is_an_error_and_no_exception(folder: Path, odd: str | None) -> None:
    good, bad = fetch(plan([f"{folder}/a.jpg"], [odd]))
    assert good["error"] is None
    assert bad["error_stage"] == Stage.FETCH
    assert bad["error_kind"] in set(ErrorKind)
    assert bad["error"]


@pytest.mark.parametrize("threads", [1, 8])
def test_many_rows_good_and_bad_keep_their_order(folder: Path, threads: int) -> None:
    rng = random.Random(threads)
    kinds = {
        "a.jpg": None,
        "b.png": None,
        "none.jpg": "not_found",
        "cut.jpg": "truncated_image",
        "empty.jpg": "empty_file",
    }
    names = [rng.choice(list(kinds)) for _ in range(120)]
    rows = fetch(plan(*([f"{folder}/{name}"] for name in names)), InputConfig(fetch_threads=threads))
    assert [row["error_kind"] for row in rows] == [kinds[name] for name in names]
    assert [len(row["pixels"]) for row in rows] == [int(kinds[name] is None) for name in names]


def test_it_pickles_with_its_settings(folder: Path) -> None:
    stage = pickle.loads(pickle.dumps(FetchImages(CONFIG, MAX_SIDE)))
    assert stage == FetchImages(CONFIG, MAX_SIDE)
    assert stage(plan([f"{folder}/a.jpg"])).num_rows == 1


def test_no_thread_outlives_a_call(folder: Path) -> None:
    fetch(plan([f"{folder}/a.jpg"], [f"{folder}/b.png"]))
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("fetch")]


def test_the_module_imports_neither_torch_nor_ray() -> None:
    code = "import sys, pipelines.fetch; sys.exit(bool({'torch', 'ray', 'diffusers'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
