"""Lists in a row's parameters -> one row for each combination, with ids that tell them apart. Knows no rules for a row.

``steps: [20, 50]`` is two rows, ``guidance_scale: [2, 3]`` beside it makes four. Lists of width and height of the same
length are sizes: they go in pairs. The id of a combination follows from its values, never from their order or number.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from itertools import product
from math import prod
from typing import Any, NamedTuple

from omnigen_actor.errors import ErrorKind, RowError, Stage
from pipelines import values

SWEPT = ("width", "height", "seed", "steps", "guidance_scale", "img_guidance_scale")
"""The columns that may hold a list."""

MAX_COMBINATIONS = 10_000

Cells = dict[str, Any]
"""The cells of one row under the names that a manifest may bring, as Python values of any type."""


class BadSweep(NamedTuple):
    """A list that can't be expanded: its column, and what is wrong with it."""

    column: str
    error: RowError


def combinations(cells: Cells) -> list[Cells] | BadSweep:
    """The rows that a row's lists ask for; the row itself where it has none."""
    lists = {name: found for name in SWEPT if (found := _list(cells.get(name))) is not None}
    if not lists:
        return [cells]
    problem = next(_problems(lists), None)
    if problem:
        return problem
    return [_combined(cells, chosen) for chosen in _choices(lists)]


def _list(cell: object) -> list[object] | None:
    """A list, also one that a table of texts spells as JSON."""
    if isinstance(cell, str) and cell.lstrip().startswith("["):
        try:
            cell = json.loads(cell)
        except (ValueError, RecursionError):
            return None
    return cell if isinstance(cell, list) else None


def _problems(lists: Mapping[str, list[object]]) -> Iterator[BadSweep]:
    for name, found in lists.items():
        texts = [_text(name, value) for value in found]
        shown = f"{name}={values.shorten(found)}"
        if not found:
            yield _bad(name, f"{shown}: a list must hold a value")
        if None in texts:
            yield _bad(name, f"{shown}: number {texts.index(None) + 1} of the list is no number")
        if len(set(texts)) < len(texts) and not _is_paired(lists, name):
            yield _bad(name, f"{shown}: a value is there twice, which would be the same row")
    if len({name for name in ("width", "height") if name in lists}) == 2:
        pairs = list(zip(lists["width"], lists["height"], strict=False))
        if not len(lists["width"]) == len(lists["height"]) == len(set(map(repr, pairs))):
            yield _bad("width", "lists of width and height are sizes, in pairs: as long as each other, no pair twice")
    count = prod(len(found) for name, found in lists.items() if name != "height" or not _is_paired(lists, name))
    if count > MAX_COMBINATIONS:
        yield _bad(next(iter(lists)), f"the lists make {count} rows: at most {MAX_COMBINATIONS} are allowed")


def _is_paired(lists: Mapping[str, object], name: str) -> bool:
    return name in ("width", "height") and "width" in lists and "height" in lists


def _choices(lists: Mapping[str, Sequence[object]]) -> Iterator[dict[str, object]]:
    """Each combination, by column; width and height change together where both are lists."""
    together = [("width", "height")] if _is_paired(lists, "width") else []
    alone = [(name,) for name in lists if not _is_paired(lists, name)]
    groups = [*together, *alone]
    options = [list(zip(*(lists[name] for name in group), strict=True)) for group in groups]
    for picks in product(*options):
        yield {
            name: value
            for group, pick in zip(groups, picks, strict=True)
            for name, value in zip(group, pick, strict=True)
        }


def _combined(cells: Cells, chosen: Mapping[str, object]) -> Cells:
    """The row with these values. One without an id gets one from its content, which they are part of."""
    row = {**cells, **chosen}
    own = cells.get("id")
    if own is not None and str(own).strip():
        told = ",".join(f"{name}={_text(name, chosen[name])}" for name in SWEPT if name in chosen)
        row["id"] = f"{own}[{told}]"
    return row


def _text(name: str, value: object) -> str | None:
    """A number as an id may hold it: 2, 2.0 and "2" are one value."""
    try:
        found = values.number(name, value)
        whole = values.integer(name, value) if found is not None and found.is_integer() else None
    except RowError:
        return None
    return None if found is None else repr(found) if whole is None else str(whole)


def _bad(column: str, message: str) -> BadSweep:
    return BadSweep(column, RowError(ErrorKind.BAD_PARAMETER, Stage.CHECK, message))
