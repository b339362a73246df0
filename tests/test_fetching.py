"""A checkpoint is copied once per node; what a fetch that was cut short has left is used, and nothing half is."""

from __future__ import annotations

import io
import os
import shutil
import threading
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar

import fsspec
import pytest
from fsspec.implementations.local import LocalFileSystem

from omnigen_actor.checkpoint import fetching
from omnigen_actor.checkpoint.fetching import MODEL_FILES, local_folder
from omnigen_actor.checkpoint.opening import open_checkpoint
from omnigen_actor.errors import ModelError

TRANSFORMER = "transformer/diffusion_pytorch_model.safetensors"


class _Counted(io.FileIO):
    """Counts what is read of it, and breaks off where its file system says so."""

    def readinto(self, buffer: Any) -> int:
        if self.tell() + len(buffer) > Flaky.breaks_at.get(Path(str(self.name)).name, 1 << 62):
            raise ConnectionResetError("the line is dead")
        num_read = super().readinto(buffer)
        Flaky.num_bytes[Path(str(self.name)).name] += num_read
        return num_read

    def read(self, size: int = -1) -> bytes:
        data = bytearray(size)
        return bytes(data[: self.readinto(data)])


class Flaky(LocalFileSystem):
    """flaky:///folder is /folder, over a line that breaks."""

    protocol = "flaky"
    breaks_at: ClassVar[dict[str, int]] = {}
    num_bytes: ClassVar[Counter[str]] = Counter()

    @classmethod
    def _strip_protocol(cls, path: Any) -> Any:
        return str(path).removeprefix("flaky://").rstrip("/")

    def _open(self, path: str, mode: str = "rb", **options: Any) -> io.FileIO:
        return _Counted(path, mode)


@pytest.fixture
def source(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder with one file of several blocks, seen through the flaky line."""
    fsspec.register_implementation("flaky", Flaky, clobber=True)
    monkeypatch.setattr(fetching, "_BLOCK_BYTES", 1000)
    folder = tmp_path / "source"
    folder.mkdir()
    (folder / "a.json").write_bytes(b"{}")
    (folder / "b.json").write_bytes(os.urandom(50_500))
    yield folder
    Flaky.breaks_at.clear()
    Flaky.num_bytes.clear()


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("OMNIGEN_BATCH_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def fetch(folder: Path) -> Path:
    return local_folder(f"flaky://{folder}", "model 'm'", MODEL_FILES)


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def break_off(source: Path, cache: Path, at: int = 20_000) -> Path:
    """A fetch that the line cuts short; the folder of what it has."""
    Flaky.breaks_at["b.json"] = at
    with pytest.raises(ModelError, match=r"model 'm' can't be fetched"):
        fetch(source)
    Flaky.breaks_at.clear()
    Flaky.num_bytes.clear()
    (partial,) = (cache / "models").glob("*.partial")
    return partial


def test_a_copy_is_whole_and_made_once(source: Path, cache: Path):
    folder = fetch(source)
    assert contents(folder) == contents(source)
    assert not list((cache / "models").glob("*.partial"))
    shutil.rmtree(source)
    assert fetch(source) == folder


def test_a_fetch_that_was_cut_short_is_continued(source: Path, cache: Path):
    partial = break_off(source, cache)
    (part,) = partial.glob("b.json.*.part")
    have = part.stat().st_size
    assert 10_000 <= have <= 20_000
    assert (partial / "a.json").read_bytes() == b"{}"
    assert contents(fetch(source)) == contents(source)
    assert Flaky.num_bytes == {"b.json": 50_500 - have}


def test_what_was_cut_short_is_no_model(source: Path, cache: Path):
    break_off(source, cache)
    assert not [path for path in (cache / "models").iterdir() if path.is_dir() and not path.name.endswith(".partial")]


def test_a_file_of_another_size_is_begun_anew(source: Path, cache: Path):
    break_off(source, cache)
    (source / "b.json").write_bytes(os.urandom(40_000))
    (source / "a.json").write_bytes(b"{ }")
    assert contents(fetch(source)) == contents(source)
    assert Flaky.num_bytes == {"a.json": 3, "b.json": 40_000}


def test_a_file_that_is_gone_from_the_source_is_not_kept(source: Path, cache: Path):
    break_off(source, cache)
    (source / "a.json").rename(source / "c.json")
    assert contents(fetch(source)) == contents(source)


def test_those_who_come_at_the_same_time_make_one_copy(source: Path):
    threads = [threading.Thread(target=fetch, args=(source,)) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert Flaky.num_bytes == {"a.json": 2, "b.json": 50_500}


def test_only_files_of_a_model_are_fetched(source: Path):
    (source / "optimizer.pt").write_bytes(b"x")
    (source / "tokenizer").mkdir()
    (source / "tokenizer/merges.txt").write_bytes(b"x")
    assert set(contents(fetch(source))) == {"a.json", "b.json", "merges.txt"}


def test_a_broken_file_of_the_source_is_named_and_fetched_again(tiny_model: Path, tmp_path: Path):
    model = Path(shutil.copytree(tiny_model, tmp_path / "model"))
    whole = (model / TRANSFORMER).read_bytes()
    (model / TRANSFORMER).write_bytes(b"\xff" * len(whole))
    for _ in range(2):
        with pytest.raises(ModelError, match=r"diffusion_pytorch_model\.safetensors is no whole safetensors file"):
            open_checkpoint(f"file://{model}")
    (model / TRANSFORMER).write_bytes(whole)
    assert open_checkpoint(f"file://{model}").identity == open_checkpoint(str(tiny_model)).identity


def test_a_disk_that_is_too_small_is_told_before_the_fetch(source: Path, monkeypatch: pytest.MonkeyPatch):
    usage = shutil.disk_usage(source)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage._replace(free=10_000))
    with pytest.raises(ModelError, match="OMNIGEN_BATCH_CACHE"):
        fetch(source)
    assert not Flaky.num_bytes


def test_a_name_that_leads_out_of_the_folder_is_refused(tmp_path: Path):
    for name in ("../a.json", "/a.json", "x/../../a.json"):
        with pytest.raises(ModelError, match="leads out"):
            fetching._inside("model", tmp_path, name)


@pytest.mark.s3
def test_a_model_is_fetched_from_s3(tiny_model: Path, s3):
    for path in tiny_model.rglob("*"):
        if path.is_file():
            s3.put(f"m/{path.relative_to(tiny_model).as_posix()}", path.read_bytes())
    assert open_checkpoint(f"{s3.uri}/m").identity == open_checkpoint(str(tiny_model)).identity
