"""The diary of a batch: what a process finds that comes after one that died."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

import pytest

from omnigen_actor.attempts import Diary, forget, row_name
from omnigen_actor.store import attempts_key

ROWS = [("a", 0, 1), ("b", 0, 1)]
A, B = "a#0", "b#0"


def open_diary(store: Path) -> Diary:
    """As the next process does."""
    return Diary(str(store), "r1", ROWS)


def content(store: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((store / attempts_key("r1", ROWS)).read_text())
    return found


def test_a_diary_is_in_the_store_from_the_beginning_of_a_batch_to_its_end(tmp_path: Path) -> None:
    diary = open_diary(tmp_path)
    assert not diary.is_careful
    assert content(tmp_path) == {"starts": 1, "running": None, "crashes": {}}
    diary.end()
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []
    assert not open_diary(tmp_path).is_careful


def test_the_process_after_one_that_died_is_careful_and_blames_nobody_yet(tmp_path: Path) -> None:
    open_diary(tmp_path)
    after = open_diary(tmp_path)
    assert after.is_careful
    assert (after.num_crashes(A), after.num_crashes(B)) == (0, 0)
    assert not Diary(str(tmp_path), "r1", ROWS[:1]).is_careful  # another batch
    assert not Diary(str(tmp_path), "r2", ROWS).is_careful  # another run


def test_only_the_row_that_ran_alone_is_blamed_each_time_that_it_did(tmp_path: Path) -> None:
    open_diary(tmp_path)
    for num_crashes in range(3):
        diary = open_diary(tmp_path)
        assert (diary.num_crashes(A), diary.num_crashes(B)) == (0, num_crashes)
        diary.begin(A)
        diary.begin(B)
    assert content(tmp_path) == {"starts": 4, "running": B, "crashes": {B: 2}}


def test_what_is_known_of_rows_that_kill_outlives_the_batch(tmp_path: Path) -> None:
    """A batch is run once more when what it returned is lost with a node."""
    open_diary(tmp_path)
    open_diary(tmp_path).begin(A)
    open_diary(tmp_path).end()
    after = open_diary(tmp_path)
    assert after.is_careful
    assert (after.num_crashes(A), after.num_crashes(B)) == (1, 0)


@pytest.mark.parametrize("text", ["", "{", "[]", '{"starts": 2}', '{"starts": 1, "running": null, "crashes": 3}'])
def test_a_damaged_diary_still_says_that_a_process_died(
    tmp_path: Path, text: str, caplog: pytest.LogCaptureFixture
) -> None:
    open_diary(tmp_path)
    (tmp_path / attempts_key("r1", ROWS)).write_text(text)
    diary = open_diary(tmp_path)
    assert diary.is_careful
    assert diary.num_crashes(A) == 0
    assert "damaged" in caplog.text
    diary.begin(A)
    assert open_diary(tmp_path).num_crashes(A) == 1


def test_without_a_store_a_batch_runs_without_a_diary(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "attempts").write_text("in the way")
    diary = open_diary(tmp_path)
    assert not diary.is_careful
    diary.begin(A)
    diary.end()
    assert "can't be written" in caplog.text


def test_a_diary_that_cannot_be_read_is_none(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    key = tmp_path / attempts_key("r1", ROWS)
    key.mkdir(parents=True)
    assert not open_diary(tmp_path).is_careful
    assert "can't be read" in caplog.text


def test_forgetting_takes_the_diaries_of_all_runs_and_nothing_else(tmp_path: Path) -> None:
    for run_id in ("r1", "r2"):
        Diary(str(tmp_path), run_id, ROWS)
    (tmp_path / "run.json").touch()
    forget(str(tmp_path))
    assert [path.name for path in tmp_path.iterdir()] == ["run.json"]
    (tmp_path / "run.json").unlink()
    assert list(tmp_path.iterdir()) == []
    forget(str(tmp_path))


def test_diaries_in_a_bucket_are_forgotten_too() -> None:
    root = "memory://attempts-test"
    Diary(root, "r1", ROWS)
    assert Diary(root, "r1", ROWS).is_careful
    forget(root)
    assert not Diary(root, "r1", ROWS).is_careful


def test_a_store_that_is_gone_keeps_nobody_from_forgetting(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        forget("no-such-scheme://bucket")
    assert "stay in the store" in caplog.text


def test_rows_are_named_as_in_references() -> None:
    assert row_name("a/b ü", 3) == "a/b ü#3"
