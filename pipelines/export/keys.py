"""Rows that belong to images, found by (id, sample, sha256). Knows neither what they say nor who wrote them.

An image is 16 bytes of a digest: what is about an image whose file has changed since is not found.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from pipelines.scores.stored import Keys


class Lookup:
    """A table by the keys of its rows; of two rows of one key the last counts."""

    def __init__(self, keys: Keys, table: pa.Table) -> None:
        self._order = np.argsort(keys, kind="stable")
        self._keys = keys[self._order]
        self._table = table.combine_chunks()

    def find(self, keys: Keys) -> tuple[npt.NDArray[np.bool_], npt.NDArray[np.int64]]:
        """Whether there is a row for each key, and its number (any other where there is none)."""
        if not len(self._keys):
            return np.zeros(len(keys), bool), np.zeros(len(keys), np.int64)
        place = np.maximum(np.searchsorted(self._keys, keys, side="right") - 1, 0)
        return self._keys[place] == keys, self._order[place]

    def rows(self, keys: Keys) -> pa.Table:
        """The row of each key, null in all columns where there is none."""
        found, numbers = self.find(keys)
        if not self._table.num_rows:
            return pa.table([pa.nulls(len(keys), field.type) for field in self._table.schema], self._table.schema)
        return self._table.take(pa.array(numbers, mask=~found))

    def __len__(self) -> int:
        return len(self._keys)


def unknown(found: npt.NDArray[Any], num_rows: int) -> npt.NDArray[np.int64]:
    """The numbers from 0 to ``num_rows`` that are not among ``found``."""
    is_found = np.zeros(num_rows, bool)
    is_found[found] = True
    return np.flatnonzero(~is_found)
