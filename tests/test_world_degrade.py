"""What spoils a picture: each does what its name says, and leaves enough to tell what was there."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from pipelines.world import degrade, sampling
from pipelines.world.degrade import DEGRADATIONS
from pipelines.world.draws import stream
from pipelines.world.presets import FULL, SMALL
from pipelines.world.render import Rendering, render
from pipelines.world.shapes import Array


def seen(index: int, size: int = 64) -> Rendering:
    rng = stream(0, "degrade", index)
    return render(replace(FULL, size=size), sampling.scene_with_things(FULL, rng, fewest=1))


@pytest.mark.parametrize("size", [64, 128])
@pytest.mark.parametrize("name", DEGRADATIONS)
def test_the_same_draws_spoil_a_picture_in_the_same_way_and_leave_it_as_it_was(name: str, size: int) -> None:
    for index in range(10):
        rendering = seen(index, size)
        before = rendering.picture.copy()
        spoiled = DEGRADATIONS[name](rendering, stream(1, name, index))
        assert spoiled.shape == (size, size, 3)
        assert spoiled.dtype == np.uint8
        assert np.array_equal(rendering.picture, before)
        assert not np.array_equal(spoiled, before)
        assert np.array_equal(DEGRADATIONS[name](rendering, stream(1, name, index)), spoiled)


@pytest.mark.parametrize("name", sorted({*DEGRADATIONS} - {"grey"}))
def test_other_draws_spoil_it_otherwise(name: str) -> None:
    rendering = seen(1)
    kinds = {DEGRADATIONS[name](rendering, stream(1, name, index)).tobytes() for index in range(8)}
    assert len(kinds) >= 3


def change(name: str, index: int = 0) -> Array:
    rendering = seen(index)
    return DEGRADATIONS[name](rendering, stream(2, name, index)).astype(float) - rendering.picture


def test_noise_is_centred_and_as_strong_as_it_is_said_to_be() -> None:
    changes = [change("noise", index)[seen(index).ids == 0] for index in range(20)]  # far from black and white
    assert abs(np.mean([one.mean() for one in changes])) < 2
    assert all(20 < one.std() < 40 for one in changes)


def test_a_blur_is_a_weighed_mean_of_what_is_around() -> None:
    rendering = seen(3)
    found = degrade._blurred(rendering.picture, 0.03)
    padded = np.pad(rendering.picture.astype(float), ((8, 8), (8, 8), (0, 0)), mode="edge")
    offsets = np.arange(-8, 9)
    weights = np.exp(-(offsets[:, None] ** 2 + offsets[None, :] ** 2) / (2 * (0.03 * 64) ** 2))
    for row, column in ((0, 0), (30, 20), (63, 40), (17, 51)):
        patch = padded[row : row + 17, column : column + 17]
        expected = (patch * weights[:, :, None]).sum(axis=(0, 1)) / weights.sum()
        assert found[row, column] == pytest.approx(expected, abs=0.1)


@pytest.mark.parametrize("name", ["rain", "snow"])
def test_weather_only_brightens_and_covers_a_part(name: str) -> None:
    for index in range(10):
        rendering = seen(index)
        spoiled = DEGRADATIONS[name](rendering, stream(2, name, index)).astype(int)
        touched = (spoiled != rendering.picture).any(axis=2)
        assert 0.04 < touched.mean() < 0.4
        dark = rendering.picture.max(axis=2) < 230
        assert (spoiled - rendering.picture)[dark].min() >= 0


def test_drops_cover_a_part_and_leave_the_rest() -> None:
    shares = [(change("raindrops", index) != 0).any(axis=2).mean() for index in range(20)]
    assert 0.03 < np.mean(shares) < 0.3


def test_haze_fades_the_far_more_than_the_near() -> None:
    rendering = seen(4)
    flat = Rendering(
        picture=np.full((64, 64, 3), 40, np.uint8),
        ids=rendering.ids,
        depth=np.linspace(0, 1, 64, dtype=np.float32)[:, None].repeat(64, axis=1),
    )
    rows = degrade.haze(flat, stream(0, "haze", 0))[:, 0].astype(int)
    assert (np.diff(rows[:, 0]) <= 0).all()
    assert rows[0, 0] > 100
    assert rows[-1].tolist() == [40, 40, 40]


def test_darkness_is_dark_and_keeps_the_order_of_brightness() -> None:
    rendering = seen(5)
    dark = degrade.darkness(rendering, stream(0, "dark", 0)).astype(float)
    assert dark.mean() < 0.4 * rendering.picture.mean()
    assert np.corrcoef(dark.ravel(), rendering.picture.ravel())[0, 1] > 0.95


def test_grey_is_brightness_alone() -> None:
    rendering = seen(6)
    grey = degrade.no_colour(rendering, stream(0, "grey", 0)).astype(float)
    assert (grey == grey[:, :, :1]).all()
    assert np.abs(grey[:, :, 0] - rendering.picture @ [0.299, 0.587, 0.114]).max() <= 0.51


def test_holes_are_black_and_hide_less_than_half_of_anything() -> None:
    nums = []
    for index in range(60):
        rng = stream(0, "holes", index)
        person = sampling.scene_with_person(SMALL, rng)
        rendering = render(SMALL, person) if index % 2 else seen(index)
        spoiled = degrade.holes(rendering, rng)
        holes = (spoiled != rendering.picture).any(axis=2)
        assert (spoiled[holes] == 0).all()
        nums.append(holes.sum())
        for number in range(1, int(rendering.ids.max()) + 1):
            whole = rendering.ids == number
            assert (whole & holes).sum() <= 0.4 * whole.sum()
    assert min(nums) > 60
