"""One try of each operation on a remote file system, over fsspec.

Knows nothing of retries, local files, or what may be said in a message: `uri` adds these and is what others import.
File systems are made on first use in each process, because those of fsspec do not survive a fork.
"""

from __future__ import annotations

import functools
import io
import os
import tempfile
import threading
from typing import TYPE_CHECKING, Any, BinaryIO, cast

from omnigen_actor import remote_http
from omnigen_actor.remote_errors import http_status, is_not_found

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

_S3_SCHEMES = frozenset({"s3", "s3a"})
# Part of the installation: no need to import them to know.
_ALWAYS_KNOWN = remote_http.HTTP_SCHEMES | _S3_SCHEMES | {"data", "memory"}
_SPOOL_BYTES = 64 << 20


def check_scheme(scheme: str) -> None:
    """Raises ValueError if fsspec does not know `scheme`, or its package is not installed."""
    if scheme in _ALWAYS_KNOWN:
        return
    from fsspec.registry import get_filesystem_class

    try:
        get_filesystem_class(scheme)
    except ValueError:
        raise ValueError(
            f"unknown scheme {scheme!r}: use a path or file://, s3://, gs://, az://, hf://, http:// or https:// "
            "(a file whose name has a colon: ./NAME)"
        ) from None
    except ImportError as error:
        raise ValueError(f"{scheme}:// needs a package that is not installed: {error}") from None


def read(uri: str, max_bytes: int, timeout_s: float | None, guard: remote_http.Guard | None = None) -> bytes:
    """The first `max_bytes` + 1 bytes, or all where there are fewer. `guard` judges each URL of http(s)."""
    if not remote_http.is_http(uri):
        return read_range(uri, 0, max_bytes + 1, timeout_s)
    body = io.BytesIO()
    remote_http.run(uri, timeout_s, lambda response: remote_http.download(response, body, max_bytes + 1), guard)
    return body.getvalue()


def read_range(uri: str, start: int, end: int, timeout_s: float | None) -> bytes:
    """Bytes `start` to `end` (excluded), fewer at the end of the file. Not for http."""
    filesystem, path = _filesystem(uri)
    try:
        return cast("bytes", _call(filesystem, "cat_file", path, timeout_s=timeout_s, start=start, end=end))
    except OSError as error:
        if http_status(error) == 416:  # an empty object has no first byte
            return b""
        raise


def write(uri: str, data: bytes, timeout_s: float | None) -> None:
    """One PUT on an object store; a plain write elsewhere."""
    filesystem, path = _writable(uri)
    _call(filesystem, "pipe_file", path, data, timeout_s=timeout_s)


def write_file(uri: str, local: Path, timeout_s: float | None) -> None:
    """A local file: one PUT, or an upload in parts that is completed at its end; a plain write elsewhere."""
    filesystem, path = _writable(uri)
    _call(filesystem, "put_file", str(local), path, timeout_s=timeout_s)


def exists(uri: str, timeout_s: float | None) -> bool:
    """Whether there is a file or folder."""
    try:
        if remote_http.is_http(uri):
            remote_http.run(uri, timeout_s, remote_http.probe)
        else:
            _info(uri, timeout_s)
    except Exception as error:
        if is_not_found(error):
            return False
        raise
    return True


def size_bytes(uri: str, timeout_s: float | None) -> int:
    """The size of a file. Not for http."""
    info = _info(uri, timeout_s)
    if info["type"] == "directory":
        raise FileNotFoundError(uri)
    return int(info["size"])


def list_files(folder: str, timeout_s: float | None) -> list[str]:
    """The names of all files below `folder`, relative to it. Raises FileNotFoundError where there is no folder."""
    return [name for name, _ in list_sizes(folder, timeout_s)]


def list_sizes(folder: str, timeout_s: float | None) -> list[tuple[str, int]]:
    """As `list_files`, each with its size in bytes."""
    if remote_http.is_http(folder):
        raise PermissionError("http has no folders to list")
    filesystem, path = _filesystem(folder)
    filesystem.invalidate_cache()
    found = _call(filesystem, "find", path, timeout_s=timeout_s, detail=True)
    root = path.rstrip("/") + "/"
    return [
        (name[len(root) :], int(info["size"] or 0))
        for name, info in found.items()
        if info["type"] == "file" and name.startswith(root) and not name.endswith("/")
    ]


def remove(uri: str, timeout_s: float | None) -> None:
    """Remove one file."""
    if remote_http.is_http(uri):
        raise PermissionError("http is only read here")
    filesystem, path = _filesystem(uri)
    _call(filesystem, "rm_file", path, timeout_s=timeout_s)


