"""Where planned rows come from, as callables for Ray: a staged part, or manifest rows to check. Knows no Ray itself."""

from __future__ import annotations

from dataclasses import dataclass

import pyarrow as pa

from omnigen_actor.tasks import DEFAULT_TASKS, TaskTable
from pipelines import check, references
from pipelines.config import GenerationConfig
from pipelines.levels import read_part


@dataclass(frozen=True, slots=True)
class ReadPlan:
    """PART in, the planned rows of those parts out, their references URIs of the store's images.

    Raises UriNotFound, UriFailed: no run goes on without its plan.
    """

    store_root: str
    extension: str

    def __call__(self, table: pa.Table) -> pa.Table:
        planned = pa.concat_tables(read_part(part) for part in table["part"].to_pylist())
        return references.to_store(planned, self.store_root, self.extension)


@dataclass(frozen=True, slots=True)
class CheckRows:
    """Manifest rows in, planned rows out; rows that are planned already pass unchanged."""

    generation: GenerationConfig
    base_folder: str
    tasks: TaskTable = DEFAULT_TASKS

    def __call__(self, table: pa.Table) -> pa.Table:
        if check.is_planned(table.schema):
            return table
        return references.refuse(check.check_table(table, self.generation, self.base_folder, self.tasks))
