"""Planned rows as Parquet parts in the store, by the depth of the rows. Knows neither manifests nor records."""

from __future__ import annotations

import shutil
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from omnigen_actor import store, uri
from omnigen_actor.errors import OutputError
from omnigen_actor.uri_names import local_path
from pipelines.levels import Level
from pipelines.run_info import RUN_ID

ROWS_PER_PART = 4096
ROWS_PER_ROW_GROUP = 512


class PlanWriter:
    """Collects planned rows and writes them in parts, those of each depth by themselves."""

    def __init__(self, plan_uri: str, part_schema: pa.Schema) -> None:
        self._plan_uri = plan_uri
        self._schema = part_schema
        self._parts: dict[int, _Parts] = {}

    def add(self, rows: pa.Table) -> None:
        """Raises OutputError when the store can't be written."""
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


def remove_others(store_root: str, run_id: str) -> None:
    """Remove the plans of all other runs: nothing reads the plan of a run that has ended. Raises OutputError."""
    plans = uri.join(store_root, store.PLAN)
    try:
        if uri.is_local(plans):
            _remove_local(local_path(plans), run_id)
        for file in uri.list_files(plans):
            if _is_other(file.removeprefix(plans + "/").partition("/")[0], run_id):
                uri.remove(file)
    except OSError as error:
        raise OutputError(f"the plan of an earlier run can't be removed: {error}") from None


def _remove_local(plans: Path, run_id: str) -> None:
    for folder in plans.iterdir() if plans.is_dir() else ():
        if folder.is_dir() and not folder.is_symlink() and _is_other(folder.name, run_id):
            shutil.rmtree(folder)


def _is_other(name: str, run_id: str) -> bool:
    """Whether this is the plan of a run. A folder of another name may be anybody's."""
    return name != run_id and RUN_ID.fullmatch(name) is not None
