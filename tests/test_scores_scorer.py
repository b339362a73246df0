"""What a scorer answers becomes one row for each picture, right or wrong."""

from __future__ import annotations

import pickle
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import pyarrow as pa
import pytest
from PIL import Image

from omnigen_actor.errors import ConfigError
from pipelines.scores.scorer import (
    Picture,
    Scorer,
    ScorerSpec,
    check_columns,
    describe,
    error_table,
    score_schema,
    score_table,
)

Answers = Callable[[Sequence[Picture]], Any]
COLUMNS = pa.schema([("size", pa.int64()), ("share", pa.float32()), ("is_red", pa.bool_())])
GOOD = {"size": 64, "share": 0.5, "is_red": True}


class Scripted:
    """A scorer that answers as a test says."""

    name = "scripted"
    columns = COLUMNS
    needs_inputs = False
    num_gpus = 0.0
    batch_size = 4

    def __init__(self, answers: Answers) -> None:
        self._answers = answers

    def __call__(self, pictures: Sequence[Picture]) -> list[dict[str, object]]:
        found: list[dict[str, object]] = self._answers(pictures)
        return found


def open_good(options: Mapping[str, Any]) -> Scripted:
    return Scripted(lambda pictures: [GOOD | {"share": options["share"]} for _ in pictures])


def open_broken(options: Mapping[str, Any]) -> object:
    return object()


def open_colliding(options: Mapping[str, Any]) -> Scripted:
    scorer = Scripted(lambda pictures: [])
    scorer.columns = pa.schema([("sha256", pa.string())])
    return scorer


def picture(row_id: str = "a", sample: int = 0) -> Picture:
    image = Image.new("RGB", (8, 8))
    return Picture(id=row_id, sample=sample, sha256="f" * 64, task="edit", prompt="", instruction="", image=image)


def rows(answers: Answers, *ids: str) -> list[dict[str, Any]]:
    scorer: Scorer = Scripted(answers)
    table = score_table(scorer, [picture(one) for one in ids])
    assert table.schema == score_schema(COLUMNS)
    assert table["id"].to_pylist() == list(ids)
    found: list[dict[str, Any]] = table.to_pylist()
    return found


def test_a_row_has_the_image_its_scores_and_no_error() -> None:
    (row,) = rows(lambda pictures: [GOOD], "a")
    assert row == {"id": "a", "sample": 0, "sha256": "f" * 64} | GOOD | {"score_error": None}


def test_no_answer_is_null_and_no_error() -> None:
    (row,) = rows(lambda pictures: [dict.fromkeys(COLUMNS.names)], "a")
    assert [row[name] for name in (*COLUMNS.names, "score_error")] == [None] * 4


def test_a_picture_on_which_the_scorer_fails_does_not_cost_the_others_their_scores() -> None:
    def answers(pictures: Sequence[Picture]) -> list[dict[str, object]]:
        if any(one.id == "bad" for one in pictures):
            raise RuntimeError("no memory\nfor this one")
        return [GOOD for _ in pictures]

    found = rows(answers, "a", "bad", "b")
    assert [row["size"] for row in found] == [64, None, 64]
    assert [row["score_error"] for row in found] == [None, "RuntimeError: no memory", None]


@pytest.mark.parametrize("count", [0, 5])
def test_too_few_or_too_many_answers_are_errors_of_every_picture(count: int) -> None:
    found = rows(lambda pictures: [GOOD] * count, "a", "b")
    assert all(f"gave {count} answers" in row["score_error"] and row["size"] is None for row in found)


@pytest.mark.parametrize(
    ("answer", "problem"),
    [
        (GOOD | {"size": "big"}, "size='big': must be int64"),
        (GOOD | {"size": 1.5}, "size=1.5: must be int64"),
        (GOOD | {"share": float("nan")}, "share=nan: not a finite number"),
        (GOOD | {"share": float("inf")}, "share=inf: not a finite number"),
        (GOOD | {"is_red": 1}, "is_red=1: must be bool"),
        (GOOD | {"more": 1}, "the columns are size, share, is_red"),
        ({"size": 1}, "the columns are size, share, is_red"),
        ({}, "nothing"),
        (None, "must be a dict"),
        ([1, 2, 3], "must be a dict"),
    ],
)
def test_a_wrong_answer_is_an_error_of_its_picture_alone(answer: object, problem: str) -> None:
    bad, good = rows(lambda pictures: [answer if one.id == "bad" else GOOD for one in pictures], "bad", "good")
    assert problem in bad["score_error"]
    assert [bad[name] for name in COLUMNS.names] == [None] * 3
    assert good["score_error"] is None


def test_an_answer_that_is_text_is_no_message_in_disguise() -> None:
    (row,) = rows(lambda pictures: ["size"], "a")
    assert "must be a dict" in row["score_error"]


def test_pictures_that_could_not_be_read_have_rows_too() -> None:
    table = error_table([("a", 0, "f" * 64), ("a", 1, "e" * 64)], "the image is\n gone", COLUMNS)
    assert table.schema == score_schema(COLUMNS)
    assert table["score_error"].to_pylist() == ["the image is gone"] * 2
    assert table["sample"].to_pylist() == [0, 1]


def test_a_spec_travels_and_opens_a_scorer_with_its_options() -> None:
    spec = ScorerSpec(name="mine", factory=f"{__name__}:open_good", options={"share": 0.25, "device": "cpu"})
    scorer = pickle.loads(pickle.dumps(spec)).open()
    assert scorer([picture()])[0]["share"] == 0.25


def test_the_device_is_no_setting_and_a_password_stays_out() -> None:
    spec = ScorerSpec(name="mine", factory="a:B", options={"device": "cuda", "model": "s3://key:secret@bucket/model"})
    described = describe(spec, COLUMNS)
    assert described["settings"] == {"factory": "a:B", "model": "s3://bucket/model"}
    assert described["columns"] == {"size": "int64", "share": "float", "is_red": "bool"}


@pytest.mark.parametrize(
    ("factory", "problem"),
    [
        (f"{__name__}:open_broken", "which lacks name, columns"),
        (f"{__name__}:open_colliding", "'sha256' is there already"),
        (f"{__name__}:nothing", "nothing"),
        (f"{__name__}:COLUMNS", "not a class or a function"),
        ("no_such_module:X", "No module named"),
    ],
)
def test_what_is_no_scorer_is_told_when_it_is_opened(factory: str, problem: str) -> None:
    with pytest.raises(ConfigError, match=problem):
        ScorerSpec(name="mine", factory=factory).open()


@pytest.mark.parametrize("names", [[], ["id"], ["score_error"], ["a", "a"]])
def test_columns_that_cannot_stand_in_a_table_are_refused(names: list[str]) -> None:
    with pytest.raises(ConfigError):
        check_columns("mine", pa.schema([(name, pa.int64()) for name in names]))
