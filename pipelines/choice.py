"""Which rows a run is to do: conditions on task and id, and a limit. Knows rows by their numbers, no files and no Ray.

What a chosen row needs is chosen with it, and all samples of a row go together.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from fnmatch import translate
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from omnigen_actor.errors import ConfigError, RowError
from omnigen_actor.tasks import TaskTable
from pipelines.graph import Settled
from pipelines.ledger import Standing, Standings, is_to_do

_COMMA = re.compile(r",(?![^\[]*\])")  # one between brackets is part of an id: boat[steps=2,guidance_scale=3]
_WILDCARD = re.compile(r"[*?\[]")

Mask = npt.NDArray[np.bool_]


class Chosen(NamedTuple):
    """For each planned row: whether this run does it, and whether this run answers for it, made now or earlier."""

    is_to_do: Mask
    is_chosen: Mask


class _Ids:
    """Ids as they are, and patterns of ids, with those that no row had yet."""

    def __init__(self, words: Iterable[str]) -> None:
        self.unseen = set(words)
        self._ids = frozenset(self.unseen)
        self._patterns = [(word, re.compile(translate(word))) for word in self._ids if _WILDCARD.search(word)]

    def has(self, row_id: str, task: str | None) -> bool:  # noqa: ARG002
        found = {word for word, pattern in self._patterns if pattern.match(row_id)} | ({row_id} & self._ids)
        self.unseen -= found
        return bool(found)


class _Tasks:
    """Tasks by any of their names."""

    def __init__(self, words: Iterable[str], tasks: TaskTable) -> None:
        try:
            self._names = {tasks.find(word).name for word in words}
        except RowError as error:
            raise ConfigError(f"only: {error.message}") from None
        self.unseen: set[str] = set()

    def has(self, row_id: str, task: str | None) -> bool:  # noqa: ARG002
        return task in self._names


class Choice:
    """What ``only`` and ``limit`` say. Sees every planned row once, in the manifest's order."""

    def __init__(self, only: Sequence[str], limit: int | None, tasks: TaskTable) -> None:
        """Raises ConfigError for a condition that is none, or of an unknown task."""
        self.is_open = not only and limit is None
        """Whether every row is chosen."""
        self._only = only
        self._limit = limit
        self._conditions = [_condition(text, tasks) for text in only]
        self._last_id: str | None = None
        self._is_first: list[Mask] = []
        self._is_named: list[Mask] = []

    def see(self, planned: pa.Table) -> None:
        """Take in planned rows; the samples of one stand together."""
        ids, tasks = planned["id"].to_pylist(), planned["task"].to_pylist()
        is_first = np.array(
            [one != before for one, before in zip(ids, [self._last_id, *ids], strict=False)], dtype=bool
        )
        self._last_id = ids[-1] if ids else self._last_id
        self._is_first.append(is_first)
        rows = list(zip(ids, tasks, strict=True))
        # Every condition sees every row: it has to know which of its words no row has.
        named = [np.array([condition.has(*row) for row in rows], dtype=bool) for condition in self._conditions]
        self._is_named.append(np.logical_and.reduce([np.ones(len(rows), dtype=bool), *named]))

    def settle(self, standing: Standings, settled: Settled) -> Chosen:
        """What this run does. Raises ConfigError where no row is chosen, or none with what it needs fits the limit."""
        to_do = is_to_do(standing)
        if self.is_open:
            return Chosen(to_do, np.ones(len(standing), dtype=bool))
        is_named = np.concatenate([np.empty(0, bool), *self._is_named])
        self._check_seen(is_named)
        row = np.cumsum(np.concatenate([np.empty(0, bool), *self._is_first])) - 1
        taken = self._take(np.unique(row[is_named & to_do]).tolist(), _needs(to_do, row, settled))
        is_taken = np.isin(row, np.fromiter(taken, np.int64, len(taken)))
        done_now = to_do & is_taken
        return Chosen(done_now, (is_named | is_taken) & ~(to_do & ~done_now))

    def _check_seen(self, is_named: Mask) -> None:
        unseen = sorted(word for condition in self._conditions for word in condition.unseen)
        if unseen:
            raise ConfigError(f"only: no row of the manifest has the id {unseen[0]!r}")
        if self._only and not is_named.any():
            raise ConfigError(f"only: no row of the manifest is of {' and '.join(self._only)}")

    def _take(self, wanted: Sequence[int], needs: dict[int, set[int]]) -> set[int]:
        """Manifest rows in their order, each with what it needs, as long as they fit the limit."""
        taken: set[int] = set()
        too_many: list[int] = []
        for one in wanted:
            more = _with_needs(one, needs, taken)
            if self._limit is None or len(taken) + len(more) <= self._limit:
                taken |= more
            else:
                too_many.append(len(more))
            if len(taken) == self._limit:
                break
        if wanted and not taken:
            raise ConfigError(
                f"limit={self._limit}: each chosen row needs others that are not done; {min(too_many)} are the fewest"
            )
        return taken


def follow_parents(standing: Standings, settled: Settled) -> None:
    """Let skipped rows be done again whose parents all have an image, or are done again themselves. In place."""
    skipped = np.flatnonzero(standing[settled.child] == Standing.SKIPPED)
    for index in skipped[np.argsort(settled.depth[skipped], kind="stable")]:
        parents = settled.parent[settled.first[index] : settled.first[index + 1]]
        if not np.isin(standing[parents], (Standing.FAILED, Standing.SKIPPED)).any():
            standing[settled.child[index]] = Standing.AGAIN


def _condition(text: str, tasks: TaskTable) -> _Ids | _Tasks:
    name, equals, listed = text.partition("=")
    words = [word for part in _COMMA.split(listed) if (word := part.strip())]
    if not equals or not words or name not in {"task", "id"}:
        raise ConfigError(f"only={text!r}: must be task=NAME or id=ID, or several of them with commas between")
    return _Ids(words) if name == "id" else _Tasks(words, tasks)


def _needs(to_do: Mask, row: npt.NDArray[np.int64], settled: Settled) -> dict[int, set[int]]:
    """For each manifest row: the rows that are to do before it."""
    found: dict[int, set[int]] = {}
    for index in np.flatnonzero(to_do[settled.child]):
        parents = settled.parent[settled.first[index] : settled.first[index + 1]]
        own = set(row[parents[to_do[parents]]].tolist())
        if own:
            found.setdefault(int(row[settled.child[index]]), set()).update(own)
    return found


def _with_needs(one: int, needs: dict[int, set[int]], taken: set[int]) -> set[int]:
    """The row and all that it comes from, without what is taken already."""
    found: set[int] = set()
    left = [one]
    while left:
        row = left.pop()
        if row not in taken and row not in found:
            found.add(row)
            left += needs.get(row, ())
    return found
