"""The manifest in one pass on the driver: checked, ids compared, what is done left out, the rest written as plan parts.

Knows no images, no engine and no cluster. Rows only pass through; memory grows by about 130 bytes for each manifest
row (its id's digest, to find duplicates) and by 32 for each planned row (its digests, for the audit after the run).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass, field
from hashlib import blake2b

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from omnigen_actor import schema, store, uri
from omnigen_actor.errors import ManifestError, OutputError
from omnigen_actor.tasks import DEFAULT_TASKS, TaskTable
from pipelines import values
from pipelines.check import Checked, check_parts, planned_schema
from pipelines.config import GenerationConfig, RunConfig
from pipelines.graph import Graph
from pipelines.ledger import DIGEST, Digests, Ledger, digest
from pipelines.levels import Level
from pipelines.manifest import Manifest
from pipelines.references import mark_skipped, replace_columns
from pipelines.spool import Spool

ROWS_PER_PART = 4096
ROWS_PER_ROW_GROUP = 512


@dataclass(frozen=True, slots=True, kw_only=True)
class PlanSummary:
    """What a run has before it.

    ``levels``: what is to do, by the depth of the rows: those of one level need only levels before it.

    ``num_rows`` counts the manifest's rows, all others (id, sample) pairs: ``num_planned`` = ``num_done`` +
    ``num_to_do``, and ``num_bad`` of the planned failed their check. ``num_duplicates`` rows repeat another in
    everything and are planned once. ``pixel_steps`` is the work ahead: output pixels × steps, taking the largest input
    size where the input gives the size. Tasks that don't exist count as ``unknown``. ``digests`` has every planned row.
    """

    plan_uri: str
    levels: tuple[Level, ...]
    num_rows: int
    num_duplicates: int
    num_planned: int
    num_bad: int
    num_done: int
    num_to_do: int
    num_per_task: dict[str, int]
    pixel_steps: int
    digests: Digests = field(repr=False)

    @property
    def part_uris(self) -> tuple[str, ...]:
        """The parts of all levels, in the order in which they can be made."""
        return tuple(part for level in self.levels for part in level.parts)


def stage_plan(
    manifest: Manifest,
    config: RunConfig,
    ledger: Ledger,
    store_root: str,
    run_id: str,
    *,
    tasks: TaskTable = DEFAULT_TASKS,
) -> PlanSummary:
    """Check every row and write what is to do to ``plan/<run_id>/part-*.parquet``; nothing when nothing is to do.

    Raises ManifestError when two rows of different content share an id, or when the manifest can't be read to its end;
    OutputError when the store can't be written.
    """
    plan_uri = uri.join(store_root, store.PLAN, run_id)
    part_schema = planned_schema(manifest.schema)
    levels, counts, graph = _Levels(plan_uri, part_schema), _Counts(), Graph()
    with closing(Spool(part_schema)) as spool:
        for planned in _unique_rows(manifest, config.generation, tasks, counts):
            digests = digest(planned)
            is_child = pa.array(graph.add(planned, digests))
            spool.add(planned.filter(is_child))
            roots = planned.filter(pc.invert(is_child))
            to_do = ledger.split(roots, retry_failed=config.retry_failed)
            counts.add(roots, digests[~np.asarray(is_child)], to_do, config.generation, tasks)
            levels.add(to_do)
        for planned, orphans in _settled(graph, spool, ledger, retry_failed=config.retry_failed):
            to_do = ledger.split(mark_skipped(planned, orphans), retry_failed=config.retry_failed)
            counts.add(planned, digest(planned), to_do, config.generation, tasks)
            levels.add(to_do)
    return PlanSummary(
        plan_uri=plan_uri,
        levels=levels.finish(),
        num_rows=counts.num_rows,
        num_duplicates=counts.num_duplicates,
        num_planned=counts.num_planned,
        num_bad=counts.num_bad,
        num_done=counts.num_planned - counts.num_to_do,
        num_to_do=counts.num_to_do,
        num_per_task=dict(counts.per_task.most_common()),
        pixel_steps=counts.pixel_steps,
        digests=np.concatenate([np.empty(0, DIGEST), *counts.digests]),
    )


@dataclass(slots=True)
class _Counts:
    """The figures of the summary while they grow."""

    num_rows: int = 0
    num_duplicates: int = 0
    num_planned: int = 0
    num_bad: int = 0
    num_to_do: int = 0
    pixel_steps: int = 0
    per_task: Counter[str] = field(default_factory=Counter)
    digests: list[Digests] = field(default_factory=list)

    def add(
        self, planned: pa.Table, digests: Digests, to_do: pa.Table, generation: GenerationConfig, tasks: TaskTable
    ) -> None:
        self.num_planned += planned.num_rows
        self.num_bad += planned.num_rows - planned.column("error_kind").null_count
        self.num_to_do += to_do.num_rows
        self.pixel_steps += _pixel_steps(to_do, generation.max_input_image_size)
        self.per_task.update(task if task in tasks else "unknown" for task in planned.column("task").to_pylist())
        self.digests.append(digests)


def _pixel_steps(to_do: pa.Table, largest_side: int) -> int:
    good = to_do.filter(pc.is_null(to_do.column("error_kind")))
    sides = [pc.fill_null(good.column(name).cast(pa.int64()), largest_side) for name in ("width", "height")]
    work = pc.multiply(pc.multiply(*sides), good.column("steps").cast(pa.int64()))
    return int(pc.sum(work).as_py() or 0)


# --- references ---


def _settled(
    graph: Graph, spool: Spool, ledger: Ledger, *, retry_failed: bool
) -> Iterator[tuple[pa.Table, dict[int, str]]]:
    """The rows that refer to others, with their depth and what they come from; and messages for those, by their place,
    whose parents have no image from an earlier run and are not tried again.
    """
    if not graph.num_children:
        return
    settled = graph.settle(spool.ids)
    is_lost = ledger.lost(settled.parents) & (not retry_failed)
    start = 0
    for table in spool.read():
        stop = start + table.num_rows
        columns = {"depth": settled.depth[start:stop].tolist(), "row_hash": settled.row_hash[start:stop]}
        orphans = {}
        for index, parents in enumerate(table["parents"].to_pylist()):
            first = settled.first[start + index]
            lost = next((parent for place, parent in enumerate(parents) if is_lost[first + place]), None)
            if lost is not None:
                orphans[index] = f"row {lost!r} has no image since an earlier run; --retry-failed tries it again"
        yield replace_columns(table, columns), orphans
        start = stop


# --- duplicates ---


def _unique_rows(
    manifest: Manifest, generation: GenerationConfig, tasks: TaskTable, counts: _Counts
) -> Iterator[pa.Table]:
    """The planned rows of the manifest, those of a repeated row left out and counted."""
    seen: dict[bytes, int] = {}
    for batch in manifest.batches():
        for checked in check_parts(batch, generation, manifest.base_folder, tasks, rows_per_part=ROWS_PER_PART):
            is_new = _find_new(checked, batch, counts.num_rows, seen)
            counts.num_duplicates += int(np.sum(~is_new))
            yield checked.table if is_new.all() else checked.table.filter(pa.array(is_new[checked.combination]))
        counts.num_rows += batch.num_rows


def _find_new(checked: Checked, batch: pa.Table, num_before: int, seen: dict[bytes, int]) -> npt.NDArray[np.bool_]:
    """For each combination of a part: whether its id is new. Remembers its row's number and content under the id."""
    _, first = np.unique(checked.combination, return_index=True)
    rows = checked.row_index[first]
    num_samples = np.diff(first, append=len(checked.combination))
    digests = digest(checked.table)[first]
    own = zip(_chunks(digests["key"]), _chunks(digests["content"]), strict=True)
    users = zip(*_user_cells(checked.table, first), strict=True)
    is_new = np.ones(len(rows), dtype=bool)
    for position, (key, row_hash) in enumerate(own):
        content = _content(row_hash, int(num_samples[position]), next(users, ()))
        number = num_before + int(rows[position]) + 1
        earlier = seen.setdefault(key, number << 64 | content)
        is_new[position] = earlier >> 64 == number
        if not is_new[position] and earlier & _MASK_64 != content:
            row_id = checked.table.column("id")[int(first[position])].as_py()
            raise ManifestError(_clash(row_id, earlier >> 64, number, has_id=_has_id(batch, int(rows[position]))))
    return is_new


