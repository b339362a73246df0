from __future__ import annotations

import json
from dataclasses import asdict, replace

from omnigen_actor.metrics import EngineUse
from pipelines.summary import Summary, Tally

SUMMARY = Summary(
    num_in=26,
    num_ok=23,
    num_failed=2,
    num_skipped=1,
    num_already_done=10,
    num_generated=16,
    errors=[("not_found", 2, "no such file: a.png")],
    seconds=8.0,
    images_uri="out/images",
    records_uri="out/records",
    summary_uri="out/summary.json",
)


def test_a_summary_adds_up_only_when_every_row_has_a_record() -> None:
    assert SUMMARY.adds_up
    assert not replace(SUMMARY, num_ok=22).adds_up
    assert not replace(SUMMARY, num_ok=24).adds_up
    assert not replace(SUMMARY, num_doubled=1).adds_up


def test_skipped_rows_count_as_rows_without_an_image() -> None:
    assert replace(SUMMARY, num_in=30, num_ok=27).percent_without_image == 10.0
    assert replace(SUMMARY, num_in=0, num_ok=0, num_failed=0, num_skipped=0).percent_without_image == 0.0


def test_rows_that_were_left_out_are_accounted_for() -> None:
    assert replace(SUMMARY, num_in=30, num_left_out=4).adds_up
    assert not replace(SUMMARY, num_left_out=1).adds_up


def test_the_share_without_an_image_is_that_of_the_chosen_rows() -> None:
    some = replace(SUMMARY, num_in=36, num_left_out=10, num_not_chosen=16, num_not_chosen_failed=2)
    assert some.percent_without_image == 10.0  # 10 chosen rows, of which one was skipped
    assert replace(SUMMARY, num_not_chosen=26, num_not_chosen_failed=3).percent_without_image == 0.0


def test_summary_json_holds_every_count_and_names_what_is_in_an_error() -> None:
    written = json.loads(SUMMARY.to_json())
    assert written["num_in"] == 26
    assert written["num_ok"] + written["num_failed"] + written["num_skipped"] == 26
    assert written["adds_up"] is True
    assert written["errors"] == [{"kind": "not_found", "count": 2, "example": "no such file: a.png"}]
    assert written["records_uri"] == "out/records"


def test_summary_json_holds_what_the_engines_took_or_null() -> None:
    use = EngineUse(
        num_waves=2,
        occupancy=0.5,
        encode_seconds=0.0,
        prefill_seconds=1.0,
        step_seconds=3.0,
        decode_seconds=0.5,
        token_steps_per_second=100.0,
    )
    assert json.loads(replace(SUMMARY, engine=use).to_json())["engine"] == asdict(use)
    assert json.loads(SUMMARY.to_json())["engine"] is None


def test_tally_json_holds_its_counts() -> None:
    tally = Tally(num_done=3, num_ok=1, num_failed=2, errors={"not_found": 2})
    assert json.loads(tally.to_json()) == {
        "num_done": 3,
        "num_ok": 1,
        "num_failed": 2,
        "num_skipped": 0,
        "errors": {"not_found": 2},
    }
