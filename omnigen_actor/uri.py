"""The one place that reads and writes by URI: local paths, file://, s3://, http(s)://, any fsspec scheme.

Knows nothing of images, rows or the store's layout. Names are in `uri_names`, one try of each remote operation is in
`remote`; here are local files and what holds for all: retries, time bounds, atomic writes, messages without secrets.
"""

from __future__ import annotations

import contextlib
import io
import os
import random
import re
import shutil
import stat
import time
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, TypeVar, cast

from omnigen_actor import remote
from omnigen_actor.addresses import Refused
from omnigen_actor.remote_errors import can_pass, describe, is_not_found
from omnigen_actor.uri_names import is_local, join, local_path, parent, redact, resolve, scrub

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from omnigen_actor.allowed import Allowed

__all__ = [
    "Refused",
    "UriFailed",
    "UriNotFound",
    "UriTooLarge",
    "exists",
    "is_local",
    "join",
    "list_files",
    "list_sizes",
    "open_read",
    "parent",
    "read_bytes",
    "redact",
    "remove",
    "remove_folder",
    "resolve",
    "write_bytes",
    "write_file",
]

T = TypeVar("T")

DEFAULT_TIMEOUT_S = 60.0
DEFAULT_RETRIES = 8
"""With a fifth of all requests failing, one operation in two million still fails."""
_OPEN_BUFFER_BYTES = 4 << 20
TEMPORARY = re.compile(r"\.[0-9a-f]{16}\.tmp")
"""Names of local files that a process which was killed left half written."""


class UriNotFound(FileNotFoundError):  # noqa: N818
    """There is nothing at the URI: HTTP 404 or 410, NoSuchKey, NoSuchBucket, no such file."""


class UriTooLarge(ValueError):  # noqa: N818
    """More bytes than the caller allows."""


class UriFailed(OSError):  # noqa: N818
    """A read or write failed for good. The message is redacted and says what happened, after how many tries."""


def read_bytes(
    uri: str,
    *,
    max_bytes: int,
    timeout_s: float = DEFAULT_TIMEOUT_S,
    retries: int = DEFAULT_RETRIES,
    allowed: Allowed | None = None,
) -> bytes:
    """All bytes at `uri`; `timeout_s` bounds all tries together. Reads `max_bytes` + 1 bytes at most.

    `allowed`: for a `uri` that is not the user's own word. Raises UriNotFound, UriTooLarge, UriFailed;
    Refused, which is no OSError, for what is not allowed.
    """
    guard = allowed.is_named if allowed else None
    if is_local(uri):
        data = _local("read", uri, lambda path: _read_local(allowed.real_path(uri) if allowed else path, max_bytes))
    else:
        if allowed:
            allowed.check(uri)
        data = _retry("read", uri, lambda left_s: remote.read(uri, max_bytes, left_s, guard), timeout_s, retries)
    if len(data) > max_bytes:
        raise UriTooLarge(f"{redact(uri)}: more than the {max_bytes} bytes allowed")
    return data


def write_bytes(uri: str, data: bytes, *, timeout_s: float = DEFAULT_TIMEOUT_S, retries: int = DEFAULT_RETRIES) -> None:
    """Write `data` whole or not at all: a local rename, or one PUT of an object store. Raises UriFailed.

    File systems that are neither (sftp, hdfs) get a plain write. `timeout_s` bounds all tries together.
    """
    with _writing_to(uri):
        if is_local(uri):
            _local("write", uri, lambda path: _write_local(path, data))
        else:
            _retry("write", uri, lambda left_s: remote.write(uri, data, left_s), timeout_s, retries)


def write_file(uri: str, path: Path) -> None:
    """Write a local file, of any size, whole or not at all. Raises UriFailed."""
    with _writing_to(uri):
        if is_local(uri):
            _local("write", uri, lambda target: _copy_local(target, path))
        else:
            _retry("write", uri, lambda left_s: remote.write_file(uri, path, left_s), None)


@contextlib.contextmanager
def _writing_to(uri: str) -> Iterator[None]:
    """Say of a write that found nothing there what is missing."""
    try:
        yield
    except UriNotFound:
        raise UriFailed(f"cannot write {redact(uri)}: its bucket or folder does not exist") from None


def exists(uri: str) -> bool:
    """Whether there is a file or folder at `uri`, asked of the server each time. Raises UriFailed."""
    if is_local(uri):
        return _local("look up", uri, Path.exists)
    return _retry("look up", uri, lambda left_s: remote.exists(uri, left_s))


def list_files(folder: str, *, suffix: str = "") -> list[str]:
    """Every file below `folder` whose name ends in `suffix`: sorted, named as `join(folder, …)`. [] without a folder.

    Asked of the server each time. A temporary file of a write that was cut off is no file. Raises UriFailed.
    """
    try:
        if is_local(folder):
            names = _local("list", folder, _list_local)
        else:
            names = _retry("list", folder, lambda left_s: remote.list_files(folder, left_s), None)
    except UriNotFound:
        return []
    return sorted(join(folder, name) for name in names if name.endswith(suffix))


