from __future__ import annotations

import json
import math
from dataclasses import replace
from datetime import UTC, datetime

import pytest

from omnigen_actor import metrics
from omnigen_actor.types import Wave

WAVE = Wave(
    num_rows=2,
    num_branches=4,
    num_tokens=600,
    capacity=1000,
    num_steps=10,
    num_prefill_tokens=70,
    encode_seconds=0.5,
    prefill_seconds=0.5,
    step_seconds=3.0,
    decode_seconds=1.0,
)
AT = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)


def test_seconds_add_up_and_occupancy_weighs_by_the_seconds_of_steps() -> None:
    use = metrics.add_up([WAVE, replace(WAVE, num_tokens=1000, step_seconds=1.0, num_steps=2)])
    assert use is not None
    assert (use.num_waves, use.step_seconds) == (2, 4.0)
    assert (use.encode_seconds, use.prefill_seconds, use.decode_seconds) == (1.0, 1.0, 2.0)
    assert use.occupancy == pytest.approx((0.6 * 3 + 1.0 * 1) / 4)
    assert use.token_steps_per_second == pytest.approx((600 * 10 + 1000 * 2) / 4)


def test_no_wave_adds_up_to_nothing() -> None:
    assert metrics.add_up([]) is None


def test_the_occupancy_of_waves_without_time_is_their_mean() -> None:
    idle = replace(WAVE, encode_seconds=0, prefill_seconds=0, step_seconds=0, decode_seconds=0)
    use = metrics.add_up([idle, replace(idle, num_tokens=1000)])
    assert use is not None
    assert use.occupancy == pytest.approx(0.8)
    assert str(use) == "steps 0 %, prefill 0 %, decode 0 %, encode 0 %; waves 80 % full"


def test_a_person_reads_shares_of_the_engines_seconds() -> None:
    assert str(metrics.add_up([WAVE])) == "steps 60 %, prefill 10 %, decode 20 %, encode 10 %; waves 60 % full"


def test_a_line_holds_a_wave_and_where_and_when_its_batch_ran() -> None:
    waves = [WAVE, replace(WAVE, num_rows=1)]
    data = metrics.to_jsonl(waves, node="n1", started_at=AT, finished_at=AT)
    lines = [json.loads(line) for line in data.splitlines()]
    assert [(line["num_rows"], line["occupancy"], line["node"]) for line in lines] == [(2, 0.6, "n1"), (1, 0.6, "n1")]
    assert datetime.fromisoformat(lines[0]["started_at"]) == AT
    assert data.endswith(b"\n")
    assert metrics.from_jsonl(data) == waves


def test_no_line_holds_what_is_no_json() -> None:
    with pytest.raises(ValueError, match="JSON"):
        metrics.to_jsonl([replace(WAVE, step_seconds=math.nan)], node="n1", started_at=AT, finished_at=AT)


@pytest.mark.parametrize("data", [b"{", b"[]\n", b"{}\n", b'"x"\n', b"\xff\n"])
def test_what_is_no_wave_is_refused(data: bytes) -> None:
    with pytest.raises(ValueError):  # noqa: PT011  # from json, from the decoding, or from us
        metrics.from_jsonl(data)
