"""Levels of a plan: what opens when, who waits for it, and which rows are marked as skipped before."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from pipelines.check import check_table
from pipelines.config import GenerationConfig
from pipelines.levels import PART, AwaitMarks, Level, Progress, read_part


def level(folder: Path, depth: int, num_rows: int = 1, parts: tuple[str, ...] = ()) -> Level:
    return Level(depth=depth, folder=str(folder / f"depth-{depth}"), parts=parts, num_rows=num_rows)


def is_open(one: Level) -> bool:
    return Path(one.mark).is_file()


def test_the_parts_of_the_first_level_wait_for_nothing_and_those_of_others_for_their_mark(tmp_path: Path) -> None:
    levels = [level(tmp_path, 1, parts=("a", "b")), level(tmp_path, 3, parts=("c",))]
    tables = list(Progress(levels).parts())
    assert all(table.schema == PART for table in tables)
    assert [table.to_pylist() for table in tables] == [
        [{"part": "a", "mark": None}],
        [{"part": "b", "mark": None}],
        [{"part": "c", "mark": levels[1].mark}],
    ]


def test_a_level_opens_when_every_row_of_the_one_before_has_a_record(tmp_path: Path) -> None:
    levels = [level(tmp_path, 0, 3), level(tmp_path, 1, 2), level(tmp_path, 2, 1)]
    progress = Progress(levels)
    progress.add(0, 2, [])
    assert not is_open(levels[1])
    progress.add(0, 1, [])
    assert (is_open(levels[1]), is_open(levels[2])) == (True, False)
    progress.add(1, 2, [])
    assert is_open(levels[2])
    progress.add(2, 1, [])


def test_rows_whose_parents_are_lost_are_marked_before_their_level_opens(tmp_path: Path) -> None:
    rows = [
        {"id": "root", "task": "text_to_image", "instruction": "x", "images": []},
        {"id": "child", "task": "edit", "instruction": "x", "images": ["row:root"]},
        {"id": "other", "task": "edit", "instruction": "x", "images": ["row:good"]},
        {"id": "deep", "task": "edit", "instruction": "x", "images": ["row:child"]},
    ]
    planned = check_table(pa.Table.from_pylist(rows), GenerationConfig(), "/")
    levels = []
    for depth, ids in enumerate((["root"], ["child", "other"], ["deep"])):
        part = tmp_path / f"{depth}.parquet"
        chosen = [index for index, row in enumerate(planned["id"].to_pylist()) if row in ids]
        pq.write_table(planned.take(chosen), part)
        levels.append(level(tmp_path, depth, len(ids), (str(part),)))
    progress = Progress(levels)
    progress.add(0, 1, ["root#0"])
    errors = {row["id"]: row["error"] for row in read_part(levels[1].parts[0]).to_pylist()}
    assert errors == {"child": "row 'root#0' has no image", "other": None}
    progress.add(1, 2, ["child#0"])
    (deep,) = read_part(levels[2].parts[0]).to_pylist()
    assert deep["error"] == "row 'child#0' has no image, because row 'root#0' has none"


def test_a_part_waits_for_its_mark_and_longer_each_time_up_to_a_bound(tmp_path: Path) -> None:
    mark = tmp_path / "ready"
    waits: list[float] = []

    def sleep(seconds: float) -> None:
        waits.append(seconds)
        if len(waits) == 6:
            mark.touch()

    table = pa.table({"part": ["a"], "mark": [str(mark)]}, PART)
    assert AwaitMarks(sleep)(table) is table
    assert waits == [0.05, 0.1, 0.2, 0.4, 0.5, 0.5]
    assert AwaitMarks(sleep)(pa.table({"part": ["a"], "mark": [None]}, PART)).num_rows == 1
    assert len(waits) == 6


def test_nothing_waits_in_a_run_that_stops(tmp_path: Path) -> None:
    stop = tmp_path / "stop"
    waits: list[float] = []

    def sleep(seconds: float) -> None:
        waits.append(seconds)
        stop.touch()

    table = pa.table({"part": ["a"], "mark": [str(tmp_path / "ready")]}, PART)
    assert AwaitMarks(sleep, str(stop))(table) is table
    assert len(waits) == 1
