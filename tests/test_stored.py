"""The current images of a store: each once, whatever records it has, with every column that there is now."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from omnigen_actor.errors import OutputError
from omnigen_actor.schema import RECORD
from pipelines.stored import current_images, open_store

HASH = "0" * 64


def record(row_id: str, **changed: Any) -> dict[str, Any]:
    row: dict[str, Any] = {"id": row_id, "sample": 0, "attempt": 1, "row_hash": HASH, "status": "ok", "sha256": HASH}
    row |= {"images": [], "parents": [], "depth": 0, "image_sha256": [], "model": "m", "model_sha256": HASH}
    row |= {"approximations": [], "adapters": [], "run_id": "r", "finished_at": datetime(2026, 1, 1, tzinfo=UTC)}
    return row | {"fetch_seconds": 0.0, "generate_seconds": 0.0, "write_seconds": 0.0} | changed


def write(folder: Path, name: str, rows: list[dict[str, Any]], without: tuple[str, ...] = ()) -> None:
    (folder / "records").mkdir(exist_ok=True)
    table = pa.Table.from_pylist(rows, schema=RECORD).drop_columns(list(without))
    pq.write_table(table.append_column("mine", pa.array(["x"] * len(rows))), folder / "records" / f"{name}.parquet")


def ids(folder: Path) -> list[str]:
    return [row_id for table in current_images(str(folder)) for row_id in table["id"].to_pylist()]


def test_only_the_last_attempt_of_a_row_counts_and_only_with_an_image(tmp_path: Path) -> None:
    write(tmp_path, "1", [record("a"), record("b"), record("c", status="failed")])
    write(tmp_path, "2", [record("a", attempt=2), record("b", attempt=2, status="failed")])
    (table,) = current_images(str(tmp_path))
    assert table.select(["id", "attempt", "mine"]).to_pylist() == [{"id": "a", "attempt": 2, "mine": "x"}]


def test_a_row_with_two_equal_records_comes_once_and_one_with_two_others_not_at_all(tmp_path: Path) -> None:
    write(tmp_path, "1", [record("a"), record("b"), record("c")])
    write(tmp_path, "2", [record("b"), record("c", sha256="1" * 64)])
    assert ids(tmp_path) == ["a", "b"]


def test_columns_that_an_older_version_did_not_write_are_empty(tmp_path: Path) -> None:
    write(tmp_path, "1", [record("a")], without=("adapters", "negative_prompt"))
    (table,) = current_images(str(tmp_path))
    assert [*RECORD.names, "mine"] == table.column_names
    assert (table["adapters"].to_pylist(), table["negative_prompt"].to_pylist()) == ([[]], [None])


def test_a_folder_without_a_run_is_no_store(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match=r"is no run store: it has no run\.json"):
        open_store(str(tmp_path))
