"""Who had a key first: an index of 16-byte keys that grows without growing the process. Knows no rows.

Sorted runs that are merged as they come to be of one length, so that a key is looked for in a few of them. Long runs
lie in files that have no name any more: the system keeps of them in memory what it has room for.
"""

from __future__ import annotations

import tempfile
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

VALUE = np.dtype([("number", "<i8"), ("content", "<u8")])
"""Of a key: the number of the row that had it, and 8 bytes of what that row is."""

IN_MEMORY = 2**17
"""Longer runs lie in files."""


class _Run(NamedTuple):
    """Keys in order, each once, and their values. Two arrays: numpy copies a field to search in it."""

    keys: npt.NDArray[np.bytes_]
    values: npt.NDArray[np.void]


class FirstSeen:
    """The value that each key came with first."""

    def __init__(self, in_memory: int = IN_MEMORY) -> None:
        self._in_memory = in_memory
        self._runs: list[_Run] = []

    def add(self, keys: npt.NDArray[np.bytes_], values: npt.NDArray[np.void]) -> npt.NDArray[np.void]:
        """Take in keys (S16) with their values (VALUE); for each, the value that its key had first, its own if new."""
        own, first, inverse = np.unique(keys, return_index=True, return_inverse=True)
        found, is_new = values[first], np.ones(len(own), bool)
        for run in self._runs:
            place = np.minimum(np.searchsorted(run.keys, own), len(run.keys) - 1)
            is_there = run.keys[place] == own
            found[is_there] = run.values[place[is_there]]
            is_new &= ~is_there
        if is_new.any():
            self._runs.append(_Run(own[is_new], found[is_new]))
            self._merge()
        answer: npt.NDArray[np.void] = found[inverse]
        return answer

    def _merge(self) -> None:
        """Until each run is more than twice as long as the next: then there are few, and a key is merged few times."""
        while len(self._runs) > 1 and len(self._runs[-2].keys) <= 2 * len(self._runs[-1].keys):
            last, before = self._runs.pop(), self._runs.pop()
            keys = np.concatenate([before.keys, last.keys])
            order = np.argsort(keys, kind="stable")
            values = np.concatenate([before.values, last.values])[order]
            self._runs.append(_Run(self._put_away(keys[order]), self._put_away(values)))

    def _put_away(self, array: npt.NDArray[Any]) -> npt.NDArray[Any]:
        return in_file(array) if len(array) > self._in_memory else array


def in_file(array: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """The same array, in a file that goes when nobody holds the array any more. It can be changed in place."""
    with tempfile.TemporaryFile(prefix="omnigen-batch-plan-") as file:
        array.tofile(file)
        file.flush()
        return np.memmap(file, array.dtype, mode="r+", shape=array.shape)
