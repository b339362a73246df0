"""Depth and pose that an image was to follow: the measures by themselves, and with tiny random models."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pipelines.scores.maps import brightness, depth_error, is_grey, open_depth, open_pose, pose_error
from tests.scoring_models import colours, picture, save_depth, save_pose

SLOPE = np.linspace(0, 1, 64).reshape(8, 8)
NOISE = np.random.default_rng(0).random((8, 8))


def test_depths_that_differ_in_scale_and_shift_are_the_same() -> None:
    assert depth_error(7 * SLOPE + 3, SLOPE) == pytest.approx(0, abs=1e-9)


def test_an_inverted_depth_is_another_one_unless_both_ways_count() -> None:
    # Nothing fits better than the mean of what is followed: a slope of 0 to 1 is a quarter away from it.
    assert depth_error(-SLOPE, SLOPE) == pytest.approx(0.25, abs=0.01)
    assert depth_error(-SLOPE, SLOPE, either_way=True) == pytest.approx(0, abs=1e-9)


def test_the_error_grows_with_the_difference_and_hangs_not_on_the_range() -> None:
    little, much = depth_error(SLOPE + 0.05 * NOISE, SLOPE), depth_error(SLOPE + 0.5 * NOISE, SLOPE)
    assert little is not None
    assert much is not None
    assert 0 < little < much < 0.26
    assert depth_error(SLOPE + 0.05 * NOISE, 1000 * SLOPE) == pytest.approx(little)


def test_a_flat_depth_can_not_be_followed_and_a_flat_answer_is_wrong() -> None:
    assert depth_error(SLOPE, np.full((8, 8), 3.0)) is None
    assert depth_error(np.full((8, 8), 3.0), SLOPE) == pytest.approx(0.25, abs=0.01)


def test_keypoints_that_moved_are_counted_in_shares_of_the_diagonal() -> None:
    followed = np.array([[0.5, 0.5], [0.2, 0.2], [0.9, 0.9]])
    found = followed + np.array([[0.3, 0.0], [0.3, 0.0], [0.0, 0.5]])
    sure = np.array([0.9, 0.3, 0.1])
    assert pose_error(found, followed, sure, (300, 400)) == pytest.approx(0.3 * 300 / 500)
    assert pose_error(followed, followed, sure, (300, 400)) == 0
    assert pose_error(found, followed, np.zeros(3), (300, 400)) is None


def test_a_grey_picture_is_told_from_one_with_colours() -> None:
    grey = Image.fromarray((SLOPE * 255).astype(np.uint8)).convert("RGB")
    assert is_grey(grey)
    assert not is_grey(colours(1))
    assert brightness(grey).min() == pytest.approx(0, abs=0.02)
    assert brightness(grey).max() == pytest.approx(1, abs=0.02)


def test_depth_is_scored_for_tasks_that_follow_one(tmp_path: Path) -> None:
    scorer = open_depth({"model": str(save_depth(tmp_path)), "device": "cpu"})
    size = (96, 64)
    grey = colours(3, size).convert("L").convert("RGB")
    same = picture(1, size=size, task="follow_depth", inputs=(colours(1, size),))
    other = picture(1, size=size, task="follow_depth", inputs=(colours(2, size),))
    condition = picture(1, size=size, task="condition", inputs=(grey,))
    none = [
        picture(1, size=size, task="edit", inputs=(colours(1, size),)),
        picture(1, size=size, task="condition", inputs=(colours(2, size),)),
        picture(1, size=size, task="follow_depth"),
    ]
    found = [one["depth_error"] for one in scorer([same, other, condition, *none])]
    assert found[0] == pytest.approx(0, abs=1e-6)
    assert found[1] is not None
    assert 0 < found[1] < 1
    assert found[2] is not None
    assert found[3:] == [None, None, None]


def test_pose_is_scored_for_tasks_that_follow_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    scorer = open_pose({"model": str(save_pose(tmp_path)), "device": "cpu"})
    monkeypatch.setattr("pipelines.scores.maps.pose_error.__defaults__", (-10.0,))  # a random model is sure of nothing
    same = picture(1, task="follow_pose", inputs=(colours(1),))
    other = picture(1, task="follow_pose", inputs=(colours(2),))
    edit = picture(1, task="edit", inputs=(colours(2),))
    found = [one["pose_error"] for one in scorer([same, other, edit])]
    assert found[0] == pytest.approx(0, abs=1e-9)
    assert found[1] is not None
    assert 0 < found[1] < 1
    assert found[2] is None