def list_sizes(folder: str) -> list[tuple[str, int]]:
    """Every file below `folder`, not a local one, as `list_files` names it, and its size in bytes. Raises UriFailed."""
    try:
        found = _retry("list", folder, lambda left_s: remote.list_sizes(folder, left_s), None)
    except UriNotFound:
        return []
    return sorted((join(folder, name), num_bytes) for name, num_bytes in found)


def open_read(uri: str) -> BinaryIO:
    """A seekable binary stream of `uri`, for files too large to hold. Retries inside. Raises UriNotFound, UriFailed."""
    if is_local(uri):
        return cast("BinaryIO", _local("open", uri, lambda path: path.open("rb")))
    if remote.has_ranges(uri):
        size_bytes = _retry("open", uri, lambda left_s: remote.size_bytes(uri, left_s))
        ranges = remote.RangeReader(size_bytes, lambda start, end: _read_range(uri, start, end))
        return cast("BinaryIO", io.BufferedReader(ranges, _OPEN_BUFFER_BYTES))
    return _retry("open", uri, lambda left_s: remote.open_stream(uri, left_s), None)


def remove(uri: str) -> None:
    """Remove the file at `uri`; one that is not there is no error. Raises UriFailed."""
    with contextlib.suppress(UriNotFound):
        if is_local(uri):
            _local("remove", uri, Path.unlink)
        else:
            _retry("remove", uri, lambda left_s: remote.remove(uri, left_s))


# --- local files ---


def remove_folder(folder: str) -> None:
    """Remove all that is below `folder`; one that is not there is no error. Raises UriFailed."""
    if not is_local(folder):
        for file in list_files(folder):
            remove(file)
        return
    with contextlib.suppress(UriNotFound):
        _local("remove", folder, shutil.rmtree)


def _local(action: str, uri: str, operation: Callable[[Path], T]) -> T:
    try:
        return operation(local_path(uri))
    except Refused:
        raise
    except (FileNotFoundError, NotADirectoryError):
        raise UriNotFound(f"{uri}: no such file") from None
    except (OSError, ValueError) as error:
        raise UriFailed(f"cannot {action} {uri}: {getattr(error, 'strerror', None) or error}") from None


def _read_local(path: Path, max_bytes: int) -> bytes:
    if not stat.S_ISREG(path.stat().st_mode):  # a pipe would block for ever
        raise OSError("not a regular file")
    with path.open("rb") as file:
        return file.read(max_bytes + 1)


def _write_local(path: Path, data: bytes) -> None:
    with _replacing(path) as file:
        file.write(data)


def _copy_local(path: Path, source: Path) -> None:
    with source.open("rb") as whole, _replacing(path) as file:
        shutil.copyfileobj(whole, file)


@contextlib.contextmanager
def _replacing(path: Path) -> Iterator[BinaryIO]:
    """A new file that takes the place of `path` once all is written and on the disk."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{os.urandom(8).hex()}.tmp")
    try:
        with temporary.open("xb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)


def _list_local(folder: Path) -> list[str]:
    if not folder.is_dir():
        return []

    def fail(error: OSError) -> None:
        raise error

    return [
        (Path(root) / name).relative_to(folder).as_posix()
        for root, _, names in os.walk(folder, onerror=fail)
        for name in names
        if not TEMPORARY.fullmatch(name)
    ]


# --- retries ---


def _retry(
    action: str,
    uri: str,
    operation: Callable[[float | None], T],
    timeout_s: float | None = DEFAULT_TIMEOUT_S,
    retries: int = DEFAULT_RETRIES,
) -> T:
    """`operation(seconds left)` until it succeeds, cannot, or the tries or the time are used up."""
    started = time.monotonic()
    tries = 0
    while True:
        tries += 1
        spent_s = time.monotonic() - started
        try:
            return operation(None if timeout_s is None else max(timeout_s - spent_s, 0.001))
        except Refused:
            raise
        except Exception as error:  # every file system has errors of its own
            failure = error
        if is_not_found(failure):
            raise UriNotFound(f"{redact(uri)}: not found")
        pause_s = min(8.0, 0.25 * 2 ** (tries - 1)) * random.uniform(0.5, 1.5)
        spent_s = time.monotonic() - started
        is_late = timeout_s is not None and spent_s + pause_s >= timeout_s
        if tries > retries or is_late or not can_pass(failure):
            cause = scrub(describe(failure), uri)
            count = f"{tries} {'try' if tries == 1 else 'tries'}"
            raise UriFailed(f"cannot {action} {redact(uri)}: {cause} ({count} in {spent_s:.1f} s)")
        time.sleep(pause_s)


def _read_range(uri: str, start: int, end: int) -> bytes:
    def read(left_s: float | None) -> bytes:
        data = remote.read_range(uri, start, end, left_s)
        if len(data) != end - start:
            raise EOFError(f"{len(data)} of {end - start} bytes came: was it overwritten?")
        return data

    return _retry("read", uri, read)
