"""A table of any supported format as batches of one schema. Knows no columns: what a row means is the caller's.

A line that is no row becomes a row with ``schema.LINE_ERROR`` set, so that it can be recorded as failed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import pyarrow as pa

from omnigen_actor import uri
from omnigen_actor.errors import ManifestError
from pipelines.manifest_csv import open_csv
from pipelines.manifest_jsonl import open_jsonl
from pipelines.manifest_parquet import find_parquet_files, open_parquet
from pipelines.source import file_name, reading

_OPEN_TEXT = {
    ".jsonl": open_jsonl,
    ".ndjson": open_jsonl,
    ".json": open_jsonl,
    ".csv": open_csv,
}
EXTENSIONS = (".parquet", *_OPEN_TEXT, *(f"{extension}.gz" for extension in _OPEN_TEXT))


@dataclass(frozen=True, slots=True, kw_only=True)
class Table:
    """An opened table with at least one row.

    ``schema`` holds this project's columns in whatever type the file gives them, and the user's in one type for all
    batches. ``base_folder`` is where relative references start: as opened, the table's own folder.
    """

    uri: str
    base_folder: str
    schema: pa.Schema
    read: Callable[[], Iterator[pa.Table]]

    def batches(self) -> Iterator[pa.Table]:
        """All rows, a few thousand at a time, from the start at every call. Raises ManifestError."""
        with reading(self.uri):
            yield from self.read()


def open_table(location: str) -> Table:
    """Open a Parquet file or folder, JSONL or CSV, or a .gz of the latter two; an absolute path or URI.

    Raises ManifestError for one that is missing, unreadable, of unknown extension or without rows.
    """
    with reading(location):
        return _open(location)


def is_table_file(location: str) -> bool:
    """Whether the name is that of a table in one file."""
    return file_name(location).endswith(EXTENSIONS)


def _open(location: str) -> Table:
    name = file_name(location)
    for extension, open_text in _OPEN_TEXT.items():
        if name.endswith((extension, f"{extension}.gz")):
            table_schema, read = open_text(location)
            return Table(uri=location, base_folder=uri.parent(location), schema=table_schema, read=read)
    files = find_parquet_files(location)
    if not files:
        raise ManifestError(_no_such_format(location))
    table_schema, read = open_parquet(location, files)
    base_folder = uri.parent(location) if files == [location] else location.rstrip("/")
    return Table(uri=location, base_folder=base_folder, schema=table_schema, read=read)


def _no_such_format(location: str) -> str:
    shown = uri.redact(location)
    if not uri.exists(location):
        return f"{shown}: no such file or folder"
    return f"{shown}: neither a folder with .parquet files, nor a file that ends in {', '.join(EXTENSIONS)}"
