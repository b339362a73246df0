"""Which of many 64-bit hashes differ in few bits, exactly and without all pairs. Knows no files and no images.

The index is faiss' ``IndexBinaryMultiHash``: t tables, each by its own bits of the hash, of which a search also turns
over up to f. Two hashes that differ in at most t (f + 1) − 1 bits differ in at most f of those of one table (there is
no room for more), so up to that radius every pair is found.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from omnigen_actor.errors import ConfigError

DEFAULT_RADIUS = 4
"""Bits of 64: resizing and JPEG change 0 to 2 of a perceptual hash, unlike photographs differ in 20 and more."""
MAX_RADIUS = 10
"""Above, unlike pictures of one kind begin to be joined, and the index costs as much as all pairs."""

NONE = -1
"""The distance of a hash that has no other within the radius."""

_BITS = 64
_MOST_PAIRS = 1 << 21
"""Held before they are joined: 16 MiB each."""
_MOST_ASKED = 4096
"""Hashes a search: the answer to each may be all others."""

Hashes = npt.NDArray[np.uint64]
_Places = npt.NDArray[np.int64]


class Groups(NamedTuple):
    """Of each hash: the number of its group, and the distance to the nearest other one, or NONE.

    Groups are connected components: each hash is within the radius of another one of its group, not of all.
    """

    number: _Places
    distance: npt.NDArray[np.int16]


class _Tables(NamedTuple):
    num: int
    num_bits: int
    num_flipped: int

    @property
    def radius(self) -> int:
        """Up to which every pair is found."""
        return self.num * (self.num_flipped + 1) - 1


_TABLES = (_Tables(3, 21, 1), _Tables(3, 21, 2), _Tables(4, 16, 2))
"""From the fastest. More flips ask more of the table, fewer bits leave more hashes to compare."""


def check_radius(radius: int) -> None:
    """Raises ConfigError."""
    if not 0 <= radius <= MAX_RADIUS:
        raise ConfigError(f"radius={radius}: must be between 0 and {MAX_RADIUS} bits of {_BITS}")


def group(hashes: Hashes, radius: int = DEFAULT_RADIUS) -> Groups:
    """The groups of hashes that are chained by distances of at most ``radius`` bits. Raises ConfigError."""
    check_radius(radius)
    # Equal hashes are one: a hundred thousand blank pictures would else be five billion pairs.
    distinct, place, count = np.unique(hashes, return_inverse=True, return_counts=True)
    joined = _Joined(len(distinct))
    if radius and len(distinct) > 1:
        for one, other, found in _pairs(distinct, radius):
            joined.add(one, other, found)
    number, distance = joined.finish()
    distance[count > 1] = 0
    return Groups(number[place], distance[place])


def _pairs(hashes: Hashes, radius: int) -> Iterator[tuple[_Places, _Places, npt.NDArray[np.int16]]]:
    """Each pair within the radius twice, with its distance."""
    tables = next(tables for tables in _TABLES if tables.radius >= radius)
    rows = _rows(hashes, tables)
    index = _index(rows, tables)
    num_asked = max(1, min(_MOST_ASKED, 16 * _MOST_PAIRS // len(hashes)))
    for start in range(0, len(rows), num_asked):
        limits, distance, other = index.range_search(rows[start : start + num_asked], radius + 1)  # nearer than that
        one = np.repeat(np.arange(start, start + len(limits) - 1), np.diff(limits.astype(np.int64)))
        is_pair = one != other
        yield one[is_pair], other[is_pair], distance[is_pair].astype(np.int16)


def _index(rows: npt.NDArray[np.uint8], tables: _Tables) -> Any:
    import faiss

    index = faiss.IndexBinaryMultiHash(_BITS, tables.num, tables.num_bits)
    index.nflip = tables.num_flipped
    index.add(rows)
    return index


def _rows(hashes: Hashes, tables: _Tables) -> npt.NDArray[np.uint8]:
    """The hashes as bytes (N, 8), their bits in another order: each table gets bits that tell hashes apart.

    A table reads its bits one after the other. The most even bits of all hashes are dealt to the tables in turn.
    """
    shares = np.array([float((hashes >> np.uint64(bit) & np.uint64(1)).mean()) for bit in range(_BITS)])
    by_balance = np.argsort(np.abs(shares - 0.5), kind="stable")
    dealt = [by_balance[start :: tables.num][: tables.num_bits] for start in range(tables.num)]
    order = np.concatenate([*dealt, np.setdiff1d(by_balance, np.concatenate(dealt))])
    moved = np.zeros_like(hashes)
    for place, bit in enumerate(order.tolist()):
        moved |= (hashes >> np.uint64(bit) & np.uint64(1)) << np.uint64(place)
    return moved.astype("<u8").view(np.uint8).reshape(-1, 8)


class _Joined:
    """Pairs become components, some millions at a time."""

    def __init__(self, num_hashes: int) -> None:
        self._number = np.arange(num_hashes, dtype=np.int64)
        self._distance = np.full(num_hashes, _BITS + 1, np.int16)
        self._pairs: list[tuple[_Places, _Places]] = []
        self._num_pairs = 0

    def add(self, one: _Places, other: _Places, distance: npt.NDArray[np.int16]) -> None:
        np.minimum.at(self._distance, one, distance)
        is_new = self._number[one] < self._number[other]  # in a dense cloud nearly all pairs are joined already
        if is_new.any():
            self._pairs.append((one[is_new], other[is_new]))
            self._num_pairs += int(is_new.sum())
        if self._num_pairs > _MOST_PAIRS:
            self._merge()

    def finish(self) -> tuple[_Places, npt.NDArray[np.int16]]:
        self._merge()
        return self._number, np.where(self._distance > _BITS, NONE, self._distance).astype(np.int16)

    def _merge(self) -> None:
        from scipy.sparse import coo_array
        from scipy.sparse.csgraph import connected_components

        if not self._pairs:
            return
        one, other = (self._number[np.concatenate(side)] for side in zip(*self._pairs, strict=True))
        size = len(self._number)
        graph = coo_array((np.ones(len(one), np.int8), (one, other)), shape=(size, size))
        self._number = connected_components(graph, directed=False)[1].astype(np.int64)[self._number]
        self._pairs, self._num_pairs = [], 0
