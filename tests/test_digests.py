"""What is known of a file's sha256 is believed only while the file is the same."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

import pytest

from omnigen_actor.checkpoint import digests
from omnigen_actor.errors import ModelError


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("OMNIGEN_BATCH_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def large_file(path: Path, first: bytes = b"a", age_s: float = 3600) -> Path:
    with path.open("wb") as file:
        file.write(first)
        file.truncate(digests.REMEMBER_BYTES)
    os.utime(path, (path.stat().st_mtime - age_s,) * 2)
    return path


def true_sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def test_a_large_file_is_read_once(tmp_path: Path):
    path = large_file(tmp_path / "x")
    assert digests.known_sha256(path) is None
    assert digests.sha256(path) == true_sha256(path)
    assert digests.known_sha256(path) == true_sha256(path)
    link = tmp_path / "link"
    link.symlink_to(path)
    assert digests.known_sha256(link) == true_sha256(path)


def test_a_file_that_changed_is_read_again(tmp_path: Path):
    path = large_file(tmp_path / "x")
    digests.sha256(path)
    large_file(path, b"b", age_s=1800)
    assert digests.known_sha256(path) is None
    assert digests.sha256(path) == true_sha256(path)
    with path.open("ab") as file:
        file.write(b"c")
    assert digests.sha256(path) == true_sha256(path)


def test_small_and_fresh_files_are_not_remembered(tmp_path: Path):
    small = tmp_path / "small"
    small.write_bytes(b"a")
    for path in (small, large_file(tmp_path / "fresh", age_s=0)):
        assert digests.sha256(path) == true_sha256(path)
        assert digests.known_sha256(path) is None


def test_a_spoilt_memory_is_ignored(tmp_path: Path, cache: Path):
    path = large_file(tmp_path / "x")
    digests.sha256(path)
    (memory,) = (cache / "digests").iterdir()
    for content in ("", "{}", "[1]", memory.read_text().replace(true_sha256(path), "nonsense")):
        memory.write_text(content)
        assert digests.sha256(path) == true_sha256(path)


def test_a_cache_that_cannot_be_written_costs_time_only(tmp_path: Path, cache: Path):
    cache.write_text("a file, not a folder")
    path = large_file(tmp_path / "x")
    assert digests.sha256(path) == true_sha256(path)


def test_only_the_sha256_of_the_hub_is_believed(tmp_path: Path):
    folder = tmp_path / "models--a--b"
    for part in ("blobs", "snapshots/main"):
        (folder / part).mkdir(parents=True)
    for name in ("1" * 64, "2" * 40):
        (folder / "blobs" / name).write_bytes(b"x")
        (folder / "snapshots/main" / name[0]).symlink_to(Path("../../blobs") / name)
    assert digests.known_sha256(folder / "snapshots/main/1") == "1" * 64
    assert digests.known_sha256(folder / "snapshots/main/2") is None
    assert digests.known_sha256(folder / "blobs" / ("1" * 64)) is None
    # A link to the same blob from elsewhere says nothing.
    (tmp_path / "elsewhere").symlink_to(folder / "blobs" / ("1" * 64))
    assert digests.known_sha256(tmp_path / "elsewhere") is None


def test_what_was_read_is_compared_with_what_is_known(tmp_path: Path):
    path = large_file(tmp_path / "x")
    digests.confirm("model 'm'", path, true_sha256(path), digests.stamp(path))
    digests.confirm("model 'm'", path, true_sha256(path), digests.stamp(path))
    with pytest.raises(ModelError, match=r"model 'm': .* is damaged"):
        digests.confirm("model 'm'", path, "0" * 64, digests.stamp(path))
