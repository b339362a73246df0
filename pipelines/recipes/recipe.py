"""What a recipe is: groups of row templates, with choices, loops and shares. Knows no files and no source rows."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property

from omnigen_actor.errors import ConfigError
from omnigen_actor.placeholders import placeholder
from omnigen_actor.tasks import MAX_IMAGES
from pipelines.recipes import templates

PLACEHOLDERS = {f"img{number}": placeholder(number) for number in range(1, MAX_IMAGES + 1)}
"""Names that every template may use for the placeholders of input images."""

MAX_TAKE = 16

_RESERVED = frozenset({"id", "number", "previous", *PLACEHOLDERS})
_NAME = re.compile(r"[A-Za-z_]\w*")


@dataclass(frozen=True, slots=True, kw_only=True)
class Choice:
    """``count`` of ``options``, drawn for each source row: one value, or with a count a list. Either may be a mark."""

    options: object
    count: object = None


@dataclass(frozen=True, slots=True, kw_only=True)
class RowTemplate:
    """One row of a manifest, or with ``loops`` one for each combination of their values.

    ``previous``: what ``{previous}`` is in the first turn of a loop; later it is the row of the turn before.
    """

    cells: Mapping[str, object]
    loops: Mapping[str, object] = field(default_factory=dict)
    previous: object = None


@dataclass(frozen=True, kw_only=True)
class Group:
    """What becomes of one source row, or of ``take`` of them together. Raises ConfigError for what can't be filled.

    ``share``: how much of the manifest it makes, beside the shares of other groups. ``parameters``: names with values;
    a source row's own column of that name wins, and one without a value must be such a column.
    """

    name: str
    rows: Sequence[RowTemplate]
    share: float = 1.0
    take: int = 1
    parameters: Mapping[str, object] = field(default_factory=dict)
    choices: Mapping[str, Choice] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name in [*self.parameters, *self.choices, *(name for row in self.rows for name in row.loops)]:
            if not _NAME.fullmatch(name) or name in _RESERVED:
                raise ConfigError(f"{name!r} can't be a name of its own: it is reserved, or no word")
        if not 1 <= self.take <= MAX_TAKE:
            raise ConfigError(f"take={self.take}: must be between 1 and {MAX_TAKE}")
        if not self.rows:
            raise ConfigError(f"group {self.name!r}: has no rows")
        for row in self.rows:
            missing = [name for name in ("id", "task") if templates.is_blank(row.cells.get(name))]
            if missing:
                raise ConfigError(f"group {self.name!r}: a row needs {' and '.join(missing)}")
        for number in self._numbers():
            if not 1 <= number <= self.take:
                raise ConfigError(f"{{{number}.…}}: there is no source row {number}; take is {self.take}")

    @cached_property
    def columns(self) -> frozenset[str]:
        """The columns that its source rows must bring: names that nothing here gives a value."""
        return frozenset(self._columns())

    def _columns(self) -> Iterator[str]:
        shared = {*_RESERVED, *(name for name, value in self.parameters.items() if not templates.is_blank(value))}
        for choice in self.choices.values():
            yield from _free([choice.options, choice.count], shared)
        shared |= set(self.choices)
        for row in self.rows:
            yield from _free(list(row.loops.values()), shared)
            yield from _free([*row.cells.values(), row.previous], {*shared, *row.loops})

    def _numbers(self) -> Iterator[int]:
        everything = [
            [value for row in self.rows for value in (*row.cells.values(), *row.loops.values(), row.previous)],
            [value for choice in self.choices.values() for value in (choice.options, choice.count)],
        ]
        heads = (path.partition(".")[0] for path in templates.paths(everything))
        return (int(head) for head in heads if head.isdecimal())


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipe:
    """A named set of groups. With several, each source row goes to one of them."""

    name: str
    description: str
    groups: Sequence[Group]
    parameters: Mapping[str, object] = field(default_factory=dict)

    def __post_init__(self) -> None:
        names = [group.name for group in self.groups]
        if len(set(names)) < len(names):
            raise ConfigError(f"recipe {self.name!r}: two groups have the same name: {', '.join(names)}")
        if not any(group.share > 0 for group in self.groups):
            raise ConfigError(f"recipe {self.name!r}: no group has a share above 0")


def _free(values: list[object], known: set[str]) -> Iterator[str]:
    """The columns among the marks of these values; ``{2.image}`` is the column ``image``."""
    for path in templates.paths(values):
        head, _, key = path.partition(".")
        column = key if head.isdecimal() else head
        if (head.isdecimal() or head not in known) and column not in _RESERVED:
            yield column
