from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipelines.selection.best import NO_RANK, duplicates, rank

NAN = float("nan")


def ranks(row: list[int], scores: list[float], candidates: list[bool] | None = None) -> list[int]:
    is_candidate = np.array(candidates if candidates is not None else [True] * len(row), bool)
    return rank(np.array(row, np.int64), np.array(scores, np.float64), is_candidate).tolist()


def stand_ins(group: list[int], scores: list[float] | None = None, candidates: list[bool] | None = None) -> list[int]:
    is_candidate = np.array(candidates if candidates is not None else [True] * len(group), bool)
    values = None if scores is None else np.array(scores, np.float64)
    return duplicates(np.array(group, np.int64), values, is_candidate).tolist()


def test_the_highest_of_a_row_is_first_and_of_equal_ones_the_lower_sample() -> None:
    assert ranks([0, 0, 0, 1, 1], [0.1, 0.3, 0.3, 5, 7]) == [3, 1, 2, 2, 1]


def test_a_missing_score_has_no_rank_and_takes_none() -> None:
    assert ranks([0, 0, 0], [NAN, 1, 2], [True, True, False]) == [NO_RANK, 1, NO_RANK]
    assert ranks([], []) == []
    assert ranks([0, 0], [float("-inf"), float("inf")]) == [2, 1]


def test_the_best_of_a_group_stays_in_the_stead_of_the_others() -> None:
    assert stand_ins([-1, 3, 3, 3], [9, 1, 3, 2]) == [-1, 2, -1, 2]
    assert stand_ins([3, -1, 3]) == [-1, -1, 0]
    assert stand_ins([], []) == []


def test_a_rejected_image_stands_for_no_other() -> None:
    assert stand_ins([3, 3, 3], [9, 1, 2], [False, True, True]) == [-1, 2, -1]


def test_a_missing_score_is_worse_than_the_lowest() -> None:
    assert stand_ins([3, 3, 3], [NAN, float("-inf"), NAN]) == [1, -1, 1]


@given(st.lists(st.tuples(st.integers(0, 3), st.sampled_from([0.0, 1.0, 2.0, NAN]), st.booleans()), max_size=30))
def test_ranks_are_those_of_sorting_each_row(drawn: list[tuple[int, float, bool]]) -> None:
    images = sorted(drawn, key=lambda one: one[0])  # rows stand together
    found = ranks(*(list(column) for column in zip(*images, strict=True))) if images else []
    expected = [NO_RANK] * len(images)
    for row in range(4):
        own = [index for index, one in enumerate(images) if one[0] == row and one[2] and not np.isnan(one[1])]
        for place, index in enumerate(sorted(own, key=lambda index: (-images[index][1], index))):
            expected[index] = place + 1
    assert found == expected


@given(st.lists(st.tuples(st.integers(-1, 3), st.sampled_from([0.0, 1.0, NAN]), st.booleans()), max_size=30))
def test_exactly_one_candidate_of_each_group_stays(drawn: list[tuple[int, float, bool]]) -> None:
    group, scores, candidates = (list(column) for column in zip(*drawn, strict=True)) if drawn else ([], [], [])
    found = stand_ins(group, scores, candidates)
    for one in {one for one, is_in in zip(group, candidates, strict=True) if is_in and one >= 0}:
        own = [index for index in range(len(group)) if group[index] == one and candidates[index]]
        (stays,) = [index for index in own if found[index] == -1]
        assert {found[index] for index in own} <= {-1, stays}
        assert scores[stays] == pytest.approx(np.nanmax([*(scores[index] for index in own), -1]), nan_ok=True) or all(
            np.isnan(scores[index]) for index in own
        )
