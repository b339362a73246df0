"""Which of many 64-bit hashes differ in few bits, exactly and without all pairs. Knows no files and no images.

The index is that of Manku, Jain and Das Sarma (Detecting near-duplicates for web crawling, 2007). The 64 bits are dealt
into b blocks. Two hashes that differ in at most r bits are equal in at least b − r blocks, so for each choice of b − r
blocks the hashes are sorted by those bits, and only hashes that are equal there are compared. Every pair within r is
found. b is the one with the least work for these hashes, tried out on them. Memory is about 100 bytes for each hash.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from itertools import combinations, islice
from typing import NamedTuple

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
"""Compared at a time, and held before they are joined: 16 MiB each."""
_SMALL_RUN = 64
"""Longer runs of equal bits are compared as a table, shorter ones all at once."""
_SORT_COST = 10.0
"""What it takes to sort one hash, in comparisons of a pair (120 ns and 12 ns on the machine of the benchmark)."""
_NUM_TRIED = 3

Hashes = npt.NDArray[np.uint64]
_Places = npt.NDArray[np.int64]


class Groups(NamedTuple):
    """Of each hash: the number of its group, and the distance to the nearest other one, or NONE.

    Groups are connected components: each hash is within the radius of another one of its group, not of all.
    """

    number: _Places
    distance: npt.NDArray[np.int16]


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
        for mask in _masks(distinct, radius):
            _compare(distinct, mask, radius, joined)
    number, distance = joined.finish()
    distance[count > 1] = 0
    return Groups(number[place], distance[place])


class _Joined:
    """Pairs become components, some millions at a time."""

    def __init__(self, num_hashes: int) -> None:
        self._number = np.arange(num_hashes, dtype=np.int64)
        self._distance = np.full(num_hashes, _BITS + 1, np.int16)
        self._pairs: list[tuple[_Places, _Places]] = []
        self._num_pairs = 0

    def add(self, one: _Places, other: _Places, distance: npt.NDArray[np.int16]) -> None:
        np.minimum.at(self._distance, one, distance)
        np.minimum.at(self._distance, other, distance)
        is_new = self._number[one] != self._number[other]  # in a dense cloud nearly all pairs are joined already
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


def _masks(hashes: Hashes, radius: int) -> Iterator[np.uint64]:
    """The bits to sort by, one mask for each choice of blocks: those of the number of blocks with the least work."""
    order = _by_balance(hashes)
    counts = range(radius + 1, min(_BITS, radius + 6) + 1)
    best = min(counts, key=lambda num_blocks: _work(hashes, order, num_blocks, radius))
    return _choices(order, best, radius)


def _by_balance(hashes: Hashes) -> _Places:
    """The bits from the most to the least even one, so that each block is dealt bits that tell hashes apart."""
    shares = np.array([float((hashes >> np.uint64(bit) & np.uint64(1)).mean()) for bit in range(_BITS)])
    return np.argsort(np.abs(shares - 0.5), kind="stable")


def _choices(order: _Places, num_blocks: int, radius: int) -> Iterator[np.uint64]:
    blocks = [sum(1 << int(bit) for bit in order[start::num_blocks]) for start in range(num_blocks)]
    for chosen in combinations(blocks, num_blocks - radius):
        yield np.uint64(sum(chosen))


def _work(hashes: Hashes, order: _Places, num_blocks: int, radius: int) -> float:
    """Comparisons, and sorting in their terms: estimated by the first masks."""
    tried = list(islice(_choices(order, num_blocks, radius), _NUM_TRIED))
    pairs = 0.0
    for mask in tried:
        _, sizes = np.unique(hashes & mask, return_counts=True)
        pairs += float((sizes.astype(np.float64) * (sizes - 1) / 2).sum())
    return math.comb(num_blocks, radius) * (pairs / len(tried) + _SORT_COST * len(hashes))


def _compare(hashes: Hashes, mask: np.uint64, radius: int, joined: _Joined) -> None:
    """Add every pair within ``radius`` among the hashes that are equal in the bits of ``mask``."""
    keys = hashes & mask
    order = np.argsort(keys)
    keys = keys[order]
    starts = np.flatnonzero(np.concatenate([[True], keys[1:] != keys[:-1]]))
    ends = np.append(starts[1:], len(keys))
    sizes = ends - starts
    near = _Near(hashes[order], order, radius, joined)
    is_small = (sizes > 1) & (sizes <= _SMALL_RUN)
    near.compare_runs(starts[is_small], ends[is_small])
    for run in np.flatnonzero(sizes > _SMALL_RUN):
        near.compare_table(int(starts[run]), int(ends[run]))


class _Near(NamedTuple):
    """Hashes in the order of a sort, their places before it, and where pairs within the radius go."""

    hashes: Hashes
    places: _Places
    radius: int
    joined: _Joined

    def compare_runs(self, starts: _Places, ends: _Places) -> None:
        """All pairs of many short runs: each hash with the next one, then with the one after it, and so on."""
        sizes = ends - starts
        here = np.repeat(starts - np.concatenate([[0], np.cumsum(sizes)[:-1]]), sizes) + np.arange(sizes.sum())
        last = np.repeat(ends, sizes)
        for step in range(1, int(sizes.max(initial=1))):
            is_inside = here + step < last
            here, last = here[is_inside], last[is_inside]
            self._add(here, here + step, np.bitwise_count(self.hashes[here] ^ self.hashes[here + step]))

    def compare_table(self, start: int, end: int) -> None:
        """All pairs of one long run, some rows of the table at a time."""
        num_rows = max(1, _MOST_PAIRS // (end - start))
        for first in range(start, end, num_rows):
            rows = self.hashes[first : min(first + num_rows, end)]
            distance = np.bitwise_count(rows[:, None] ^ self.hashes[None, first:end])
            row, column = np.nonzero(distance <= self.radius)
            is_upper = row < column
            row, column = row[is_upper], column[is_upper]
            self._add(first + row, first + column, distance[row, column])

    def _add(self, one: _Places, other: _Places, distance: npt.NDArray[np.uint8]) -> None:
        is_near = distance <= self.radius
        if is_near.any():
            found = distance[is_near].astype(np.int16)
            self.joined.add(self.places[one[is_near]], self.places[other[is_near]], found)
