"""Parquet manifests: one file, or a folder of files whose user columns may differ in what they can be widened to."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial

import pyarrow as pa
import pyarrow.parquet as pq

from omnigen_actor import schema, uri
from omnigen_actor.errors import ManifestError
from pipelines.source import ROWS_PER_BATCH, file_name, reading


def find_parquet_files(location: str) -> list[str]:
    """The file itself, or every .parquet file below a folder, sorted; empty for neither."""
    files = uri.list_files(location, suffix=".parquet")
    if files:
        return files
    return [location] if file_name(location).endswith(".parquet") else []


def open_parquet(location: str, files: list[str]) -> tuple[pa.Schema, Callable[[], Iterator[pa.Table]]]:
    """The common schema, and a function that reads all files in order."""
    footers = [_read_footer(file) for file in files]
    if not any(num_rows for _, num_rows in footers):
        raise ManifestError(f"{uri.redact(location)}: has no rows")
    common = _common_schema(location, [file_schema for file_schema, _ in footers])
    return common, partial(_read, files, common)


def _read_footer(file: str) -> tuple[pa.Schema, int]:
    with reading(file), uri.open_read(file) as stream:
        parquet = pq.ParquetFile(stream)
        return _checked_names(file, parquet.schema_arrow), parquet.metadata.num_rows


def _checked_names(file: str, file_schema: pa.Schema) -> pa.Schema:
    doubled = sorted({name for name in file_schema.names if file_schema.names.count(name) > 1})
    if doubled:
        raise ManifestError(f"{uri.redact(file)}: has the column {doubled[0]!r} more than once")
    return file_schema.remove_metadata()


def _common_schema(location: str, schemas: list[pa.Schema]) -> pa.Schema:
    own = {field.name: field for one in schemas for field in one if field.name in schema.MANIFEST.names}
    users = [pa.schema([field for field in one if field.name not in own]) for one in schemas]
    try:
        unified = pa.unify_schemas(users, promote_options="permissive")
    except pa.ArrowException as error:
        reason = str(error).splitlines()[0]
        raise ManifestError(f"{uri.redact(location)}: its files differ in a column's type: {reason}") from None
    return pa.schema([*own.values(), *unified])


def _read(files: list[str], common: pa.Schema) -> Iterator[pa.Table]:
    for file in files:
        with reading(file), uri.open_read(file) as stream:
            for batch in pq.ParquetFile(stream).iter_batches(batch_size=ROWS_PER_BATCH):
                yield _conform(pa.Table.from_batches([batch]), common)


def _conform(table: pa.Table, common: pa.Schema) -> pa.Table:
    """The user's columns in the common type, null where a file lacks one; this project's columns as they are."""
    columns, fields = [], []
    for field in common:
        column = table.column(field.name) if field.name in table.column_names else pa.nulls(table.num_rows, field.type)
        own_type = field.name in schema.MANIFEST.names
        fields.append(field.with_type(column.type).with_nullable(True) if own_type else field)
        columns.append(column if own_type else column.cast(field.type))
    return pa.Table.from_arrays(columns, schema=pa.schema(fields))
