"""What export.json says of files, against the files: missing, changed, or not of the export. Knows no rows."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from hashlib import blake2b
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from omnigen_actor import uri
from omnigen_actor.allowed import Allowed
from omnigen_actor.errors import first_line
from omnigen_actor.uri_names import local_path
from pipelines.verify.findings import Finding, FindingKind, Remove
from pipelines.verify.listing import UNKNOWN_SIZE, Entry, Inventory
from pipelines.verify.sets.source import MARKER, SCRATCH

_CHUNK_BYTES = 4 * 2**20
_ENTRY = np.dtype([("path", "S16"), ("sha256", "V32"), ("num_bytes", "i8")])
_OF_HUBS = (".git/", ".cache/", ".huggingface/", ".gitattributes", ".gitignore")
"""What the programs leave that carry sets about."""


class Declared(NamedTuple):
    """An image's entry in the index of an export."""

    sha256: str
    num_bytes: int


class Index:
    """The loose images of an export, 56 bytes each: what it says of them, and which of them rows have named."""

    def __init__(self, root: str, path: str) -> None:
        """Raises OSError, ValueError and ArrowException where the table is damaged."""
        parts = [np.empty(0, _ENTRY)]
        with uri.open_read(uri.join(root, path)) as stream:
            batches = pq.ParquetFile(stream).iter_batches(columns=["path", "sha256", "num_bytes"])
            parts += [_entries(batch) for batch in batches]
        entries = np.concatenate(parts)
        self._entries = entries[np.argsort(entries["path"], kind="stable")]
        self._is_named = np.zeros(len(entries), bool)

    def __len__(self) -> int:
        return len(self._entries)

    @property
    def num_unnamed(self) -> int:
        """How many no row has named."""
        return int(np.sum(~self._is_named))

    def find(self, path: str) -> Declared | None:
        """What the export says of an image; it is named from now on."""
        key = np.array(_digest(path), "S16")
        position = int(np.searchsorted(self._entries["path"], key))
        if position >= len(self._entries) or self._entries["path"][position] != key:
            return None
        self._is_named[position] = True
        entry = self._entries[position]
        return Declared(entry["sha256"].tobytes().hex(), int(entry["num_bytes"]))


def _entries(batch: pa.RecordBatch) -> Any:
    found = np.empty(batch.num_rows, _ENTRY)
    rows = zip(*(batch.column(number).to_pylist() for number in range(3)), strict=True)
    for number, (path, sha256, num_bytes) in enumerate(rows):
        found[number] = (_digest(path), np.void(bytes.fromhex(sha256)), num_bytes)
    return found


def _digest(path: str) -> bytes:
    return blake2b(path.encode(errors="surrogateescape"), digest_size=16).digest()


def check_files(
    root: str, marker: Mapping[str, Any], on_file: Callable[[], None], *, has_hash: bool
) -> Iterator[Finding]:
    """Every file that export.json names, but loose images: is it there, is it the one that was written.

    ``on_file`` hears when another one is due.
    """
    allowed = Allowed((root,))
    for entry in marker["files"]:
        place = uri.join(root, entry["path"])
        make = partial(Finding, key=entry["path"])
        on_file()
        try:
            if uri.is_local(place):
                allowed.real_path(place)
            digest, num_bytes = _read(place, has_hash=has_hash)
        except uri.Refused:
            yield make(kind=FindingKind.PATH_OUTSIDE, message="export.json names it, and it leads out of the export")
        except uri.UriNotFound:
            yield make(kind=FindingKind.FILE_MISSING, message="export.json names it, and there is no such file")
        except (OSError, ValueError) as error:
            yield make(kind=FindingKind.FILE_UNREADABLE, message=first_line(error))
        else:
            if num_bytes != entry["num_bytes"]:
                message = f"export.json says {entry['num_bytes']} bytes, and it has {num_bytes}"
                yield make(kind=FindingKind.FILE_BYTES, message=message)
            elif digest and digest != entry["sha256"]:
                message = f"its sha256 is not the {entry['sha256']} of export.json"
                yield make(kind=FindingKind.FILE_SHA256, message=message)


def _read(place: str, *, has_hash: bool) -> tuple[str | None, int]:
    with uri.open_read(place) as stream:
        if not has_hash:
            return None, stream.seek(0, 2)
        digest, num_bytes = hashlib.sha256(), 0
        while chunk := stream.read(_CHUNK_BYTES):
            digest.update(chunk)
            num_bytes += len(chunk)
        return digest.hexdigest(), num_bytes


def undeclared(root: str, marker: Mapping[str, Any]) -> Iterator[Finding]:
    """Files below an export that it does not have. Lists twice; holds 25 bytes for each file."""
    inventory = Inventory(_listed(root))
    inventory.name([MARKER, *(str(entry["path"]) for entry in marker["files"])])
    images = marker.get("images")
    if images:
        try:
            with uri.open_read(uri.join(root, images["path"])) as stream:
                for batch in pq.ParquetFile(stream).iter_batches(columns=["path"]):
                    inventory.name(batch.column(0).to_pylist())
        except (OSError, ValueError, LookupError, pa.ArrowException):
            return  # nobody knows which images it has, which is found elsewhere
    for entries in _listed(root):
        for key in sorted(inventory.unnamed([entry.key for entry in entries])):
            if not key.startswith(_OF_HUBS):
                yield _undeclared(root, key)


def _undeclared(root: str, key: str) -> Finding:
    if key.startswith(f"{SCRATCH}/"):
        message = "the plan of an export that has come to its end"
        return Finding(kind=FindingKind.LEFTOVER, key=key, message=message, mend=Remove())
    if _leads_out(root, key):
        return Finding(kind=FindingKind.PATH_OUTSIDE, key=key, message="a link that leads out of the export")
    message = "export.json does not name it: it is left alone"
    return Finding(kind=FindingKind.FOREIGN_FILE, key=key, message=message)


def _leads_out(root: str, key: str) -> bool:
    if not uri.is_local(root):
        return False
    try:
        Allowed((root,)).real_path(uri.join(root, key))
    except uri.Refused:
        return True
    return False


def temporary_files(root: str) -> Iterator[Finding]:
    """Half-written files of a process that was killed. An object store has none."""
    if not uri.is_local(root):
        return
    top = local_path(root)
    for folder, _, names in os.walk(top):
        shown = Path(folder).relative_to(top)
        for name in sorted(names):
            if uri.TEMPORARY.fullmatch(name):
                key = (shown / name).as_posix()
                yield Finding(kind=FindingKind.TEMPORARY, key=key, message="a write that was cut off", mend=Remove())


def _listed(root: str) -> Iterator[list[Entry]]:
    """All files, a folder at a time, or all at once of an object store. Links are not followed."""
    if not uri.is_local(root):
        yield [Entry(file.removeprefix(root).lstrip("/"), size) for file, size in uri.list_sizes(root)]
        return
    top = local_path(root)
    for folder, below, names in os.walk(top):
        shown = Path(folder).relative_to(top)
        links = [name for name in below if (Path(folder) / name).is_symlink()]
        plain = [name for name in names if not uri.TEMPORARY.fullmatch(name)]
        yield [Entry((shown / name).as_posix(), UNKNOWN_SIZE) for name in (*plain, *links)]
