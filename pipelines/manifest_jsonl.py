"""JSON-lines manifests: a first pass over the whole file settles the type of every column, a second one reads it.

A column's type never depends on the rows that happen to come first, so ``[]`` or null there breaks nothing below.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Callable, Iterator
from functools import partial
from itertools import islice
from typing import Any, BinaryIO

import pyarrow as pa

from omnigen_actor import schema, uri
from omnigen_actor.errors import ManifestError
from pipelines.source import ROWS_PER_BATCH, open_bytes
from pipelines.values import AS_JSON, shorten

MAX_LINE_BYTES = 16 * 2**20
MAX_COLUMNS = 1000
_MAX_DEPTH = 100
_EXACT_IN_FLOAT = 2**53

_Line = tuple[int, dict[str, Any] | str]
"""The line's number, and its object or what is wrong with it."""

_SCALARS: dict[type, set[str]] = {type(None): set(), bool: {"bool"}, float: {"float"}, str: {"string"}}
_STRINGS = pa.list_(pa.string())
_TYPES = {
    frozenset[str](): pa.string(),
    frozenset({"int"}): pa.int64(),
    frozenset({"long"}): pa.int64(),
    frozenset({"int", "long"}): pa.int64(),
    frozenset({"float"}): pa.float64(),
    frozenset({"string"}): pa.string(),
    frozenset({"strings"}): _STRINGS,
}
# Only where the user's own column may lose the difference between 1 and 1.0.
_USER_TYPES = {**_TYPES, frozenset({"int", "float"}): pa.float64(), frozenset({"bool"}): pa.bool_()}


def open_jsonl(location: str) -> tuple[pa.Schema, Callable[[], Iterator[pa.Table]]]:
    """The schema of the whole file, and a function that reads all rows."""
    kinds = _scan(location)
    table_schema = pa.schema([*(_field(name, frozenset(found)) for name, found in kinds.items()), schema.LINE_ERROR])
    return table_schema, partial(_read, location, table_schema)


def _scan(location: str) -> dict[str, set[str]]:
    """Which kinds of values each column holds."""
    kinds: defaultdict[str, set[str]] = defaultdict(set)
    first_problem, num_rows = "", 0
    for number, row in _lines(location):
        if isinstance(row, str):
            first_problem = first_problem or f"line {number}: {row}"
            continue
        num_rows += 1
        for name, value in row.items():
            kinds[name] |= _kind(value)
        if len(kinds) > MAX_COLUMNS:
            raise ManifestError(f"{uri.redact(location)}: more than {MAX_COLUMNS} columns, at line {number}")
    if not num_rows:
        reason = f"no line is a JSON object; {first_problem}" if first_problem else "has no rows"
        raise ManifestError(f"{uri.redact(location)}: {reason}")
    return kinds


def _kind(value: object) -> set[str]:
    if isinstance(value, list):
        return {"strings"} if all(item is None or isinstance(item, str) for item in value) else {"other"}
    if type(value) is int:
        return {"int" if abs(value) <= _EXACT_IN_FLOAT else "long" if -(2**63) <= value < 2**63 else "other"}
    return _SCALARS.get(type(value), {"other"})


def _field(name: str, kinds: frozenset[str]) -> pa.Field:
    """The column's type; JSON texts where no single type holds all its values as they are."""
    own = name in schema.MANIFEST.names
    found = (_TYPES if own else _USER_TYPES).get(kinds)
    if found is not None:
        return pa.field(name, found)
    return pa.field(name, pa.string(), metadata=AS_JSON)


def _read(location: str, table_schema: pa.Schema) -> Iterator[pa.Table]:
    lines = _lines(location)
    while batch := list(islice(lines, ROWS_PER_BATCH)):
        rows = [row if isinstance(row, dict) else {} for _, row in batch]
        arrays = [_column(field, rows) for field in table_schema if field.name != schema.LINE_ERROR.name]
        errors = pa.array([_line_error(line) for line in batch], schema.LINE_ERROR.type)
        yield pa.Table.from_arrays([*arrays, errors], schema=table_schema)


def _column(field: pa.Field, rows: list[dict[str, Any]]) -> pa.Array:
    cells = [row.get(field.name) for row in rows]
    if field.metadata:
        cells = [None if cell is None else json.dumps(cell, ensure_ascii=False) for cell in cells]
    return pa.array(cells, field.type)


def _line_error(line: _Line) -> dict[str, object] | None:
    number, row = line
    return {"line": number, "message": f"line {number}: {row}"} if isinstance(row, str) else None


def _lines(location: str) -> Iterator[_Line]:
    """Every line that is not blank."""
    with open_bytes(location) as stream:
        for number, line in enumerate(_bounded_lines(stream), 1):
            if number == 1 and line.removeprefix(b"\xef\xbb\xbf").lstrip().startswith(b"["):
                raise ManifestError(f"{uri.redact(location)}: is a JSON array; write one object per line (jq -c '.[]')")
            if line.strip():
                yield number, _parse(line.removeprefix(b"\xef\xbb\xbf") if number == 1 else line)


def _bounded_lines(stream: BinaryIO) -> Iterator[bytes]:
    """Lines; of one that is too long only so much that its length shows."""
    while line := stream.readline(MAX_LINE_BYTES + 1):
        rest = line
        while len(rest) > MAX_LINE_BYTES and not rest.endswith(b"\n"):
            rest = stream.readline(MAX_LINE_BYTES + 1)
        yield line


def _parse(line: bytes) -> dict[str, Any] | str:
    """The line's object, or what is wrong with it."""
    if len(line) > MAX_LINE_BYTES:
        return f"longer than {MAX_LINE_BYTES} bytes"
    try:
        text = line.decode().strip()
        row = json.loads(text)
    except UnicodeDecodeError:
        return "not UTF-8"
    except json.JSONDecodeError as error:
        return f"not JSON: {error.msg} at column {error.colno} of {shorten(text)}"
    except (ValueError, RecursionError) as error:  # a number of thousands of digits, brackets without end
        return f"not JSON that can be read: {error}"
    if not isinstance(row, dict):
        return f"a JSON {type(row).__name__}, and a row is an object"
    return _problem(line, row) or row


def _problem(line: bytes, row: dict[str, Any]) -> str | None:
    if schema.LINE_ERROR.name in row:
        return f"the key {schema.LINE_ERROR.name!r} is reserved"
    if line.count(b"[") + line.count(b"{") > _MAX_DEPTH and _is_deep(row):
        return f"nested more than {_MAX_DEPTH} deep"
    try:
        # JSON can spell half of a surrogate pair; no file can hold it.
        json.dumps(row, ensure_ascii=False).encode() if b"\\u" in line else None
    except UnicodeEncodeError:
        return "half of a surrogate pair, which is no text"
    return None


def _is_deep(row: dict[str, Any]) -> bool:
    level: list[Any] = [row]
    for _ in range(_MAX_DEPTH):
        nested = [node.values() if isinstance(node, dict) else node for node in level if isinstance(node, dict | list)]
        level = [child for children in nested for child in children]
    return bool(level)
