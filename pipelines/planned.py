"""Where planned rows come from, as callables for Ray: a staged part, or manifest rows to check. Knows no Ray itself."""

from __future__ import annotations

import io
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.parquet as pq

from omnigen_actor import uri
from omnigen_actor.tasks import DEFAULT_TASKS, TaskTable
from pipelines import check
from pipelines.config import GenerationConfig

PART = pa.schema([pa.field("part", pa.string(), nullable=False)])
"""A table that names staged parts of a plan by their URI."""

_MAX_PART_BYTES = 2**32


@dataclass(frozen=True, slots=True)
class ReadPlan:
    """PART in, the planned rows of those parts out. Raises UriNotFound, UriFailed: no run goes on without its plan."""

    def __call__(self, table: pa.Table) -> pa.Table:
        parts = (uri.read_bytes(part, max_bytes=_MAX_PART_BYTES) for part in table["part"].to_pylist())
        return pa.concat_tables([pq.read_table(io.BytesIO(part)) for part in parts])


@dataclass(frozen=True, slots=True)
class CheckRows:
    """Manifest rows in, planned rows out; rows that are planned already pass unchanged."""

    generation: GenerationConfig
    base_folder: str
    tasks: TaskTable = DEFAULT_TASKS

    def __call__(self, table: pa.Table) -> pa.Table:
        if check.is_planned(table.schema):
            return table
        return check.check_table(table, self.generation, self.base_folder, self.tasks)
