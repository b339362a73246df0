"""The columns that a selection can speak of, by their names: those of the records and of each score. Reads no rows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import pyarrow as pa

from pipelines.selection.terms import Kind, kind_of
from pipelines.settings import nearest

RECORD_SOURCE = "record"
"""What the records are called in a qualified name, beside the names of scores."""


class UnknownColumn(LookupError):  # noqa: N818
    """There is no such column, or more than one. The message names near ones, or all."""


@dataclass(frozen=True, slots=True)
class Column:
    """``source``: RECORD_SOURCE or the name of a score. ``type``: of its first file; others have it or another of its
    kind. ``kind`` is None where files contradict each other.
    """

    source: str
    name: str
    type: pa.DataType
    kind: Kind | None

    @property
    def key(self) -> str:
        """The qualified name."""
        return f"{self.source}.{self.name}"


class Columns:
    """All columns of a store, by ``name`` or by ``source.name``."""

    def __init__(self, schemas: Mapping[str, Sequence[pa.Schema]]) -> None:
        """``schemas``: of the files of each source."""
        self._by_key: dict[str, Column] = {}
        self._by_name: dict[str, list[Column]] = {}
        for source, files in schemas.items():
            for one in _united(source, files):
                self._by_key[one.key] = one
                self._by_name.setdefault(one.name, []).append(one)

    def find(self, name: str) -> Column:
        """Raises UnknownColumn for one that is not there, that two sources have, or whose files are of two kinds."""
        if name in self._by_key and name not in self._by_name:
            found = self._by_key[name]
        elif name not in self._by_name:
            raise UnknownColumn(self._unknown(name))
        elif len(self._by_name[name]) > 1:
            keys = " or ".join(one.key for one in self._by_name[name])
            raise UnknownColumn(f"{name!r} is a column of several: write {keys}")
        else:
            (found,) = self._by_name[name]
        if found.kind is None:
            raise UnknownColumn(f"{name!r} is of another kind in other files of {found.source}: nothing can be asked")
        return found

    def named(self, name: str) -> list[Column]:
        """Every column of this name."""
        return list(self._by_name.get(name, ()))

    def __getitem__(self, key: str) -> Column:
        """The column of a qualified name."""
        return self._by_key[key]

    def shown(self, key: str) -> str:
        """The shortest name of a column that is not ambiguous."""
        name = self._by_key[key].name
        return name if len(self._by_name[name]) == 1 else key

    def _unknown(self, name: str) -> str:
        known = self._by_key if "." in name else self._by_name
        if not known:
            return f"unknown column {name!r}; there are none"
        return f"unknown column {name!r}; the nearest known one is {nearest(name, known)}"


def _united(source: str, schemas: Sequence[pa.Schema]) -> list[Column]:
    types: dict[str, list[pa.DataType]] = {}
    for schema in schemas:
        for field in schema:
            types.setdefault(field.name, []).append(field.type)
    return [_column(source, name, some) for name, some in types.items()]


def _column(source: str, name: str, types: Sequence[pa.DataType]) -> Column:
    filled = [one for one in types if not pa.types.is_null(one)] or [pa.string()]
    kinds = {kind_of(one) for one in filled}
    return Column(source, name, filled[0], kinds.pop() if len(kinds) == 1 else None)