_MASK_64 = 2**64 - 1


def _content(row_hash: bytes, num_samples: int, user_cells: tuple[object, ...]) -> int:
    text = repr((row_hash, num_samples, user_cells))
    return int.from_bytes(blake2b(text.encode(errors="surrogatepass"), digest_size=8).digest(), "big")


def _chunks(digests: npt.NDArray[np.bytes_]) -> list[bytes]:
    """The digests as bytes, with the trailing zeros that numpy's own items lose."""
    whole = np.ascontiguousarray(digests).tobytes()
    return [whole[start : start + 16] for start in range(0, len(whole), 16)]


def _user_cells(table: pa.Table, positions: npt.NDArray[np.int64]) -> list[list[object]]:
    users = table.select([one.name for one in schema.user_fields(table.schema)]).take(positions)
    return [values.read_column(users, index) for index in range(users.num_columns)]


def _has_id(batch: pa.Table, row: int) -> bool:
    return "id" in batch.column_names and batch.column("id")[row].is_valid


def _clash(row_id: str, earlier: int, number: int, *, has_id: bool) -> str:
    if has_id:
        return (
            f"rows {earlier} and {number} of the manifest have the same id {row_id!r} and different content; rename one"
        )
    return (
        f"rows {earlier} and {number} of the manifest ask for the same image, have no id (made from their content: "
        f"{row_id!r}) and differ in other columns; give them ids"
    )


