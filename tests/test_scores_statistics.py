"""Blank, noisy, blurred, burnt and ordinary pictures are told apart by their pixels."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageEnhance, ImageFilter

from pipelines.scores.scorer import score_table
from pipelines.scores.statistics import Statistics, measure
from tests.score_pictures import NAMES, as_jpeg, made, photo, with_noise


def one(image: Image.Image) -> dict[str, Any]:
    (row,) = score_table(Statistics(), [made(image)]).to_pylist()
    assert row["score_error"] is None
    found: dict[str, Any] = row
    return found


def even(*colour: int) -> Image.Image:
    return Image.new("RGB", (64, 48), colour)


@pytest.mark.parametrize("name", NAMES)
def test_a_photograph_is_neither_blank_nor_burnt(name: str) -> None:
    found = one(photo(name))
    assert not found["is_blank"]
    assert not found["is_saturated"]
    assert 0 < found["contrast"] < 0.5


@pytest.mark.parametrize("name", NAMES)
def test_sharpness_ranks_even_blurred_sharp_and_noise(name: str) -> None:
    sharp = photo(name)
    slight, strong = (sharp.filter(ImageFilter.GaussianBlur(radius)) for radius in (1, 3))
    ranked = [one(image)["sharpness"] for image in (even(90, 90, 90), strong, slight, sharp, with_noise(sharp, 40))]
    assert ranked == sorted(ranked)
    assert len(set(ranked)) == len(ranked)


@pytest.mark.parametrize("colour", [(0, 0, 0), (255, 255, 255), (12, 200, 90)])
def test_one_colour_is_blank_also_with_jpeg_noise_and_a_dead_pixel(colour: tuple[int, int, int]) -> None:
    image = with_noise(even(*colour), 1.0)
    image.putpixel((3, 3), (255, 0, 255))
    assert one(even(*colour))["is_blank"]
    assert one(image)["is_blank"]
    assert one(as_jpeg(even(*colour), 50))["is_blank"]


def test_two_colours_of_the_same_luma_are_not_blank() -> None:
    image = even(150, 0, 0)
    image.paste((0, 76, 0), (0, 0, 32, 48))
    assert one(image)["contrast"] < 0.01
    assert not one(image)["is_blank"]


@pytest.mark.parametrize("name", ["cat", "coffee", "rocket"])
def test_a_burnt_photograph_is_saturated(name: str) -> None:
    burnt = ImageEnhance.Contrast(ImageEnhance.Color(photo(name)).enhance(4)).enhance(4)
    assert one(burnt)["is_saturated"]
    assert one(burnt)["saturation"] > one(photo(name))["saturation"]


def test_a_thing_on_white_or_black_ground_is_not_burnt() -> None:
    for ground in ((255, 255, 255), (0, 0, 0)):
        image = Image.new("RGB", (200, 200), ground)
        image.paste(photo("cat").resize((60, 60)), (70, 70))
        assert not one(image)["is_saturated"]


def test_brightness_contrast_and_saturation_have_known_values() -> None:
    halves = Image.fromarray(np.repeat(np.array([[0, 255]], np.uint8), 32, axis=1).repeat(16, axis=0)).convert("RGB")
    found = one(halves)
    assert (found["brightness"], found["contrast"], found["saturation"]) == (0.5, 0.5, 0)
    assert one(even(255, 0, 0))["saturation"] == 1
    assert one(even(200, 100, 100))["saturation"] == 0.5


def test_a_picture_of_one_pixel_has_no_sharpness() -> None:
    assert measure(Image.new("RGB", (1, 1)))["sharpness"] is None
    assert measure(Image.new("RGB", (3, 3)))["sharpness"] == 0
