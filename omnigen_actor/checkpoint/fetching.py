"""Name, hub id, folder or URI -> a local folder, one copy per node, made by one process at a time. Knows no models.

A copy is made in a folder of its own beside its final place. A fetch that was cut short leaves there what it has: whole
files are kept, and a part of a file is continued if the file still has the same size on the server. Once all files are
there and whole, the folder is renamed into place; a folder in its place is never changed.
"""

from __future__ import annotations

import fnmatch
import os
import shutil
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from hashlib import sha256
from pathlib import Path, PurePosixPath
from typing import BinaryIO

from filelock import FileLock

from omnigen_actor import uri as uris
from omnigen_actor.checkpoint.cache import VARIABLE, cache_folder
from omnigen_actor.checkpoint.headers import check_whole
from omnigen_actor.errors import ModelError, first_line

MODEL_FILES = ("*.json", "*.safetensors", "tokenizer/*")
"""What is fetched of a model; a star reaches into folders."""

MINI = "mini"
"""The name of the trained model that the package brings. A folder of that name is ``./mini``."""

MINI_FOLDER = Path(__file__).parent.parent / "mini"

_BLOCK_BYTES = 16 << 20
_NUM_STREAMS = 4
"""Blocks of one file that are read at the same time: one stream does not fill the network of a node."""


def local_folder(name: str, label: str, wanted: Sequence[str]) -> Path:
    """The folder of ``name``: itself, or a copy of its ``wanted`` files from a URI or the hub. Raises ModelError."""
    if name == MINI:
        return MINI_FOLDER
    if "://" in name:
        return _fetch_uri(name, label, wanted)
    path = Path(name).expanduser()
    if path.is_dir():
        return path
    if path.is_absolute() or name.startswith((".", "~")) or name.count("/") != 1:
        raise ModelError(f"no such {label}: it is neither a folder, a URI, nor a hub id of the form owner/name")
    return _fetch_hub(name, label, wanted)


def _fetch_hub(name: str, label: str, wanted: Sequence[str]) -> Path:
    """Into the hub's own cache, which locks each file and keeps what is whole of a fetch that was cut short."""
    from huggingface_hub import snapshot_download

    try:
        return Path(snapshot_download(name, allow_patterns=list(wanted)))
    except Exception as error:
        raise ModelError(
            f"no such {label}: it is no local folder and the hub did not give it ({first_line(error)})"
        ) from None


def _fetch_uri(name: str, label: str, wanted: Sequence[str]) -> Path:
    target = cache_folder("models") / sha256(name.encode()).hexdigest()[:32]
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(f"{target}.lock"):
            if not target.is_dir():
                partial = target.with_name(f"{target.name}.partial")
                _fetch_files(name, label, wanted, partial)
                partial.rename(target)
    except OSError as error:
        raise ModelError(f"{label} can't be fetched ({first_line(error)})") from None
    return target


def _fetch_files(name: str, label: str, wanted: Sequence[str], folder: Path) -> None:
    root = name.rstrip("/") + "/"
    files = {source.removeprefix(root): source for source in uris.list_files(name)}
    files = {file: source for file, source in files.items() if any(fnmatch.fnmatch(file, star) for star in wanted)}
    if not files:
        raise ModelError(f"no such {label}: there are no files of it under {uris.redact(name)}")
    with ThreadPoolExecutor(_NUM_STREAMS) as pool:
        sizes = dict(zip(files, pool.map(_size_bytes, files.values()), strict=True))
        _check_room(label, folder, sum(sizes.values()))
        _remove_strangers(folder, sizes)
        for file, source in files.items():
            _fetch_file(source, _inside(label, folder, file), sizes[file], pool)
    _verify(label, folder, files)


def _inside(label: str, folder: Path, file: str) -> Path:
    if ".." in PurePosixPath(file).parts or PurePosixPath(file).is_absolute():
        raise ModelError(f"{label}: the file name {file!r} leads out of its folder")
    return folder / file


def _size_bytes(source: str) -> int:
    with uris.open_read(source) as stream:
        return stream.seek(0, os.SEEK_END)


def _check_room(label: str, folder: Path, num_bytes: int) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    have = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
    free = shutil.disk_usage(folder).free
    if num_bytes - have > free:
        raise ModelError(
            f"{label} needs {num_bytes / 2**30:.1f} GiB, and {folder.parent} has {free / 2**30:.1f} GiB free; "
            f"make room, or set {VARIABLE} to a folder on a larger disk"
        )


def _remove_strangers(folder: Path, sizes: dict[str, int]) -> None:
    """Drop what another state of the source left: other files, and files and parts of another size."""
    kept = {folder / file: size for file, size in sizes.items()}
    parts = {_part(path, size) for path, size in kept.items()}
    for path in folder.rglob("*"):
        if path.is_file() and path not in parts and kept.get(path) != path.stat().st_size:
            path.unlink()


def _part(path: Path, size: int) -> Path:
    """The unfinished file. The size that it shall have is in its name, so that it is continued for no other."""
    return path.with_name(f"{path.name}.{size}.part")


def _fetch_file(source: str, path: Path, size: int, pool: ThreadPoolExecutor) -> None:
    if path.is_file():
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    part = _part(path, size)
    with part.open("ab") as local:
        start = local.tell()
        if start > size:
            local.truncate(start := 0)
        for block in _blocks(source, start, size, pool):
            local.write(block)
            local.flush()
        os.fsync(local.fileno())
        if local.tell() != size:
            raise OSError(f"{uris.redact(source)}: {local.tell()} of {size} bytes came")
    part.rename(path)


def _blocks(source: str, start: int, size: int, pool: ThreadPoolExecutor) -> Iterator[bytes]:
    """The bytes from ``start`` on, in order, with a few blocks under way."""
    begins = range(start, size, _BLOCK_BYTES)
    with ExitStack() as opened:
        streams = [opened.enter_context(uris.open_read(source)) for _ in begins[:_NUM_STREAMS]]
        under_way: deque[tuple[BinaryIO, Future[bytes]]] = deque()
        for begin in begins:
            if streams:
                stream = streams.pop()
            else:
                stream, block = under_way.popleft()
                yield block.result()
            under_way.append((stream, pool.submit(_read_block, stream, begin, min(begin + _BLOCK_BYTES, size))))
        for _, block in under_way:
            yield block.result()


def _read_block(stream: BinaryIO, begin: int, end: int) -> bytes:
    stream.seek(begin)
    data = stream.read(end - begin)
    if len(data) != end - begin:
        raise OSError(f"{len(data)} of {end - begin} bytes came: was the file overwritten?")
    return data


def _verify(label: str, folder: Path, files: dict[str, str]) -> None:
    """A broken file does not stay, so that the next fetch takes it anew. What its tensors may be, others know."""
    for file in files:
        if file.endswith(".safetensors"):
            try:
                check_whole(label, folder / file)
            except ModelError:
                (folder / file).unlink()
                raise
