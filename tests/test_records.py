from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from omnigen_actor.schema import RECORD
from pipelines.levels import Level, Progress
from pipelines.records import OUTCOME, WriteRecords, add, report
from pipelines.summary import Tally


def records(*rows: dict[str, Any], **user_columns: pa.Array) -> pa.Table:
    defaults = {
        "sample": 0,
        "attempt": 1,
        "row_hash": "0" * 64,
        "status": "ok",
        "images": [],
        "parents": [],
        "depth": 0,
        "image_sha256": [],
        "model": "fake",
        "model_sha256": "1" * 64,
        "approximations": [],
        "adapters": [],
        "fetch_seconds": 0.0,
        "generate_seconds": 0.0,
        "write_seconds": 0.0,
        "finished_at": datetime(2026, 1, 1, tzinfo=UTC),
        "run_id": "r1",
    }
    table = pa.Table.from_pylist([{"id": f"row{i}"} | defaults | row for i, row in enumerate(rows)], schema=RECORD)
    for name, values in user_columns.items():
        table = table.append_column(name, values)
    return table


def files(tmp_path: Path) -> list[Path]:
    return sorted((tmp_path / "records").glob("*"))


def test_the_file_has_exactly_the_declared_and_the_users_columns(tmp_path: Path) -> None:
    table = records({}, {}, score=pa.array([1, None], pa.int8()), tags=pa.array([[], ["a"]], pa.list_(pa.string())))
    WriteRecords(str(tmp_path), "r1")(table)
    (file,) = files(tmp_path)
    written = pq.read_table(file)
    assert written.equals(table)
    assert written.schema == pa.schema([*RECORD, pa.field("score", pa.int8()), pa.field("tags", pa.list_(pa.string()))])


def test_columns_in_another_order_are_put_right(tmp_path: Path) -> None:
    table = records({}, own=pa.array([7]))
    WriteRecords(str(tmp_path), "r1")(table.select(table.schema.names[::-1]))
    assert pq.read_schema(files(tmp_path)[0]).names == [*RECORD.names, "own"]


def test_a_retried_task_overwrites_its_own_file_and_no_other(tmp_path: Path) -> None:
    write = WriteRecords(str(tmp_path), "r1")
    write(records({}, {"sample": 1}))
    write(records({}, {"sample": 1}))
    assert len(files(tmp_path)) == 1
    write(records({}, {"sample": 1, "attempt": 2}))
    WriteRecords(str(tmp_path), "r2")(records({}, {"sample": 1}))
    assert len(files(tmp_path)) == 3
    assert {file.name.rpartition("-")[0] for file in files(tmp_path)} == {"r1", "r2"}


def test_outcomes_add_up_to_the_tally(tmp_path: Path) -> None:
    write = WriteRecords(str(tmp_path), "r1")
    bad = {"status": "failed", "error_kind": "not_found"}
    first = write(records({}, bad, bad, {"status": "failed", "error_kind": "bad_size"}))
    second = write(records({"id": "x"}, bad | {"id": "y"}, {"id": "z", "status": "skipped"}))
    assert first.schema == OUTCOME
    tally = add(add(Tally(), first), second)
    assert tally == Tally(num_done=7, num_ok=2, num_failed=4, num_skipped=1, errors={"not_found": 3, "bad_size": 1})
    assert add(Tally(), pa.concat_tables([first, second])) == tally


def test_no_rows_write_no_file_and_count_nothing(tmp_path: Path) -> None:
    outcome = WriteRecords(str(tmp_path), "r1")(records())
    assert add(Tally(), outcome) == Tally()
    assert list(tmp_path.iterdir()) == []


def test_a_batch_that_was_handed_back_is_recorded_nowhere_and_counts_in_no_level(tmp_path: Path) -> None:
    empty = pa.Table.from_pylist([], schema=RECORD)
    outcome = WriteRecords(str(tmp_path), "r1")(empty)
    assert list(tmp_path.iterdir()) == []
    progress = Progress([Level(depth=3, folder=str(tmp_path), parts=(), num_rows=1)])
    report(outcome, progress)  # its level is not known: 3 is the only one there is
    assert add(Tally(num_done=2, num_ok=2), outcome) == Tally(num_done=2, num_ok=2)
