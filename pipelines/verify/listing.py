"""The files below ``images/``: listed folder by folder, and remembered as 25 bytes each. Knows no records."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from hashlib import blake2b
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from omnigen_actor import store, uri
from omnigen_actor.uri_names import local_path
from pipelines.verify.pool import in_order

UNKNOWN_SIZE = -1
_SHARDS = [f"{number:02x}" for number in range(256)]
_LISTERS = 16
_ENTRY = np.dtype([("key", "S16"), ("num_bytes", "i8")])

Positions = npt.NDArray[np.int64]


class Entry(NamedTuple):
    """A file, or with a key that ends in a slash a folder where there should be none. UNKNOWN_SIZE: not listed."""

    key: str
    num_bytes: int


def list_images(store_root: str) -> Iterator[list[Entry]]:
    """All that is below ``images/``, one folder at a time. In an object store: in the folders of the layout."""
    folder = uri.join(store_root, store.IMAGES)
    if uri.is_local(folder):
        yield from _list_local(local_path(folder))
        return
    with ThreadPoolExecutor(_LISTERS) as pool:
        yield from in_order(pool, lambda shard: _list_remote(folder, shard), _SHARDS, 2 * _LISTERS)


def _list_remote(folder: str, shard: str) -> list[Entry]:
    place = uri.join(folder, shard)
    sizes = ((file.removeprefix(place).lstrip("/"), num_bytes) for file, num_bytes in uri.list_sizes(place))
    return [Entry(f"{store.IMAGES}/{shard}/{name}", num_bytes) for name, num_bytes in sizes]


def _list_local(folder: Path) -> Iterator[list[Entry]]:
    if not folder.is_dir():
        return
    inside = sorted(folder.iterdir())
    shards = [path for path in inside if path.is_dir()]
    yield [_entry(path, f"{store.IMAGES}/{path.name}") for path in inside if not path.is_dir()]
    for shard in shards:
        with os.scandir(shard) as found:
            yield [_entry(Path(one.path), f"{store.IMAGES}/{shard.name}/{one.name}") for one in found]


def _entry(path: Path, key: str) -> Entry:
    try:
        return Entry(f"{key}/", 0) if path.is_dir() else Entry(key, path.stat().st_size)
    except OSError:  # gone since it was listed, or a link that leads nowhere
        return Entry(key, UNKNOWN_SIZE)


class Inventory:
    """Which images there are, how large, and which of them a record names."""

    def __init__(self, folders: Iterable[Sequence[Entry]]) -> None:
        parts = [np.empty(0, _ENTRY), *(_entries(entries) for entries in folders)]
        entries = np.concatenate(parts)
        self._entries = entries[np.argsort(entries["key"], kind="stable")]
        self._is_named = np.zeros(len(entries), dtype=bool)

    def __len__(self) -> int:
        return len(self._entries)

    def find(self, keys: Sequence[str]) -> tuple[npt.NDArray[np.bool_], Positions]:
        """Whether each key was listed, and its position (any other where it was not)."""
        wanted = _digests(keys)
        if not len(self._entries):
            return np.zeros(len(wanted), dtype=bool), np.zeros(len(wanted), dtype=np.int64)
        position = np.minimum(np.searchsorted(self._entries["key"], wanted), len(self._entries) - 1)
        return self._entries["key"][position] == wanted, position

    def name(self, keys: Sequence[str]) -> list[int | None]:
        """Remember that a record names these; their sizes in bytes, None where it is not known."""
        found, position = self.find(keys)
        self._is_named[position[found]] = True
        sizes = self._entries["num_bytes"][position].tolist() if len(self) else [UNKNOWN_SIZE] * len(keys)
        is_known = [one and size != UNKNOWN_SIZE for one, size in zip(found.tolist(), sizes, strict=True)]
        return [size if known else None for size, known in zip(sizes, is_known, strict=True)]

    @property
    def num_unnamed(self) -> int:
        """How many files no record names."""
        return int(np.sum(~self._is_named))

    def unnamed(self, keys: Sequence[str]) -> list[str]:
        """Those of these keys that were listed and that no record names."""
        found, position = self.find(keys)
        if not len(self):
            return []
        return [key for key, one in zip(keys, found & ~self._is_named[position], strict=True) if one]


def _entries(entries: Sequence[Entry]) -> npt.NDArray[np.void]:
    found = np.empty(len(entries), _ENTRY)
    found["key"] = _digests([entry.key for entry in entries])
    found["num_bytes"] = [entry.num_bytes for entry in entries]
    return found


def _digests(keys: Sequence[str]) -> npt.NDArray[np.bytes_]:
    # Names of files need not be UTF-8.
    joined = b"".join(blake2b(key.encode(errors="surrogateescape"), digest_size=16).digest() for key in keys)
    return np.frombuffer(joined, "S16")