def has_ranges(uri: str) -> bool:
    """Whether `size_bytes` and `read_range` are the way to stream `uri`: the object stores."""
    return not remote_http.is_http(uri) and bool(_filesystem(uri)[0].async_impl)


def open_stream(uri: str, timeout_s: float | None) -> BinaryIO:
    """A seekable stream: http is copied to a temporary file, as many servers serve no ranges."""
    if remote_http.is_http(uri):
        spool = tempfile.SpooledTemporaryFile(max_size=_SPOOL_BYTES)  # noqa: SIM115 - the caller closes it
        try:
            remote_http.run(uri, timeout_s, lambda response: remote_http.download(response, spool, None))
        except BaseException:
            spool.close()
            raise
        spool.seek(0)
        return cast("BinaryIO", spool)
    filesystem, path = _filesystem(uri)
    return cast("BinaryIO", _call(filesystem, "open", path, "rb", timeout_s=timeout_s))


class RangeReader(io.RawIOBase):
    """A seekable stream over `fetch(start, end)`; holds no connection, so a long job may read it slowly."""

    def __init__(self, size_bytes: int, fetch: Callable[[int, int], bytes]) -> None:
        super().__init__()
        self._size_bytes = size_bytes
        self._fetch = fetch
        self._position = 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        start = {io.SEEK_SET: 0, io.SEEK_CUR: self._position, io.SEEK_END: self._size_bytes}[whence]
        self._position = max(0, start + offset)
        return self._position

    def readinto(self, buffer: Any) -> int:
        end = min(self._position + len(buffer), self._size_bytes)
        if end <= self._position:
            return 0
        data = self._fetch(self._position, end)
        buffer[: len(data)] = data
        self._position += len(data)
        return len(data)


# --- fsspec ---


def _filesystem(uri: str) -> tuple[Any, str]:
    """The file system of `uri` in this process, and the path in it."""
    if uri.partition("://")[0] not in _S3_SCHEMES:
        from fsspec.core import url_to_fs

        return cast("tuple[Any, str]", url_to_fs(uri))
    environment = tuple(sorted(item for item in os.environ.items() if item[0].startswith("AWS_")))
    filesystem = _s3(os.getpid(), environment, "?versionId=" in uri)
    return filesystem, filesystem._strip_protocol(uri)


def _writable(uri: str) -> tuple[Any, str]:
    if remote_http.is_http(uri):
        raise PermissionError("http is only read here")
    filesystem, path = _filesystem(uri)
    if not filesystem.async_impl:
        filesystem.makedirs(filesystem._parent(path), exist_ok=True)
    return filesystem, path


@functools.lru_cache(maxsize=8)
def _s3(pid: int, environment: tuple[tuple[str, str], ...], version_aware: bool) -> Any:
    """botocore takes endpoint, keys and region from the environment. Neither it nor s3fs retries: `uri` does."""
    del pid, environment  # the key of the cache: a fork or other credentials need another client
    from s3fs import S3FileSystem

    filesystem = S3FileSystem(
        version_aware=version_aware,
        use_listings_cache=False,
        skip_instance_cache=True,
        config_kwargs={
            "connect_timeout": remote_http.CONNECT_TIMEOUT_S,
            "read_timeout": remote_http.SILENCE_TIMEOUT_S,
            "retries": {"total_max_attempts": 1},
            "max_pool_connections": 64,
        },
    )
    filesystem.retries = 1
    return filesystem


def _info(uri: str, timeout_s: float | None) -> dict[str, Any]:
    filesystem, path = _filesystem(uri)
    filesystem.invalidate_cache()
    return cast("dict[str, Any]", _call(filesystem, "info", path, timeout_s=timeout_s))


def _call(filesystem: Any, name: str, *arguments: Any, timeout_s: float | None, **options: Any) -> Any:
    if filesystem.async_impl:
        from fsspec.asyn import sync

        return sync(filesystem.loop, getattr(filesystem, f"_{name}"), *arguments, timeout=timeout_s, **options)
    return _in_thread(lambda: getattr(filesystem, name)(*arguments, **options), timeout_s)


def _in_thread(operation: Callable[[], Any], timeout_s: float | None) -> Any:
    """A file system that cannot be interrupted runs in a daemon thread, which is left behind when it hangs."""
    outcome: list[Any] = []

    def work() -> None:
        try:
            outcome.append((operation(), None))
        except BaseException as error:
            outcome.append((None, error))

    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    thread.join(timeout_s)
    if not outcome:
        raise TimeoutError
    result, error = outcome[0]
    if error is not None:
        raise error
    return result
