"""The manifest in one pass on the driver: checked, ids compared, what is done left out, the rest written as plan parts.

Knows no images, no engine and no cluster. Rows only pass through. Of each, 64 bytes are kept on disk (digests, to find
duplicates and what is done), and a few in memory.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from omnigen_actor import store, uri
from omnigen_actor.tasks import DEFAULT_TASKS, TaskTable
from pipelines.check import planned_schema
from pipelines.choice import Choice, follow_parents
from pipelines.config import GenerationConfig, RunConfig
from pipelines.duplicates import Planned, UniqueRows
from pipelines.graph import Graph, Pick, Settled
from pipelines.ledger import Digests, Ledger, Standing, Standings, digest, digests_of, is_to_do
from pipelines.levels import Level
from pipelines.manifest import Manifest
from pipelines.plan_parts import PlanWriter
from pipelines.references import mark_skipped, replace_columns
from pipelines.spool import Spool

_NO_ORPHANS: dict[int, str] = {}
_ROWS_AT_ONCE = 2**20


@dataclass(frozen=True, slots=True, kw_only=True)
class PlanSummary:
    """What a run has before it.

    ``levels``: what is to do, by the depth of the rows: those of one level need only levels before it.

    ``num_rows`` counts the manifest's rows, all others (id, sample) pairs: ``num_planned`` = ``num_done`` +
    ``num_left_out`` + ``num_to_do``, and ``num_bad`` of the planned failed their check. ``num_done`` have a record that
    stays; ``num_left_out`` have none, and the run is not to make them. ``num_duplicates`` rows repeat another in
    everything and are planned once. ``pixel_steps`` is the work ahead: output pixels × steps, taking the largest input
    size where the input gives the size. Tasks that don't exist count as ``unknown``. ``digests`` has every planned row,
    ``is_chosen`` whether the run answers for it, and ``known_doubled`` the keys that had two records before.
    """

    plan_uri: str
    levels: tuple[Level, ...]
    num_rows: int
    num_duplicates: int
    num_planned: int
    num_bad: int
    num_done: int
    num_left_out: int
    num_to_do: int
    num_per_task: dict[str, int]
    pixel_steps: int
    digests: Digests = field(repr=False)
    is_chosen: npt.NDArray[np.bool_] = field(repr=False)
    known_doubled: npt.NDArray[np.bytes_] = field(repr=False)

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
    earlier: Sequence[GenerationConfig] = (),
) -> PlanSummary:
    """Check every row and write what is to do to ``plan/<run_id>/part-*.parquet``; nothing when nothing is to do.

    ``earlier``: other settings that rows of the store were made with, and by which they count as done.

    Raises ManifestError when two rows of different content share an id, or when the manifest can't be read to its end;
    ConfigError when no row is chosen; OutputError when the store can't be written.
    """
    plan_uri, part_schema = uri.join(store_root, store.PLAN, run_id), planned_schema(manifest.schema)
    rows = UniqueRows(manifest, config.generation, tasks, earlier)
    choice, graph = Choice(config.only, config.limit, tasks), Graph()
    stage = _Stage(ledger, PlanWriter(plan_uri, part_schema), _Counts(), config, tasks)
    with closing(Spool(part_schema)) as roots, closing(Spool(part_schema)) as children:
        is_root = [np.empty(0, bool)]
        for planned in rows:
            table = _as_recorded(planned, ledger, config.retry_failed)
            digests = digest(table)
            is_child = graph.add(table, digests, planned.earlier)
            children.add(table.filter(pa.array(is_child)))
            is_root.append(~is_child)
            own = table.filter(pa.array(~is_child))
            if choice.is_open:
                stage.add(own, is_to_do(ledger.stand(digests[~is_child], retry=config.retry_failed)))
            else:  # whether a root is needed shows at the end
                choice.see(table)
                roots.add(own)
        settled = graph.settle(children.ids, _pick_recorded(ledger, config.retry_failed) if earlier else None)
        standing = _standing(ledger, settled, config.retry_failed, of_all=not choice.is_open)
        to_do, is_chosen = choice.settle(standing, settled)
        of_roots = to_do[np.concatenate(is_root)]
        for table, start in _numbered(roots):
            stage.add(table, of_roots[start : start + table.num_rows])
        for table, start in _numbered(children):
            whole, orphans = _with_lineage(table, start, settled, standing)
            stage.add(whole, to_do[settled.child[start : start + table.num_rows]], orphans)
    num_left_out = int(np.sum((standing == Standing.NEW) & ~to_do))
    counts = stage.counts
    return PlanSummary(
        plan_uri=plan_uri,
        levels=stage.writer.finish(),
        num_rows=rows.num_rows,
        num_duplicates=rows.num_duplicates,
        num_planned=counts.num_planned,
        num_bad=counts.num_bad,
        num_done=counts.num_planned - counts.num_to_do - num_left_out,
        num_left_out=num_left_out,
        num_to_do=counts.num_to_do,
        num_per_task=dict(counts.per_task.most_common()),
        pixel_steps=counts.pixel_steps,
        digests=settled.digests,
        is_chosen=is_chosen,
        known_doubled=ledger.doubled,
    )


@dataclass(slots=True)
class _Counts:
    """The figures of the summary while they grow."""

    num_planned: int = 0
    num_bad: int = 0
    num_to_do: int = 0
    pixel_steps: int = 0
    per_task: Counter[str] = field(default_factory=Counter)


@dataclass(frozen=True, slots=True)
class _Stage:
    """Takes planned rows in: counts them all and writes those that are to do."""

    ledger: Ledger
    writer: PlanWriter
    counts: _Counts
    config: RunConfig
    tasks: TaskTable

    def add(self, planned: pa.Table, is_to_do: npt.NDArray[np.bool_], orphans: dict[int, str] = _NO_ORPHANS) -> None:
        """``orphans``: messages for rows, by their place, whose parents have no image and are not tried again."""
        to_do = self.ledger.next_attempt(mark_skipped(planned, orphans).filter(pa.array(is_to_do)))
        counts = self.counts
        counts.num_planned += planned.num_rows
        counts.num_bad += planned.num_rows - planned.column("error_kind").null_count
        counts.num_to_do += to_do.num_rows
        counts.pixel_steps += _pixel_steps(to_do, self.config.generation.max_input_image_size)
        tasks = planned.column("task").to_pylist()
        counts.per_task.update(task if task in self.tasks else "unknown" for task in tasks)
        self.writer.add(to_do)


def _pixel_steps(to_do: pa.Table, largest_side: int) -> int:
    good = to_do.filter(pc.is_null(to_do.column("error_kind")))
    sides = [pc.fill_null(good.column(name).cast(pa.int64()), largest_side) for name in ("width", "height")]
    work = pc.multiply(pc.multiply(*sides), good.column("steps").cast(pa.int64()))
    return int(pc.sum(work).as_py() or 0)


# --- what is done already ---


def _as_recorded(planned: Planned, ledger: Ledger, retry: Sequence[str]) -> pa.Table:
    """The planned rows, those that are done with earlier settings with the hash that they were done with."""
    hashes = planned.table["row_hash"].to_pylist()
    own = is_to_do(ledger.stand(digest(planned.table), retry=retry))
    for earlier in planned.earlier:
        table = replace_columns(planned.table, {"row_hash": earlier})
        is_done = own & ~is_to_do(ledger.stand(digest(table), retry=retry))
        for index in np.flatnonzero(is_done).tolist():
            hashes[index] = earlier[index]
        own &= ~is_done
    return replace_columns(planned.table, {"row_hash": hashes}) if planned.earlier else planned.table


def _pick_recorded(ledger: Ledger, retry: Sequence[str]) -> Pick:
    """For rows that refer to others: the hash under which a row is done, or else the present one."""

    def pick(key: npt.NDArray[np.bytes_], hashes: Sequence[str]) -> str:
        standing = ledger.stand(digests_of(key, hashes), retry=retry)
        is_done = ~is_to_do(standing)
        is_done[1:] &= standing[1:] != Standing.SKIPPED  # it may yet be made, and then with the present settings
        return hashes[int(np.argmax(is_done))]

    return pick


def _standing(ledger: Ledger, settled: Settled, retry: Sequence[str], *, of_all: bool) -> Standings:
    """The Standing of every row, or of those alone that are parents or refer to some; that of others is NEW."""
    standing = np.full(len(settled.digests), Standing.NEW, np.uint8)
    wanted = np.arange(len(standing)) if of_all else np.union1d(settled.child, settled.parent)
    for start in range(0, len(wanted), _ROWS_AT_ONCE):
        part = wanted[start : start + _ROWS_AT_ONCE]
        standing[part] = ledger.stand(settled.digests[part], retry=retry)
    follow_parents(standing, settled)
    return standing


def _numbered(spool: Spool) -> Iterator[tuple[pa.Table, int]]:
    """Its tables, each with the number of its first row."""
    start = 0
    for table in spool.read():
        yield table, start
        start += table.num_rows


def _with_lineage(
    table: pa.Table, start: int, settled: Settled, standing: Standings
) -> tuple[pa.Table, dict[int, str]]:
    """Rows that refer to others, with their depth and what they come from; and messages for those, by their place,
    whose parents have no image from an earlier run and are not tried again.
    """
    stop = start + table.num_rows
    columns = {"depth": settled.depth[start:stop].tolist(), "row_hash": settled.row_hash[start:stop]}
    is_lost = np.isin(standing[settled.parent], (Standing.FAILED, Standing.SKIPPED))
    orphans = {}
    for index, parents in enumerate(table["parents"].to_pylist()):
        first = settled.first[start + index]
        lost = next((parent for place, parent in enumerate(parents) if is_lost[first + place]), None)
        if lost is not None:
            orphans[index] = f"row {lost!r} has no image since an earlier run; --retry-failed tries it again"
    return replace_columns(table, columns), orphans
