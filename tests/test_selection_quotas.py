from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from omnigen_actor.errors import ConfigError
from pipelines.selection.options import SelectionConfig
from pipelines.selection.quotas import Quota, limits, over, parse


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("task=edit:1000", Quota("task", "edit", 1000)),
        ("task:5", Quota("task", None, 5)),
        ("source=s3://a/b=c:0", Quota("source", "s3://a/b=c", 0)),
    ],
)
def test_a_quota_is_a_column_a_value_and_a_limit(text: str, expected: Quota) -> None:
    assert parse(text) == expected
    assert str(expected) == text


@pytest.mark.parametrize("text", ["", "task", "task=edit", "task=edit:", "task=edit:-1", "task=edit:1.5", "=edit:3"])
def test_what_is_no_quota_is_named(text: str) -> None:
    with pytest.raises(ConfigError, match="must be COLUMN=VALUE:N"):
        parse(text)


def test_two_quotas_of_the_same_images_are_refused() -> None:
    with pytest.raises(ConfigError, match="quota task=edit:2: there is another one"):
        SelectionConfig(quotas=(parse("task=edit:1"), parse("task=edit:2")))


def test_a_value_has_its_own_limit_or_that_of_all_others() -> None:
    values = ["edit", "canny", None, "depth"]
    found, texts = limits([parse("task=edit:3"), parse("task:1")], values)
    assert found.tolist() == [3, 1, 1, 1]
    assert texts == ["task=edit:3", "task:1", "task:1", "task:1"]
    found, texts = limits([parse("task=edit:3")], values)
    assert found.tolist() == [3, -1, -1, -1]


def test_a_value_that_no_image_has_is_named_with_those_there_are() -> None:
    with pytest.raises(ConfigError, match="no image of the store has task 'edti'; there are 'canny', 'edit'"):
        limits([parse("task=edti:3")], ["edit", "canny"])


@given(
    groups=st.lists(st.integers(0, 2), max_size=40),
    limit_of=st.lists(st.integers(-1, 5), min_size=3, max_size=3),
    data=st.data(),
)
def test_the_first_of_each_value_stay(groups: list[int], limit_of: list[int], data: st.DataObject) -> None:
    order = data.draw(st.permutations(range(len(groups))).map(lambda all_: all_[: len(all_) * 3 // 4]))
    found = over(np.array(limit_of, np.int64), np.array(groups, np.int64), np.array(order, np.int64))
    expected, taken = [False] * len(groups), [0, 0, 0]
    for index in order:
        taken[groups[index]] += 1
        expected[index] = limit_of[groups[index]] >= 0 and taken[groups[index]] > limit_of[groups[index]]
    assert found.tolist() == expected
