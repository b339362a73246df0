"""A manifest table -> a planned table: every sample its own row, every fault an error column, every user column kept.

Knows no contents of files, no rules for a row (they are in ``rows``) and no record of earlier runs.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from omnigen_actor import schema, uri
from omnigen_actor.allowed import Allowed
from omnigen_actor.errors import ErrorKind, Stage
from omnigen_actor.tasks import DEFAULT_TASKS, TaskTable
from pipelines import references, values
from pipelines.config import GenerationConfig
from pipelines.rows import PlannedRow, check_row
from pipelines.sweeps import BadSweep, Cells, combinations

_LINE_ERROR = schema.LINE_ERROR.name


class Checked(NamedTuple):
    """Planned rows, and for each the manifest row, within its table, and the combination of it that asked for it.

    ``combination`` counts on from row to row; all samples of one have the same.
    """

    table: pa.Table
    row_index: npt.NDArray[np.int64]
    combination: npt.NDArray[np.int64]


def check_table(
    table: pa.Table, generation: GenerationConfig, base_folder: str, tasks: TaskTable = DEFAULT_TASKS
) -> pa.Table:
    """All planned rows of a manifest table: schema PLAN, then the user's columns. Never raises for a row."""
    return pa.concat_tables(part.table for part in check_parts(table, generation, base_folder, tasks))


def check_parts(
    table: pa.Table,
    generation: GenerationConfig,
    base_folder: str,
    tasks: TaskTable = DEFAULT_TASKS,
    *,
    rows_per_part: int = 16_384,
) -> Iterator[Checked]:
    """The same in parts of about ``rows_per_part`` planned rows, at least one; no manifest row is split over two."""
    users = _user_columns(table)
    planned: list[PlannedRow] = []
    origins: list[tuple[int, int]] = []
    for index, cells in enumerate(_own_cells(table)):
        for samples in check_cells(cells, generation, base_folder, tasks):
            combination = origins[-1][1] + 1 if origins else 0
            planned.extend(samples)
            origins.extend([(index, combination)] * len(samples))
        if len(planned) >= rows_per_part:
            yield _part(planned, origins, users)
            planned, origins = [], []
    if planned or not table.num_rows:
        yield _part(planned, origins, users)


def check_cells(
    cells: Cells, generation: GenerationConfig, base_folder: str, tasks: TaskTable
) -> Iterator[list[PlannedRow]]:
    """The samples of each row that one row's cells stand for: several where it has lists. Never raises for a value."""
    found = combinations(cells)
    if isinstance(found, BadSweep):
        yield check_row(cells, generation, base_folder, tasks, bad_sweep=found)
        return
    for row in found:
        yield check_row(row, generation, base_folder, tasks)


def refuse_places(planned: pa.Table, allowed: Allowed) -> pa.Table:
    """Planned rows with those failed that name an image which they may not read.

    The hash of a row stays as it is: where images lie takes no part in what a row is.
    """
    refusals: dict[str, str] = {}
    found: dict[int, str] = {}
    for index, image_uris in enumerate(planned["image_uris"].to_pylist()):
        for image_uri in image_uris:
            if image_uri not in refusals:
                refusals[image_uri] = _refusal(image_uri, allowed)
        found |= next(({index: refusals[one]} for one in image_uris if refusals[one]), {})
    return references.with_errors(planned, found, ErrorKind.REFUSED, Stage.CHECK)


def _refusal(image_uri: str, allowed: Allowed) -> str:
    try:
        allowed.check(image_uri)
    except uri.Refused as error:
        return f"image {values.shorten(uri.redact(image_uri))}: {error}"
    except ValueError:  # no URL at all: its reading tells
        pass
    return ""


def is_planned(table_schema: pa.Schema) -> bool:
    """Whether a table has been checked already."""
    return set(schema.PLAN.names) <= set(table_schema.names)


def planned_schema(manifest_schema: pa.Schema) -> pa.Schema:
    """The schema that ``check_table`` gives for a manifest of that schema."""
    return schema.with_user_fields(schema.PLAN, _user_columns(manifest_schema.empty_table()).schema)


def _own_cells(table: pa.Table) -> Iterator[Cells]:
    """The cells of each row under the names that a manifest may bring; for a doubled name the first column counts."""
    positions = {name: table.schema.names.index(name) for name in _manifest_names(table.schema)}
    columns = [values.read_column(table, position) for position in positions.values()]
    for index in range(table.num_rows):
        yield {name: column[index] for name, column in zip(positions, columns, strict=True)}


def _manifest_names(table_schema: pa.Schema) -> list[str]:
    names = [name for name in schema.MANIFEST.names if name in table_schema.names]
    return [*names, _LINE_ERROR] if schema.LINE_ERROR in list(table_schema) else names


def _user_columns(table: pa.Table) -> pa.Table:
    """The columns that are the user's own; one whose name this project owns becomes ``manifest_<name>``."""
    owned = {table.schema.names.index(name) for name in _manifest_names(table.schema)}
    taken = set(table.schema.names) | schema.OWNED_COLUMNS
    columns, fields = [], []
    for position, user_field in enumerate(table.schema):
        if position in owned:
            continue
        name = user_field.name
        while name in (taken if name != user_field.name else schema.OWNED_COLUMNS):
            name = f"manifest_{name}"
        taken.add(name)
        fields.append(user_field.with_name(name))
        columns.append(table.column(position))
    return pa.Table.from_arrays(columns, schema=pa.schema(fields))


def _part(planned: list[PlannedRow], origins: list[tuple[int, int]], users: pa.Table) -> Checked:
    columns = zip(*planned, strict=True) if planned else ([] for _ in schema.PLAN)
    arrays = [pa.array(column, own.type) for column, own in zip(columns, schema.PLAN, strict=True)]
    table = pa.Table.from_arrays(arrays, schema=schema.PLAN)
    indices, combination = np.asarray(origins, dtype=np.int64).reshape(-1, 2).T
    for user_field, column in zip(users.schema, _taken(users, indices), strict=True):
        table = table.append_column(user_field, column)
    return Checked(table, indices, combination)


def _taken(users: pa.Table, indices: npt.NDArray[np.int64]) -> list[pa.ChunkedArray]:
    if not len(indices) or not users.num_columns:
        return list(users.slice(0, 0).columns)
    first, num_rows = int(indices[0]), len(indices)
    if indices[-1] - first + 1 == num_rows:  # one sample each: no copy
        return list(users.slice(first, num_rows).columns)
    return list(users.take(indices).columns)
