"""The rows that came of one set of source rows against the rules of a manifest, references among them too.

Knows no source and no files. What passes here passes the check of a run, where its images can be read.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from graphlib import CycleError, TopologicalSorter
from hashlib import blake2b
from typing import cast

from omnigen_actor import schema
from omnigen_actor.tasks import TaskTable
from pipelines.check import check_cells
from pipelines.config import GenerationConfig
from pipelines.recipes.filling import Unfillable
from pipelines.rows import PlannedRow
from pipelines.sweeps import Cells

_ID, _SAMPLE, _ERROR, _TASK, _PARENTS = map(schema.PLAN.get_field_index, ("id", "sample", "error", "task", "parents"))


class RowCheck:
    """Checks set after set. Memory grows by about 100 bytes for each id."""

    def __init__(self, tasks: TaskTable, manifest_folder: str) -> None:
        self._tasks, self._manifest_folder = tasks, manifest_folder
        self._seen: set[bytes] = set()

    def tasks_of(self, rows: Sequence[Cells]) -> list[str]:
        """The task of each image that these rows ask for. Raises Unfillable for the first fault among them."""
        planned = [sample for row in rows for sample in self._planned(row)]
        for sample in planned:
            if sample[_ERROR]:
                raise Unfillable(f"row {sample[_ID]!r}: {sample[_ERROR]}")
        _check_references(planned)
        self._check_ids({str(sample[_ID]) for sample in planned}, [str(row["id"]) for row in rows])
        return [str(sample[_TASK]) for sample in planned]

    def _planned(self, row: Cells) -> Iterator[PlannedRow]:
        for samples in check_cells(row, GenerationConfig(), self._manifest_folder, self._tasks):
            yield from samples

    def _check_ids(self, ids: set[str], written: Sequence[str]) -> None:
        if len(set(written)) < len(written):
            raise Unfillable(f"makes the id {next(one for one in written if written.count(one) > 1)!r} twice")
        digests = {blake2b(row_id.encode(), digest_size=12).digest(): row_id for row_id in ids}
        doubled = sorted(row_id for digest, row_id in digests.items() if digest in self._seen)
        if doubled:
            raise Unfillable(f"makes row {doubled[0]!r}, which an earlier source row made: give them different ids")
        self._seen.update(digests)


def _check_references(planned: Sequence[PlannedRow]) -> None:
    made = {f"{sample[_ID]}#{sample[_SAMPLE]}" for sample in planned}
    graph: dict[str, set[str]] = {}
    for sample in planned:
        parents = cast("list[str]", sample[_PARENTS])
        unknown = [parent for parent in parents if parent not in made]
        if unknown:
            raise Unfillable(f"row {sample[_ID]!r} refers to {unknown[0]!r}, which is not made of the same source rows")
        graph[str(sample[_ID])] = {parent.rpartition("#")[0] for parent in parents}
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        raise Unfillable(f"rows refer to each other in a circle: {' -> '.join(error.args[1])}") from None
