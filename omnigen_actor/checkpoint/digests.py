"""The sha256 of large files, remembered on the node: a driver must not read 15 GB to learn what it has.

A digest is believed while path, size and time of change of the file are the same. Whoever reads a file whole says what
it found with ``confirm``, which tells of bytes that went bad. Knows nothing of what is in the files.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
import time
from collections.abc import Iterable
from pathlib import Path

from omnigen_actor.checkpoint.cache import cache_folder
from omnigen_actor.checkpoint.reading import short
from omnigen_actor.errors import ModelError

REMEMBER_BYTES = 16 << 20
"""Smaller files are read again: that is as fast as looking up what is known of them."""

_SETTLED_NS = 2 * 10**9
"""A file changed this recently may change again within the same tick of its file system's clock."""

_SHA256 = re.compile(r"[0-9a-f]{64}")


def sha256(path: Path) -> str:
    """The sha256 of a file: what is known, or else what reading all of it gives. Raises OSError."""
    known = known_sha256(path)
    if known:
        return known
    before = stamp(path)
    with path.open("rb") as file:
        found = hashlib.file_digest(file, "sha256").hexdigest()
    remember(path, found, before)
    return found


def known_sha256(path: Path) -> str | None:
    """The sha256 of a file without reading it, if the hub's cache or this node's memory tells."""
    return _hub_sha256(path) or _remembered(path)


def confirm(label: str, path: Path, found: str, before: list[int]) -> None:
    """Compare the sha256 of all bytes, as just read, with what is known. ``before``: the file's stamp before reading.

    Raises ModelError if the file is damaged.
    """
    known = known_sha256(path)
    if known is None:
        remember(path, found, before)
    elif known != found:
        raise ModelError(
            f"{label}: {short(path)} is damaged: its bytes have sha256 {found}, but should have {known}; "
            "remove the file and fetch it again"
        )


def combine(parts: Iterable[tuple[str, str]]) -> str:
    """One sha256 over names and the sha256 of each."""
    digest = hashlib.sha256()
    for name, part in parts:
        digest.update(name.encode())
        digest.update(bytes.fromhex(part))
    return digest.hexdigest()


def stamp(path: Path) -> list[int]:
    """Size and time of change of a file."""
    status = path.stat()
    return [status.st_size, status.st_mtime_ns]


def remember(path: Path, found: str, before: list[int]) -> None:
    """Keep a digest for later, unless the file is small or may have changed since ``before``."""
    size, changed_ns = before
    if size < REMEMBER_BYTES or stamp(path) != before or time.time_ns() - changed_ns < _SETTLED_NS:
        return
    memory = _memory(path)
    temporary = memory.with_name(f"{memory.name}.{os.getpid()}.tmp")
    with contextlib.suppress(OSError):  # a node without a cache reads once more, that is all
        memory.parent.mkdir(parents=True, exist_ok=True)
        temporary.write_text(json.dumps({"path": str(path.resolve()), "stamp": before, "sha256": found}))
        temporary.replace(memory)


def _remembered(path: Path) -> str | None:
    try:
        content = json.loads(_memory(path).read_text())
        if content["path"] == str(path.resolve()) and content["stamp"] == stamp(path):
            return str(content["sha256"]) if _SHA256.fullmatch(content["sha256"]) else None
    except (OSError, ValueError, KeyError, TypeError):
        pass
    return None


def _memory(path: Path) -> Path:
    return cache_folder("digests") / f"{hashlib.sha256(str(path.resolve()).encode()).hexdigest()}.json"


def _hub_sha256(path: Path) -> str | None:
    """In the hub's cache a large file is a link to a blob that is named by the sha256 that the hub states.

    One step only: the blob may itself be a link into a store whose names are other hashes. Small files have names of
    40 digits, which are git's.
    """
    if not path.is_symlink():
        return None
    blob = path.readlink()
    in_hub_cache = "snapshots" in path.absolute().parts and blob.parent.name == "blobs"
    return blob.name if in_hub_cache and _SHA256.fullmatch(blob.name) else None
