"""Which rows a run does: --only, --limit and --retry-failed against small manifests, planned and finished."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from omnigen_actor.errors import ConfigError
from omnigen_actor.schema import Status
from pipelines.config import ALL, GenerationConfig, RunConfig
from pipelines.ledger import Ledger
from pipelines.plan import PlanSummary
from tests.test_plan import EDIT, TEXT, finish, planned, stage

ROWS: list[dict[str, Any]] = [
    {**EDIT, "id": "deep", "images": ["row:child#1"]},
    {**EDIT, "id": "child", "images": ["row:root"], "num_samples": 2},
    {**TEXT, "id": "cat-1"},
    {**TEXT, "id": "cat-2", "num_samples": 3},
    {**TEXT, "id": "root"},
    {**EDIT, "id": "hat"},
    {**TEXT, "id": "boat", "steps": [2, 3], "guidance_scale": [1, 2]},
    {"id": "lost", "task": "no such task"},
]
"""In id order of what can be made: root, child (2 samples), deep; and others. 14 planned rows."""


def rows_of(summary: PlanSummary) -> list[str]:
    """``id`` or ``id#sample`` of what is to do, in the order in which it is made."""
    return [row["id"] + (f"#{row['sample']}" if row["sample"] else "") for row in planned(summary)]


def only(folder: Path, *conditions: str, limit: int | None = None, run_id: str = "r1") -> PlanSummary:
    return stage(folder, ROWS, RunConfig(only=conditions, limit=limit), run_id)


@pytest.mark.parametrize(
    ("conditions", "expected"),
    [
        (["id=cat-1"], ["cat-1"]),
        (["id=cat-1, hat"], ["cat-1", "hat"]),
        (["id=cat-*"], ["cat-1", "cat-2", "cat-2#1", "cat-2#2"]),
        (["id=cat-[13]", "task=t2i,edit"], ["cat-1"]),
        (["task=edit", "id=h*,cat-*"], ["hat"]),
        (["id=boat[steps=2,guidance_scale=1]"], ["boat[steps=2,guidance_scale=1]"]),
        (["id=boat*steps=2*"], ["boat[steps=2,guidance_scale=1]", "boat[steps=2,guidance_scale=2]"]),
        (["id=lost"], ["lost"]),
    ],
)
def test_only_the_rows_of_all_conditions_are_done(tmp_path: Path, conditions: list[str], expected: list[str]) -> None:
    summary = only(tmp_path, *conditions)
    assert rows_of(summary) == expected
    assert (summary.num_planned, summary.num_to_do) == (14, len(expected))
    assert (summary.num_done, summary.num_left_out) == (0, 14 - len(expected))
    assert int(summary.is_chosen.sum()) == len(expected)


def test_what_a_chosen_row_needs_is_done_with_it_all_samples_together(tmp_path: Path) -> None:
    assert rows_of(only(tmp_path, "id=deep")) == ["root", "child", "child#1", "deep"]


def test_what_a_chosen_row_needs_is_not_done_twice(tmp_path: Path) -> None:
    finish(tmp_path, only(tmp_path, "id=root"))
    again = only(tmp_path, "id=deep", run_id="r2")
    assert rows_of(again) == ["child", "child#1", "deep"]
    assert (again.num_done, again.num_left_out) == (1, 10)


@pytest.mark.parametrize(
    ("limit", "expected"),
    [
        (1, ["cat-1"]),
        (2, ["root", "child", "child#1"]),
        (3, ["root", "child", "child#1", "deep"]),
        (4, ["cat-1", "root", "child", "child#1", "deep"]),
    ],
)
def test_a_limit_takes_rows_in_their_order_each_with_what_it_needs(
    tmp_path: Path, limit: int, expected: list[str]
) -> None:
    assert rows_of(only(tmp_path, limit=limit)) == expected


def test_a_limit_counts_what_is_left_to_do_and_ends_with_everything_done(tmp_path: Path) -> None:
    seen: list[str] = []
    for number in range(6):
        summary = only(tmp_path, limit=2, run_id=f"r{number}")
        finish(tmp_path, summary)
        seen += rows_of(summary)
        audit = Ledger.load(str(tmp_path / "store")).audit(summary.digests, summary.is_chosen)
        assert audit.adds_up
        assert audit.num_left_out == 14 - len(seen)
    assert sorted(seen) == sorted(rows_of(stage(tmp_path / "whole", ROWS)))


