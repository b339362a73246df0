"""Where planned rows come from, as callables for Ray: a staged part, or manifest rows to check. Knows no Ray itself."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.parquet as pq

from omnigen_actor import uri
from omnigen_actor.tasks import DEFAULT_TASKS, TaskTable
from pipelines import check, references
from pipelines.config import GenerationConfig

PART = pa.schema([pa.field("part", pa.string(), nullable=False)])
"""A table that names staged parts of a plan by their URI."""

_MAX_PART_BYTES = 2**32


@dataclass(frozen=True, slots=True)
class ReadPlan:
    """PART in, the planned rows of those parts out, their references URIs of the store's images.

    Raises UriNotFound, UriFailed: no run goes on without its plan.
    """

    store_root: str
    extension: str

    def __call__(self, table: pa.Table) -> pa.Table:
        planned = pa.concat_tables(_read_part(part) for part in table["part"].to_pylist())
        return references.to_store(planned, self.store_root, self.extension)


def skip_orphans(parts: Sequence[str], causes: dict[str, str]) -> None:
    """Write the parts anew in which rows have lost a parent; ``causes`` as in ``references.skip_children``."""
    for part in parts:
        planned = _read_part(part)
        marked = references.skip_children(planned, causes)
        if marked is not planned:
            sink = pa.BufferOutputStream()
            pq.write_table(marked, sink, compression="zstd")
            uri.write_bytes(part, sink.getvalue().to_pybytes())


def _read_part(part: str) -> pa.Table:
    return pq.read_table(io.BytesIO(uri.read_bytes(part, max_bytes=_MAX_PART_BYTES)))


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
