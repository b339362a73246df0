"""A manifest of any supported format as batches of one schema. Knows no rules for a row: that is the check's task.

A line that is no row becomes a row with ``schema.LINE_ERROR`` set, so that the check can record it as failed.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa

from omnigen_actor import schema, uri
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
class Manifest:
    """An opened manifest: columns known, at least one row, every required column there.

    ``schema`` holds this project's columns in whatever type the file gives them, and the user's in one type for all
    batches. ``base_folder`` is where relative image references start: the manifest's own folder.
    """

    uri: str
    base_folder: str
    schema: pa.Schema
    read: Callable[[], Iterator[pa.Table]]

    def batches(self) -> Iterator[pa.Table]:
        """All rows, a few thousand at a time, from the start at every call. Raises ManifestError."""
        with reading(self.uri):
            yield from self.read()


def open_manifest(manifest_uri: str) -> Manifest:
    """Open a Parquet file or folder, JSONL or CSV, or a .gz of the latter two; a path or a URI.

    Raises ManifestError for what makes the whole manifest unusable: missing, unreadable, of unknown extension, without
    rows, or without the required columns.
    """
    try:
        location = uri.resolve(manifest_uri, str(Path.cwd()))
    except ValueError as error:
        raise ManifestError(f"manifest {uri.redact(manifest_uri)!r}: {error}") from None
    with reading(location):
        manifest = _open(location)
    _check_columns(manifest)
    return manifest


def _open(location: str) -> Manifest:
    name = file_name(location)
    for extension, open_text in _OPEN_TEXT.items():
        if name.endswith((extension, f"{extension}.gz")):
            table_schema, read = open_text(location)
            return Manifest(uri=location, base_folder=uri.parent(location), schema=table_schema, read=read)
    files = find_parquet_files(location)
    if not files:
        raise ManifestError(_no_such_format(location))
    table_schema, read = open_parquet(location, files)
    base_folder = uri.parent(location) if files == [location] else location.rstrip("/")
    return Manifest(uri=location, base_folder=base_folder, schema=table_schema, read=read)


def _no_such_format(location: str) -> str:
    shown = uri.redact(location)
    if not uri.exists(location):
        return f"manifest {shown}: no such file or folder"
    return f"manifest {shown}: neither a folder with .parquet files, nor a file that ends in {', '.join(EXTENSIONS)}"


def _check_columns(manifest: Manifest) -> None:
    found = [name for name in manifest.schema.names if name != schema.LINE_ERROR.name]
    missing = [name for name in schema.MANIFEST_REQUIRED if name not in found]
    if not missing:
        return
    near = [match for name in missing for match in difflib.get_close_matches(name, found, n=1)]
    hint = f"; rename {', '.join(map(repr, near))}?" if near else ""
    raise ManifestError(
        f"manifest {uri.redact(manifest.uri)}: lacks the required column{'s' * (len(missing) > 1)} "
        f"{', '.join(missing)}; found: {', '.join(found[:30]) or 'none'}{hint}"
    )
