"""A selection of a store: which images are to be exported, and the split of each. Knows not how it was made."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from omnigen_actor import store, uri
from omnigen_actor.errors import ConfigError, OutputError, first_line
from pipelines.export.examples import PAIRED
from pipelines.export.format import Refusal
from pipelines.export.keys import Lookup, unknown
from pipelines.scores.stored import keys_of
from pipelines.selection.written import MARKER_KEY, PAIRS_KEY, TABLE_KEY, folder

DEFAULT_SPLIT = "train"
CHANGED = Refusal("changed_since_selection", "the selection keeps it, and its image is another now, or gone")
_COLUMNS = ["id", "sample", "sha256", "is_kept", "split"]
_SPLIT = re.compile(r"[A-Za-z0-9_]{1,40}")
_MAX_BYTES = 2**30


LeftOutOfIt = tuple[str, int, Refusal]
"""Id and sample of an image that the selection has, and why it is not exported."""


class Selection:
    """Which images are kept; or, of its pairs, which are rejected with another in their place (``read_pairs``)."""

    def __init__(self, kept: pa.Table, told: bytes, left_out: Sequence[LeftOutOfIt] = ()) -> None:
        """``kept``: id, sample, sha256 and split, and of pairs the columns of PAIRED."""
        self._has_pairs = PAIRED.names[0] in kept.column_names
        columns = ["split", *(PAIRED.names if self._has_pairs else ())]
        self._lookup = Lookup(keys_of(kept), kept.select(columns))
        self._kept = kept.select(["id", "sample"])
        self._left_out = left_out
        self._seen: list[npt.NDArray[np.int64]] = []
        self.told = told

    @classmethod
    def read(cls, store_root: str, name: str) -> Selection:
        """The selection of that name. Raises ConfigError where there is none, OutputError for a damaged one."""
        told, table = read_files(store_root, name, TABLE_KEY, _COLUMNS)
        kept = table.filter(pc.fill_null(table["is_kept"], False))
        check_splits(name, kept["split"])
        return cls(kept, told)

    def splits(self, images: pa.Table) -> list[str | None]:
        """The split of each current image, None for those that are not kept."""
        keys = keys_of(images)
        found, numbers = self._lookup.find(keys)
        self._seen.append(numbers[found])
        splits: list[str | None] = self._lookup.rows(keys)["split"].to_pylist()
        return splits

    def pairs(self, images: pa.Table) -> pa.Table:
        """The columns of PAIRED for images that are kept; null where the selection is not one of pairs."""
        if not self._has_pairs:
            return no_pairs(images.num_rows)
        return self._lookup.rows(keys_of(images)).select(PAIRED.names)

    def left_out(self) -> Iterator[LeftOutOfIt]:
        """What can't be exported, and the kept images that have not come by: they have changed since, or are gone."""
        yield from self._left_out
        numbers = unknown(np.concatenate([np.empty(0, np.int64), *self._seen]), len(self._lookup))
        for start in range(0, len(numbers), 4096):
            rows: list[dict[str, Any]] = self._kept.take(numbers[start : start + 4096]).to_pylist()
            yield from ((row["id"], row["sample"], CHANGED) for row in rows)


def no_pairs(num_rows: int) -> pa.Table:
    """PAIRED for images that are of no pair."""
    return pa.table([pa.nulls(num_rows, field.type) for field in PAIRED], schema=PAIRED)


def read_files(store_root: str, name: str, key: str, columns: list[str]) -> tuple[bytes, pa.Table]:
    """The marker of a selection, and some columns of one of its tables.

    Raises ConfigError where there is no such selection or table, OutputError for a damaged one.
    """
    place = folder(store_root, name)
    try:
        told = uri.read_bytes(uri.join(place, MARKER_KEY), max_bytes=_MAX_BYTES)
        with uri.open_read(uri.join(place, key)) as stream:
            table = pq.ParquetFile(stream).read(columns=columns)
    except uri.UriNotFound:
        there = _names(store_root)
        if name in there and key == PAIRS_KEY:
            raise ConfigError(
                f"selection={name!r}: it has no pairs; run the same jobs.select again, with --pairs"
            ) from None
        raise ConfigError(
            f"selection={name!r}: the store has none of that name, or not whole; it has: {', '.join(there) or 'none'}"
        ) from None
    except (OSError, pa.ArrowException) as error:
        raise OutputError(f"selection {name!r} can't be read: {first_line(error)}") from None
    return told, table


def check_splits(name: str, splits: pa.ChunkedArray) -> None:
    """Raises OutputError for a split that can't be a part of a file's name."""
    for split in pc.unique(splits).to_pylist():
        if not _SPLIT.fullmatch(split or ""):
            raise OutputError(f"selection {name!r}: the split {split!r} can't be a file name: use letters, digits, _")


def _names(store_root: str) -> list[str]:
    above = uri.join(store_root, store.SELECTIONS)
    files = uri.list_files(above, suffix=f"/{MARKER_KEY}")
    return sorted(file.removeprefix(above).strip("/").rpartition("/")[0] for file in files)