def test_a_limit_below_what_any_chosen_row_needs_is_refused_with_the_number(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"limit=2: .* 3 are the fewest"):
        only(tmp_path, "id=deep", limit=2)


@pytest.mark.parametrize(
    ("conditions", "message"),
    [
        (["cat-1"], r"only='cat-1': must be task=NAME or id=ID"),
        (["name=cat-1"], r"only='name=cat-1': must be"),
        (["id="], r"only='id=': must be"),
        (["id=cat-1,cta-2"], "no row of the manifest has the id 'cta-2'"),
        (["id=dog-*"], r"no row of the manifest has the id 'dog-\*'"),
        (["task=imagine"], "only: unknown task 'imagine'"),
        (["task=canny"], "no row of the manifest is of task=canny"),
        (["task=edit", "id=cat-1"], "no row of the manifest is of task=edit and id=cat-1"),
    ],
)
def test_a_condition_that_can_not_be_meant_is_refused(tmp_path: Path, conditions: list[str], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        only(tmp_path, *conditions)


def test_chosen_rows_that_are_done_are_no_error(tmp_path: Path) -> None:
    finish(tmp_path, only(tmp_path, "id=cat-1"))
    again = only(tmp_path, "id=cat-1", run_id="r2")
    assert (again.num_to_do, again.num_done, again.num_left_out) == (0, 1, 13)


def test_a_failed_row_that_was_not_chosen_is_told_and_does_not_count_against_the_run(tmp_path: Path) -> None:
    finish(tmp_path, only(tmp_path, "id=cat-1"), Status.FAILED)
    summary = only(tmp_path, "id=hat", run_id="r2")
    finish(tmp_path, summary)
    audit = Ledger.load(str(tmp_path / "store")).audit(summary.digests, summary.is_chosen)
    assert (audit.num_ok, audit.num_failed, audit.num_left_out, audit.adds_up) == (1, 1, 12, True)
    assert audit.percent_without_image == 0.0


def test_failed_rows_beyond_the_limit_wait_for_the_next_run(tmp_path: Path) -> None:
    finish(tmp_path, only(tmp_path, "id=cat-*"), Status.FAILED)
    summary = stage(tmp_path, ROWS, RunConfig(only=("id=cat-*",), limit=1, retry_failed=(ALL,)), "r2")
    assert rows_of(summary) == ["cat-1"]
    finish(tmp_path, summary)
    audit = Ledger.load(str(tmp_path / "store")).audit(summary.digests, summary.is_chosen)
    assert (audit.num_ok, audit.num_failed, audit.percent_without_image) == (1, 3, 0.0)


CHAIN = [ROWS[4], {**ROWS[1], "num_samples": 1}, {**ROWS[0], "images": ["row:child"]}, ROWS[5]]


def fail_chain(folder: Path, kind: str) -> None:
    """The root fails with a kind, and what comes from it is skipped; the hat fails as not_found."""
    finish(folder, stage(folder, CHAIN), kinds={"root": kind, "child": None, "deep": None, "hat": "not_found"})


def retried(folder: Path, *kinds: str, run_id: str = "r2") -> PlanSummary:
    return stage(folder, CHAIN, RunConfig(retry_failed=kinds), run_id)


def test_a_skipped_row_is_tried_again_with_the_row_that_it_needs(tmp_path: Path) -> None:
    fail_chain(tmp_path, "fetch_failed")
    summary = retried(tmp_path, "fetch_failed")
    assert rows_of(summary) == ["root", "child", "deep"]
    assert [(row["attempt"], row["error"]) for row in planned(summary)] == [(2, None)] * 3


@pytest.mark.parametrize("kind", ["engine_failed", "parent_failed", "bad_id"])
def test_a_skipped_row_stays_as_it_is_while_the_row_that_it_needs_does(tmp_path: Path, kind: str) -> None:
    fail_chain(tmp_path, "fetch_failed")
    assert rows_of(retried(tmp_path, kind)) == []


def test_a_skipped_row_whose_parent_has_an_image_by_now_is_made_without_being_asked(tmp_path: Path) -> None:
    fail_chain(tmp_path, "fetch_failed")
    finish(tmp_path, stage(tmp_path, CHAIN, RunConfig(retry_failed=("fetch_failed",), limit=1), "r2"))
    assert rows_of(stage(tmp_path, CHAIN, run_id="r3")) == ["child", "deep"]


def test_all_kinds_are_those_of_the_option_alone(tmp_path: Path) -> None:
    fail_chain(tmp_path, "fetch_failed")
    assert rows_of(retried(tmp_path, ALL)) == ["root", "hat", "child", "deep"]
    assert rows_of(retried(tmp_path, "not_found", "fetch_failed")) == ["root", "hat", "child", "deep"]


# --- mixed stores ---

OLD, NEW = (RunConfig(generation=GenerationConfig(steps=steps)) for steps in (4, 5))


def mixed(folder: Path, rows: list[dict[str, Any]], run_id: str = "r2", config: RunConfig = NEW) -> PlanSummary:
    return stage(folder, rows, config, run_id, earlier=[OLD.generation])


def test_in_a_mixed_store_what_is_done_stays_and_what_is_new_has_the_new_settings(tmp_path: Path) -> None:
    finish(tmp_path, stage(tmp_path, [ROWS[2], ROWS[3]], OLD))
    summary = mixed(tmp_path, [*ROWS[2:4], ROWS[5]])
    assert [(row["id"], row["steps"]) for row in planned(summary)] == [("hat", 5)]
    assert (summary.num_done, summary.num_to_do) == (4, 1)
    finish(tmp_path, summary)
    audit = Ledger.load(str(tmp_path / "store")).audit(summary.digests, summary.is_chosen)
    assert (audit.num_ok, audit.adds_up) == (5, True)
    assert mixed(tmp_path, [*ROWS[2:4], ROWS[5]], "r3").num_to_do == 0


def test_in_a_mixed_store_a_changed_row_is_still_made_again(tmp_path: Path) -> None:
    finish(tmp_path, stage(tmp_path, [ROWS[2], ROWS[5]], OLD))
    assert rows_of(mixed(tmp_path, [{**ROWS[2], "instruction": "A dog."}, ROWS[5]])) == ["cat-1"]


def test_a_failed_row_of_a_mixed_store_is_tried_again_with_the_new_settings(tmp_path: Path) -> None:
    finish(tmp_path, stage(tmp_path, [ROWS[2]], OLD), Status.FAILED)
    assert mixed(tmp_path, [ROWS[2]]).num_to_do == 0
    retry = RunConfig(generation=NEW.generation, retry_failed=(ALL,))
    (row,) = planned(mixed(tmp_path, [ROWS[2]], "r3", retry))
    assert (row["steps"], row["attempt"]) == (5, 2)


def test_chains_go_on_in_a_mixed_store(tmp_path: Path) -> None:
    finish(tmp_path, stage(tmp_path, CHAIN[:2], OLD))
    first = mixed(tmp_path, CHAIN[:3])
    assert [(row["id"], row["steps"]) for row in planned(first)] == [("deep", 5)]
    finish(tmp_path, first)
    assert mixed(tmp_path, CHAIN[:3], "r3").num_to_do == 0
    changed = [{**CHAIN[0], "instruction": "A dog."}, *CHAIN[1:3]]
    assert rows_of(mixed(tmp_path, changed, "r4")) == ["root", "child", "deep"]


def test_a_skipped_row_of_a_mixed_store_is_made_with_the_present_settings_and_hash(tmp_path: Path) -> None:
    kinds = {"root": "fetch_failed", "child": None}
    finish(tmp_path, stage(tmp_path, CHAIN[:2], OLD), kinds=kinds)
    retry = RunConfig(generation=NEW.generation, retry_failed=(ALL,))
    mended = mixed(tmp_path, CHAIN[:2], "r2", retry)
    assert [(row["id"], row["steps"], row["error"]) for row in planned(mended)] == [
        ("root", 5, None),
        ("child", 5, None),
    ]
    plain = stage(tmp_path / "plain", CHAIN[:2], NEW)
    assert [row["row_hash"] for row in planned(mended)] == [row["row_hash"] for row in planned(plain)]


def test_a_repeated_row_and_a_sweep_are_what_they_are_in_a_mixed_store(tmp_path: Path) -> None:
    finish(tmp_path, stage(tmp_path, [ROWS[6], ROWS[2]], OLD))
    summary = mixed(tmp_path, [ROWS[2], ROWS[6], ROWS[2], ROWS[6]])
    assert (summary.num_duplicates, summary.num_done, summary.num_to_do) == (5, 5, 0)
