"""Copies have hashes that are near, different pictures have not."""

from __future__ import annotations

from itertools import combinations

import imagehash
import pytest
from PIL import Image, ImageEnhance

from pipelines.scores.hamming import DEFAULT_RADIUS
from pipelines.scores.phash import PerceptualHash, perceptual_hash
from pipelines.scores.scorer import score_table
from tests.score_pictures import NAMES, as_jpeg, made, photo


def distance(one: Image.Image, other: Image.Image) -> int:
    return (perceptual_hash(one) ^ perceptual_hash(other)).bit_count()


@pytest.mark.parametrize("name", NAMES)
def test_a_copy_is_within_the_default_radius(name: str) -> None:
    given = photo(name)
    copies = [
        as_jpeg(given, 90),
        as_jpeg(given, 20),
        given.resize((given.width // 2, given.height // 2)),
        given.resize((given.width * 2, given.height * 2)),
        ImageEnhance.Brightness(given).enhance(1.05),
    ]
    assert max(distance(given, copy) for copy in copies) <= DEFAULT_RADIUS


def test_different_photographs_and_a_mirrored_one_are_far_beyond_it() -> None:
    photos = [photo(name) for name in NAMES]
    mirrored = [image.transpose(Image.Transpose.FLIP_LEFT_RIGHT) for image in photos]
    assert min(distance(one, other) for one, other in combinations([*photos, *mirrored], 2)) > 4 * DEFAULT_RADIUS


def test_blank_pictures_of_any_colour_are_near_each_other() -> None:
    blank = [Image.new("RGB", (64, 64), (level, level, level)) for level in (0, 1, 77, 200, 255)]
    assert max(distance(one, other) for one, other in combinations(blank, 2)) <= 1


@pytest.mark.parametrize("name", NAMES)
def test_the_number_is_what_imagehash_prints_also_where_its_first_bit_is_set(name: str) -> None:
    (row,) = score_table(PerceptualHash(), [made(photo(name))]).to_pylist()
    assert row["score_error"] is None
    assert f"{row['phash']:016x}" == str(imagehash.phash(photo(name)))
    assert row["phash"] >= 2**63  # the mean of a bright picture: it would not fit a signed number
