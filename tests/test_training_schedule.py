"""The learning rate rises at once, stays, and falls in a line."""

from __future__ import annotations

from itertools import pairwise

import pytest

from omnigen_actor.training.schedule import LAST_SHARE, WARM_UP_STEPS, share_of_rate


def shares(num_steps: int, decay_share: float) -> list[float]:
    return [share_of_rate(step, num_steps, decay_share) for step in range(num_steps)]


def test_it_rises_over_the_warm_up_and_stays_until_the_decay() -> None:
    found = shares(200, 0.25)
    assert found[:WARM_UP_STEPS] == pytest.approx([(step + 1) / WARM_UP_STEPS for step in range(WARM_UP_STEPS)])
    assert set(found[WARM_UP_STEPS:150]) == {1.0}


def test_it_falls_in_a_line_to_the_last_share() -> None:
    found = shares(1000, 0.4)
    falls = [before - after for before, after in pairwise(found[600:]) if after > LAST_SHARE]
    assert falls == pytest.approx([1 / 400] * len(falls))
    assert found[-1] == LAST_SHARE


@pytest.mark.parametrize(("num_steps", "decay_share"), [(1, 0.5), (7, 0.0), (50, 1.0), (400, 0.3)])
def test_it_is_always_a_positive_share(num_steps: int, decay_share: float) -> None:
    assert all(0 < share <= 1 for share in shares(num_steps, decay_share))


def test_beyond_the_last_step_it_is_the_last_share() -> None:
    assert share_of_rate(500, 100, 0.5) == LAST_SHARE


def test_no_decay_is_none() -> None:
    assert set(shares(100, 0.0)[WARM_UP_STEPS:]) == {1.0}
