"""Commit records: one Parquet file per batch, and its figures for the driver. Knows neither engines nor resuming."""

from __future__ import annotations

import sys
from collections import Counter
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from omnigen_actor import store, uri
from omnigen_actor.schema import RECORD, Status, user_fields, with_user_fields
from pipelines.levels import Progress
from pipelines.references import Reference
from pipelines.summary import Tally

OUTCOME = pa.schema(
    [
        pa.field("depth", pa.int32(), nullable=False),  # of all its rows: a batch is of one level
        pa.field("num_ok", pa.int64(), nullable=False),
        pa.field("num_failed", pa.int64(), nullable=False),
        pa.field("num_skipped", pa.int64(), nullable=False),
        pa.field("error_kind", pa.list_(pa.string()), nullable=False),
        pa.field("error_count", pa.list_(pa.int64()), nullable=False),
        pa.field("lost", pa.list_(pa.string()), nullable=False),  # id#sample of the rows without an image
    ]
)
"""What the driver learns of one records file: all that its progress display needs."""


class WriteRecords:
    """RECORD in, OUTCOME out: the records are in the store when this returns.

    The file's name depends on the rows alone, so a task that is retried overwrites its own file.
    """

    def __init__(self, store_root: str, run_id: str, timeout_s: float = uri.DEFAULT_TIMEOUT_S) -> None:
        """``timeout_s``: for how long a store that does not take them is tried again."""
        self._store_root = store_root
        self._run_id = run_id
        self._timeout_s = timeout_s

    def __call__(self, table: pa.Table) -> pa.Table:
        """Commit one batch. Raises what the store raises: without its records the run can't be said to be complete."""
        if table.num_rows:
            identity = zip(*(table[name].to_pylist() for name in ("id", "sample", "attempt")), strict=True)
            key = store.records_key(self._run_id, identity)
            place = uri.join(self._store_root, key)
            uri.write_bytes(place, to_parquet(table), timeout_s=self._timeout_s, retries=sys.maxsize)
        return count(table)


def to_parquet(table: pa.Table) -> bytes:
    """A Parquet file of exactly the RECORD columns and the user's own, in the declared order and types."""
    schema = with_user_fields(RECORD, user_fields(table.schema)).with_metadata(table.schema.metadata)
    sink = pa.BufferOutputStream()
    pq.write_table(table.select(schema.names).cast(schema), sink, compression="zstd")
    data: bytes = sink.getvalue().to_pybytes()
    return data


def count(table: pa.Table) -> pa.Table:
    """The OUTCOME of a table of records, one row."""
    status = Counter(table["status"].to_pylist())
    failed = table.filter(pc.equal(table["status"], Status.FAILED))
    errors = Counter(failed["error_kind"].to_pylist())
    lost = table.filter(pc.not_equal(table["status"], Status.OK)).select(["id", "sample"]).to_pylist()
    row: dict[str, Any] = {
        "depth": table["depth"][0].as_py() if table.num_rows else 0,
        "num_ok": status[Status.OK],
        "num_failed": status[Status.FAILED],
        "num_skipped": status[Status.SKIPPED],
        "error_kind": list(errors),
        "error_count": list(errors.values()),
        "lost": [str(Reference(one["id"], one["sample"])) for one in lost],
    }
    return pa.Table.from_pylist([row], schema=OUTCOME)


def report(outcomes: pa.Table, progress: Progress) -> None:
    """Tell how many rows of which depth are done, and which of them have no image."""
    for row in outcomes.to_pylist():
        num_rows = row["num_ok"] + row["num_failed"] + row["num_skipped"]
        if num_rows:  # a batch that was handed back has no depth
            progress.add(row["depth"], num_rows, row["lost"])


def add(tally: Tally, outcomes: pa.Table) -> Tally:
    """The tally with these outcomes counted in."""
    errors = Counter(tally.errors)
    for row in outcomes.to_pylist():
        errors.update(dict(zip(row["error_kind"], row["error_count"], strict=True)))
    ok, failed, skipped = (pc.sum(outcomes[f"num_{name}"]).as_py() or 0 for name in ("ok", "failed", "skipped"))
    return Tally(
        num_done=tally.num_done + ok + failed + skipped,
        num_ok=tally.num_ok + ok,
        num_failed=tally.num_failed + failed,
        num_skipped=tally.num_skipped + skipped,
        errors=dict(errors),
    )
