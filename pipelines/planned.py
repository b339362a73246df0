"""Where planned rows come from, as callables for Ray: a staged part, or manifest rows to check. Knows no Ray itself."""

from __future__ import annotations

from dataclasses import dataclass

import pyarrow as pa

from omnigen_actor import uri
from omnigen_actor.allowed import Allowed
from omnigen_actor.tasks import DEFAULT_TASKS, TaskTable
from pipelines import check, references
from pipelines.config import GenerationConfig
from pipelines.levels import read_part


@dataclass(frozen=True, slots=True)
class ReadPlan:
    """PART in, the planned rows of those parts out, their references URIs of the store's images.

    Rows that name what is not ``allowed`` are failed here, where a path is the path of the machine that reads it.
    No rows once there is the mark ``stop``. Raises UriNotFound, UriFailed: no run goes on without its plan.
    """

    store_root: str
    extension: str
    allowed: Allowed
    stop: str | None = None

    def __call__(self, table: pa.Table) -> pa.Table:
        planned = pa.concat_tables(read_part(part) for part in table["part"].to_pylist())
        if self.stop is not None and uri.exists(self.stop):
            return planned.slice(0, 0)
        return check.refuse_places(references.to_store(planned, self.store_root, self.extension), self.allowed)


@dataclass(frozen=True, slots=True)
class CheckRows:
    """Manifest rows in, planned rows out; rows that are planned already pass unchanged."""

    generation: GenerationConfig
    base_folder: str
    tasks: TaskTable = DEFAULT_TASKS
    allowed: Allowed | None = None

    def __call__(self, table: pa.Table) -> pa.Table:
        if check.is_planned(table.schema):
            return table
        planned = references.refuse(check.check_table(table, self.generation, self.base_folder, self.tasks))
        return check.refuse_places(planned, self.allowed) if self.allowed else planned