# --- parts ---


class _Levels:
    """Parts of the plan by the depth of their rows."""

    def __init__(self, plan_uri: str, part_schema: pa.Schema) -> None:
        self._plan_uri = plan_uri
        self._schema = part_schema
        self._parts: dict[int, _Parts] = {}

    def add(self, rows: pa.Table) -> None:
        for depth in pc.unique(rows["depth"]).to_pylist():
            if depth not in self._parts:
                folder = uri.join(self._plan_uri, f"depth-{depth:04d}") if depth else self._plan_uri
                self._parts[depth] = _Parts(folder, self._schema)
            self._parts[depth].add(rows.filter(pc.equal(rows["depth"], depth)))

    def finish(self) -> tuple[Level, ...]:
        """Write what is left. Each level that has rows, lowest depth first."""
        return tuple(self._parts[depth].finish(depth) for depth in sorted(self._parts))


class _Parts:
    """Collects rows and writes them as Parquet files of ROWS_PER_PART rows."""

    def __init__(self, plan_uri: str, part_schema: pa.Schema) -> None:
        self._uris: list[str] = []
        self._num_rows = 0
        self._plan_uri = plan_uri
        self._rows = part_schema.empty_table()

    def add(self, rows: pa.Table) -> None:
        self._rows = pa.concat_tables([self._rows, rows.cast(self._rows.schema)])
        while self._rows.num_rows >= ROWS_PER_PART:
            self._write(self._rows.slice(0, ROWS_PER_PART))
            self._rows = self._rows.slice(ROWS_PER_PART)

    def finish(self, depth: int) -> Level:
        if self._rows.num_rows:
            self._write(self._rows)
        return Level(depth=depth, folder=self._plan_uri, parts=tuple(self._uris), num_rows=self._num_rows)

    def _write(self, rows: pa.Table) -> None:
        sink = pa.BufferOutputStream()
        pq.write_table(rows, sink, row_group_size=ROWS_PER_ROW_GROUP, compression="zstd")
        part_uri = uri.join(self._plan_uri, f"part-{len(self._uris):05d}.parquet")
        try:
            uri.write_bytes(part_uri, sink.getvalue().to_pybytes())
        except OSError as error:
            raise OutputError(f"the plan can't be written: {error}") from None
        self._uris.append(part_uri)
        self._num_rows += rows.num_rows
