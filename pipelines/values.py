"""One cell of a manifest, of any type -> one typed value, or a RowError. Knows no rows, no defaults and no ranges.

CSV brings strings everywhere, pandas turns integers with gaps into floats, JSON mixes all of them: ``512``, ``"512"``
and ``512.0`` are the same whole number, and a blank string is a missing value.
"""

from __future__ import annotations

import json
import math
import reprlib
from decimal import Decimal

import pyarrow as pa

from omnigen_actor.errors import ErrorKind, RowError, Stage

AS_JSON = {b"cells": b"json"}
"""Metadata of a field whose cells are JSON texts, because the values have more than one type."""

_LONGEST_SHOWN = 80
_SHORT = reprlib.Repr()
_SHORT.maxlevel = 2
_SHORT.maxother = _SHORT.maxstring = _LONGEST_SHOWN


class Unreadable:
    """Stands for a cell that Arrow can't give to Python, such as text that is not UTF-8."""

    def __repr__(self) -> str:
        return "<unreadable bytes>"


def read_column(table: pa.Table, index: int) -> list[object]:
    """The cells of a column as Python values; never raises for a value."""
    column = table.column(index)
    try:
        cells = column.to_pylist()
    except (ValueError, ArithmeticError, pa.ArrowException):
        cells = [_read_cell(scalar) for scalar in column]
    if (table.schema.field(index).metadata or {}).items() >= AS_JSON.items():
        return [_from_json(cell) for cell in cells]
    return list(cells)


def text(name: str, value: object, kind: ErrorKind) -> str | None:
    """A string; a whole number is written out, blank is None."""
    if value is None:
        return None
    if isinstance(value, str):
        return value if value and not value.isspace() else None
    if _is_number(value) and (whole := _whole(value)) is not None:
        return str(whole)
    raise _bad(kind, f"{name}={shorten(value)}: must be text")


def integer(name: str, value: object, kind: ErrorKind = ErrorKind.BAD_PARAMETER) -> int | None:
    """A whole number of any form; blank is None."""
    if value is None:
        return None
    parsed = _parse(value)
    if parsed is None:
        return None
    whole = _whole(parsed)
    if whole is None or abs(whole) >= 2**64:
        raise _bad(kind, f"{name}={shorten(value)}: must be a whole number")
    return whole


def number(name: str, value: object) -> float | None:
    """A finite number of any form; blank is None."""
    if value is None:
        return None
    parsed = _parse(value)
    if parsed is None:
        return None
    try:
        found = float(parsed)  # type: ignore[arg-type]  # what is no number raises
    except (TypeError, ValueError, OverflowError):
        found = math.nan
    if not math.isfinite(found):
        raise _bad(ErrorKind.BAD_PARAMETER, f"{name}={shorten(value)}: must be a finite number")
    return found


def uri_list(name: str, value: object) -> list[str]:
    """A list of URIs from a list, one URI, or a JSON list in a string; blank is no URI."""
    if value is None:
        return []
    if isinstance(value, str):
        value = _split(name, value.strip())
    if not isinstance(value, list):
        raise _bad(ErrorKind.BAD_URI, f"{name}={shorten(value)}: must be a list of URIs, or one URI")
    for position, item in enumerate(value, 1):
        if not isinstance(item, str) or not item.strip() or not _is_unicode(item):
            raise _bad(ErrorKind.BAD_URI, f"{name}: number {position} is {shorten(item)}; every image needs a URI")
    return value


def shorten(value: object) -> str:
    """A value as a message may show it: strings shortened to a readable length, and bytes not at all."""
    if isinstance(value, bytes | bytearray | memoryview):
        return f"<{len(value)} bytes>"
    if isinstance(value, str) and len(value) > _LONGEST_SHOWN:
        return f"{value[:_LONGEST_SHOWN]!r}… ({len(value)} characters)"
    return _SHORT.repr(value)


def _read_cell(scalar: pa.Scalar) -> object:
    try:
        return scalar.as_py()
    except (ValueError, ArithmeticError, pa.ArrowException):
        return Unreadable()


def _from_json(cell: object) -> object:
    if not isinstance(cell, str):
        return cell
    try:
        value = json.loads(cell)
        return value if "\\u" not in cell or _is_unicode(json.dumps(value, ensure_ascii=False)) else Unreadable()
    except (ValueError, RecursionError):
        return Unreadable()


def _is_unicode(item: str) -> bool:
    """Whether it can be written as UTF-8: half of a surrogate pair, which JSON can spell, can't."""
    try:
        item.encode()
    except UnicodeEncodeError:
        return False
    return True


def _is_number(value: object) -> bool:
    return isinstance(value, int | float | Decimal) and not isinstance(value, bool)


def _parse(value: object) -> object | None:
    """A number for a string that holds one, None for blank; else the value itself, whatever it is."""
    if not isinstance(value, str):
        return value if _is_number(value) else Unreadable()
    stripped = value.strip()
    if not stripped:
        return None
    if not stripped.isascii() or "_" in stripped:  # Python's own spellings, no other tool's
        return Unreadable()
    for parse in (int, float):
        try:
            return parse(stripped)
        except ValueError:
            continue
    return Unreadable()


def _whole(value: object) -> int | None:
    if isinstance(value, int):
        return value
    try:
        whole = int(value)  # type: ignore[call-overload]  # what is no number raises
    except (TypeError, ValueError, OverflowError):
        return None
    return int(whole) if whole == value else None


def _split(name: str, stripped: str) -> object:
    if not stripped.startswith("["):
        return [stripped] if stripped else []
    try:
        return json.loads(stripped)
    except (ValueError, RecursionError):
        raise _bad(ErrorKind.BAD_URI, f"{name}={shorten(stripped)}: starts like a JSON list, and is none") from None


def _bad(kind: ErrorKind, message: str) -> RowError:
    return RowError(kind, Stage.CHECK, message)
