"""A recipe and the rows of a source -> the rows of a manifest, one set of source rows at a time. Knows no files.

Source rows that make nothing are told of, each with its reason; nothing else is left out.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field

from omnigen_actor.errors import ConfigError
from omnigen_actor.tasks import DEFAULT_TASKS, TaskTable
from pipelines.recipes.checking import RowCheck
from pipelines.recipes.filling import Places, SourceRow, Unfillable, fill_group
from pipelines.recipes.recipe import Group, Recipe
from pipelines.recipes.shares import Shares
from pipelines.sweeps import Cells


@dataclass(slots=True)
class Account:
    """What has become of the source so far: ``num_source`` = ``num_used`` + ``num_rejected``, once it is read."""

    shares: Shares
    num_source: int = 0
    num_used: int = 0
    num_rejected: int = 0
    num_rows: int = 0
    per_task: Counter[str] = field(default_factory=Counter)

    @property
    def num_images(self) -> int:
        """How many images the manifest asks for."""
        return self.per_task.total()

    @property
    def adds_up(self) -> bool:
        """Whether every source row is accounted for."""
        return self.num_source == self.num_used + self.num_rejected


class Expander:
    """Expands one source; ``account`` says how far it is. ``on_rejected`` hears of every source row that makes nothing.

    Deterministic: choices hang on ``seed``, the group's name and the source row's id alone.
    """

    def __init__(
        self,
        recipe: Recipe,
        places: Places,
        *,
        tasks: TaskTable = DEFAULT_TASKS,
        seed: int = 0,
        on_rejected: Callable[[SourceRow, str], None] = lambda _source, _reason: None,
    ) -> None:
        self._groups = {group.name: group for group in recipe.groups if group.share > 0}
        self._recipe, self._places, self._seed = recipe, places, seed
        self._check = RowCheck(tasks, places.manifest_folder)
        self._waiting: dict[str, list[SourceRow]] = {name: [] for name in self._groups}
        self._on_rejected = on_rejected
        self.account = Account(Shares({group.name: group.share for group in recipe.groups}))

    def rows(self, source: Iterable[SourceRow]) -> Iterator[Cells]:
        """All rows of the manifest, in the order of the source."""
        for source_row in source:
            self.account.num_source += 1
            yield from self._rows_of(source_row)
        for name, waiting in self._waiting.items():
            for source_row in waiting:
                self._reject(source_row, f"is left over: {name} takes {self._groups[name].take} rows at a time")

    def _rows_of(self, source_row: SourceRow) -> list[Cells]:
        group = self._group_for(source_row)
        if group is None:
            return []
        waiting = self._waiting[group.name]
        waiting.append(source_row)
        if len(waiting) < group.take:
            return []
        self._waiting[group.name] = []
        return self._expand(group, waiting)

    def _group_for(self, source_row: SourceRow) -> Group | None:
        if source_row.fault:
            self._reject(source_row, source_row.fault)
            return None
        lacks = {name: sorted(group.columns - set(source_row.cells)) for name, group in self._groups.items()}
        fitting = [name for name, columns in lacks.items() if not columns]
        if fitting:
            return self._groups[self.account.shares.next(fitting)]
        reasons = (f"{name} needs {', '.join(columns)}" for name, columns in lacks.items())
        self._reject(source_row, f"lacks what its recipe needs: {'; '.join(reasons)}")
        return None

    def _expand(self, group: Group, sources: list[SourceRow]) -> list[Cells]:
        try:
            rows = fill_group(group, sources, self._places, self._seed)
            tasks = self._check.tasks_of(rows)
        except Unfillable as fault:
            for source_row in sources:
                self._reject(source_row, str(fault))
            return []
        self.account.num_used += len(sources)
        self.account.num_rows += len(rows)
        self.account.per_task.update(tasks)
        self.account.shares.add(group.name, len(tasks))
        return [{**row, "recipe": self._recipe.name} for row in rows]

    def _reject(self, source_row: SourceRow, reason: str) -> None:
        self.account.num_rejected += 1
        self._on_rejected(source_row, reason)


def check_columns(recipe: Recipe, columns: Iterable[str]) -> None:
    """Raise ConfigError where a group needs a column that the source does not have at all."""
    found = set(columns)
    for group in recipe.groups:
        missing = sorted(group.columns - found)
        if missing and group.share > 0:
            remedy = f"or give group {group.name!r} the share 0" if len(recipe.groups) > 1 else "rename one of them"
            raise ConfigError(
                f"recipe {recipe.name}: needs the column{'s' * (len(missing) > 1)} {', '.join(missing)}; "
                f"the source has {', '.join(sorted(found)) or 'none'}: add what is missing, {remedy}"
            )
