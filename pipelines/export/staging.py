"""The chosen images of a store as rows of STAGED, on the driver's disk, and any of them by their numbers.

The file is mapped into memory, not read: it is as large as the records, and memory is not. Knows no shards.
"""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

_BATCH_ROWS = 4096


class Staging:
    """Appends tables of one schema; after ``end`` gives their rows. A context: the file is gone at its end."""

    def __init__(self, schema: pa.Schema) -> None:
        self.schema = schema
        self.num_rows = 0
        self._folder = tempfile.TemporaryDirectory(prefix="omnigen-batch-export-")
        self._path = Path(self._folder.name) / "rows.arrow"
        self._writer: Any = pa.ipc.new_file(str(self._path), schema)
        self._waiting: list[pa.Table] = []
        self._starts = [0]
        self._reader: Any = None

    def __enter__(self) -> Staging:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._writer.close()
        self._reader = None
        self._folder.cleanup()

    def add(self, table: pa.Table) -> None:
        """Keep some rows, if any."""
        self._waiting.append(table)
        self.num_rows += table.num_rows
        if self.num_rows - self._starts[-1] >= _BATCH_ROWS:
            self._write()

    def end(self) -> None:
        """Nothing is added from here on."""
        self._write()
        self._writer.close()
        self._reader = pa.ipc.open_file(pa.memory_map(str(self._path)))

    def columns(self, names: Sequence[str]) -> pa.Table:
        """Some columns of all rows, mapped."""
        return self._reader.read_all().select(list(names))

    def take(self, numbers: npt.NDArray[np.integer]) -> pa.Table:
        """The rows with these numbers, in that order."""
        batches = np.searchsorted(self._starts, numbers, side="right") - 1
        order = np.argsort(batches, kind="stable")
        found = []
        for batch in np.unique(batches).tolist():
            inside = numbers[order[batches[order] == batch]] - self._starts[batch]
            found.append(pa.Table.from_batches([self._reader.get_batch(batch)]).take(pa.array(inside)))
        back = np.empty(len(order), np.int64)
        back[order] = np.arange(len(order))
        return pa.concat_tables(found).combine_chunks().take(pa.array(back)) if found else self.schema.empty_table()

    def _write(self) -> None:
        table = pa.concat_tables(self._waiting).combine_chunks() if self._waiting else None
        self._waiting = []
        if table is None or not table.num_rows:
            return
        for batch in table.cast(self.schema).to_batches():
            self._writer.write_batch(batch)
            self._starts.append(self._starts[-1] + batch.num_rows)
