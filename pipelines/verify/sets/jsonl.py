"""JSON lines of training files: rows whose images are paths. Streams; reads no images.

Readers take the types of a file's columns from its beginning, and every key from every row.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

from omnigen_actor import placeholders, uri
from omnigen_actor.errors import first_line
from pipelines.verify.findings import Finding, FindingKind
from pipelines.verify.sets.columns import member
from pipelines.verify.sets.member import Member, Read, Style
from pipelines.verify.sets.source import RowsFile

_MAX_LINE_BYTES = 16 * 2**20


def read_jsonl(root: str, file: RowsFile) -> Iterator[Read]:
    """The rows of a file, and its lines that are none."""
    shape = _Shape(file)
    try:
        with uri.open_read(uri.join(root, file.path)) as stream:
            for number, line in enumerate(iter(lambda: stream.readline(_MAX_LINE_BYTES + 1), b""), 1):
                if len(line) > _MAX_LINE_BYTES:
                    yield _bad(file, number, f"a line of more than {_MAX_LINE_BYTES} bytes: nothing after it is read")
                    return
                if line.strip():
                    yield from _row(line, number, file, shape)
    except OSError as error:
        yield Finding(kind=FindingKind.FILE_UNREADABLE, key=file.path, message=first_line(error))


def _row(line: bytes, number: int, file: RowsFile, shape: _Shape) -> Iterator[Read]:
    try:
        cells = json.loads(line)
    except (ValueError, RecursionError) as error:
        yield _bad(file, number, f"no JSON: {first_line(error)}")
        return
    if not isinstance(cells, dict):
        what = "a list of rows; write a row on each line" if isinstance(cells, list) else "no object"
        yield _bad(file, number, what)
        return
    yield from shape.check(cells, number)
    base = file.folder if any("file_name" in name for name in cells) else ""
    row = member(cells, file=file.path, number=number, split=file.split, style=file.style, base=base)
    yield from shape.check_row(row)
    yield shape.styled(row)


def _bad(file: RowsFile, number: int, message: str) -> Finding:
    return Finding(kind=FindingKind.ROW_UNREADABLE, key=f"{file.path}:{number}", message=message)


class _Shape:
    """What the rows of one file have in common, going by the first ones."""

    def __init__(self, file: RowsFile) -> None:
        self._file = file
        self._keys: frozenset[str] | None = None
        self._is_first_empty: bool | None = None
        self._style = file.style

    def check(self, cells: dict[str, Any], number: int) -> Iterator[Finding]:
        """Whether a row has the keys of the first one."""
        if self._keys is None:
            self._keys = frozenset(cells)
        different = sorted(self._keys ^ cells.keys())
        if different:
            told = ", ".join(f"{name!r} {'missing' if name in self._keys else 'new'}" for name in different[:10])
            message = f"other keys than the first row has: {told}"
            yield Finding(kind=FindingKind.KEYS_DIFFER, key=f"{self._file.path}:{number}", message=message)

    def check_row(self, row: Member) -> Iterator[Finding]:
        """Whether a row has inputs while the first one has none. Told once."""
        if self._is_first_empty is None:
            self._is_first_empty = not row.inputs
        elif self._is_first_empty and row.inputs:
            self._is_first_empty = False
            message = "it has inputs, and the first row has none: readers take the type of the column from that one"
            yield Finding(kind=FindingKind.FIRST_ROW_EMPTY, key=row.key, message=f"{message}; put such rows first")

    def styled(self, row: Member) -> Member:
        """The row, with the style of the file's first row with inputs where nobody has told one."""
        if self._style is Style.ANY and row.inputs:
            has_numbers = bool(placeholders.numbers(placeholders.normalise(row.text)))
            self._style = Style.NUMBERED if has_numbers else Style.PLAIN
        return row if row.style is self._style else replace(row, style=self._style)
