"""A selection of a store: which images are to be exported, and the split of each. Knows not how it was made."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from omnigen_actor import store, uri
from omnigen_actor.errors import ConfigError, OutputError, first_line
from pipelines.export.keys import Lookup, unknown
from pipelines.scores.stored import keys_of
from pipelines.selection.written import MARKER_KEY, TABLE_KEY, folder

DEFAULT_SPLIT = "train"
_COLUMNS = ["id", "sample", "sha256", "is_kept", "split"]
_SPLIT = re.compile(r"[A-Za-z0-9_]{1,40}")
_MAX_BYTES = 2**30


class Selection:
    """Which images are kept."""

    def __init__(self, kept: pa.Table, told: bytes) -> None:
        self._lookup = Lookup(keys_of(kept), kept.select(["split"]))
        self._kept = kept.select(["id", "sample"])
        self._seen: list[npt.NDArray[np.int64]] = []
        self.told = told

    @classmethod
    def read(cls, store_root: str, name: str) -> Selection:
        """The selection of that name. Raises ConfigError where there is none, OutputError for a damaged one."""
        place = folder(store_root, name)
        try:
            told = uri.read_bytes(uri.join(place, MARKER_KEY), max_bytes=_MAX_BYTES)
            with uri.open_read(uri.join(place, TABLE_KEY)) as stream:
                table = pq.ParquetFile(stream).read(columns=_COLUMNS)
        except uri.UriNotFound:
            there = ", ".join(_names(store_root)) or "none"
            raise ConfigError(
                f"selection={name!r}: the store has none of that name, or not whole; it has: {there}"
            ) from None
        except (OSError, pa.ArrowException) as error:
            raise OutputError(f"selection {name!r} can't be read: {first_line(error)}") from None
        kept = table.filter(pc.fill_null(table["is_kept"], False))
        for split in pc.unique(kept["split"]).to_pylist():
            if not _SPLIT.fullmatch(split or ""):
                raise OutputError(
                    f"selection {name!r}: the split {split!r} can't be a file name: use letters, digits, _"
                )
        return cls(kept, told)

    def splits(self, images: pa.Table) -> list[str | None]:
        """The split of each current image, None for those that are not kept."""
        keys = keys_of(images)
        found, numbers = self._lookup.find(keys)
        self._seen.append(numbers[found])
        splits: list[str | None] = self._lookup.rows(keys)["split"].to_pylist()
        return splits

    def missing(self) -> Iterator[tuple[str, int]]:
        """Kept images that have not come by: (id, sample). They have changed since, or are gone."""
        numbers = unknown(np.concatenate([np.empty(0, np.int64), *self._seen]), len(self._lookup))
        for start in range(0, len(numbers), 4096):
            rows: list[dict[str, Any]] = self._kept.take(numbers[start : start + 4096]).to_pylist()
            yield from ((row["id"], row["sample"]) for row in rows)


def _names(store_root: str) -> list[str]:
    above = uri.join(store_root, store.SELECTIONS)
    files = uri.list_files(above, suffix=f"/{MARKER_KEY}")
    return sorted(file.removeprefix(above).strip("/").rpartition("/")[0] for file in files)
