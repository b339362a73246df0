"""Rows that must wait for the whole manifest, on the driver's disk. Knows no rows' meaning."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq


class Spool:
    """Appends tables of one schema, then gives them back in order, as often as it is asked."""

    def __init__(self, schema: pa.Schema) -> None:
        self._folder = tempfile.TemporaryDirectory(prefix="omnigen-batch-plan-")
        self._path = Path(self._folder.name) / "rows.parquet"
        self._schema = schema
        self._writer: pq.ParquetWriter | None = None

    def add(self, table: pa.Table) -> None:
        """Keep some rows, if any."""
        if not table.num_rows:
            return
        if self._writer is None:
            self._writer = pq.ParquetWriter(self._path, self._schema, compression="zstd")
        self._writer.write_table(table.cast(self._schema))

    def read(self) -> Iterator[pa.Table]:
        """The tables, one at a time. Nothing can be added from here on."""
        if self._writer is None:
            return
        self._writer.close()
        with pq.ParquetFile(self._path) as file:
            for group in range(file.num_row_groups):
                yield file.read_row_group(group)

    def ids(self, numbers: Sequence[int]) -> list[str]:
        """The ids of the rows with these numbers, counted from the first that was added."""
        found: dict[int, str] = {}
        start = 0
        for table in self.read():
            for number in numbers:
                if start <= number < start + table.num_rows:
                    found[number] = table["id"][number - start].as_py()
            start += table.num_rows
        return [found[number] for number in numbers]

    def close(self) -> None:
        """Remove the file."""
        if self._writer is not None:
            self._writer.close()
        self._folder.cleanup()
