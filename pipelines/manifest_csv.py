"""CSV manifests: strings everywhere, as they are. A line that doesn't fit the header is a row with a line error."""

from __future__ import annotations

import csv
import io
from collections import Counter
from collections.abc import Callable, Iterator
from functools import partial
from itertools import islice

import pyarrow as pa

from omnigen_actor import schema, uri
from omnigen_actor.errors import ManifestError
from pipelines.source import ROWS_PER_BATCH, open_bytes

_Line = tuple[list[str], dict[str, object] | None]
"""The fields of a line, or what is wrong with it."""


def open_csv(location: str) -> tuple[pa.Schema, Callable[[], Iterator[pa.Table]]]:
    """The schema that the header gives, and a function that reads all rows."""
    lines = _lines(location)
    header = _header(location, next(lines, None))
    if next(lines, None) is None:
        raise ManifestError(f"{uri.redact(location)}: has no rows below its header")
    table_schema = pa.schema([*((name, pa.string()) for name in header), schema.LINE_ERROR])
    return table_schema, partial(_read, location, table_schema)


def _header(location: str, line: _Line | None) -> list[str]:
    if line is None:
        raise ManifestError(f"{uri.redact(location)}: is empty; a CSV manifest begins with a header")
    fields, error = line
    if error:
        raise ManifestError(f"{uri.redact(location)}: its header can't be read: {error['message']}")
    names = [name or f"column_{position}" for position, name in enumerate(fields, 1)]
    doubled = [name for name, count in Counter([*names, schema.LINE_ERROR.name]).items() if count > 1]
    if doubled:
        raise ManifestError(f"{uri.redact(location)}: its header has {doubled[0]!r} more than once; rename one")
    return names


def _read(location: str, table_schema: pa.Schema) -> Iterator[pa.Table]:
    lines = _lines(location, len(table_schema) - 1)
    next(lines)
    while batch := list(islice(lines, ROWS_PER_BATCH)):
        columns = zip(*(fields for fields, _ in batch), strict=True)
        arrays = [pa.array(column, pa.string()) for column in columns]
        errors = pa.array([error for _, error in batch], schema.LINE_ERROR.type)
        yield pa.Table.from_arrays([*arrays, errors], schema=table_schema)


def _lines(location: str, num_fields: int | None = None) -> Iterator[_Line]:
    """The header and every row. Blank lines are none; bytes that are not UTF-8 spoil their own line alone."""
    with (
        open_bytes(location) as stream,
        io.TextIOWrapper(stream, encoding="utf-8-sig", errors="surrogateescape", newline="") as text,
    ):
        # Strict: a stray quote ends in an error at its line, instead of a field that swallows the lines below.
        reader = csv.reader(text, strict=True)
        while True:
            first_line = reader.line_num + 1
            try:
                fields = next(reader, None)
                problem = _problem(fields, num_fields)
            except csv.Error as error:
                fields, problem = [], str(error)
            if fields is None:
                return
            if problem:
                yield _bad_line(first_line, reader.line_num, problem, num_fields or 0)
            elif fields:
                yield fields, None


def _problem(fields: list[str] | None, num_fields: int | None) -> str | None:
    if not fields:
        return None
    try:
        "".join(fields).encode()
    except UnicodeEncodeError:
        return "not UTF-8"
    if num_fields is not None and len(fields) != num_fields:
        return f"{len(fields)} fields, and the header has {num_fields}"
    return None


def _bad_line(first: int, last: int, problem: str, num_fields: int) -> _Line:
    where = f"line {first}" if first >= last else f"lines {first} to {last}"
    return [None] * num_fields, {"line": first, "message": f"{where}: {problem}"}  # type: ignore[list-item]
