"""An edit that did nothing is told from one that did."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageEnhance, ImageFilter

from pipelines.scores.copy_through import PSNR_CAP_DB, CopyThrough, psnr_db, ssim
from pipelines.scores.scorer import score_table
from tests.score_pictures import NAMES, as_jpeg, made, photo, with_disc, with_noise


def one(output: Image.Image, *inputs: Image.Image, task: str = "edit") -> dict[str, Any]:
    (row,) = score_table(CopyThrough(), [made(output, *inputs, task=task)]).to_pylist()
    assert row["score_error"] is None
    found: dict[str, Any] = row
    return found


@pytest.mark.parametrize("name", NAMES)
def test_an_identity_edit_is_a_copy_also_after_a_loss_and_at_another_size(name: str) -> None:
    given = photo(name)
    same = one(given, given)
    assert same["copy_through"]
    assert (same["copy_psnr_db"], same["copy_ssim"], same["copy_change"]) == (PSNR_CAP_DB, 1, 0)
    assert one(as_jpeg(given, 30), given)["copy_through"]
    assert one(with_noise(given, 5), given)["copy_through"]
    assert one(given.resize((given.width // 2, given.height // 2)), given)["copy_through"]


@pytest.mark.parametrize("name", NAMES)
def test_a_real_edit_is_no_copy(name: str) -> None:
    given = photo(name)
    warm = Image.fromarray((np.asarray(given) * np.array([1.15, 1, 0.8])).clip(0, 255).astype(np.uint8))
    edits = [
        with_disc(given),
        as_jpeg(with_disc(given), 30),
        warm,
        ImageEnhance.Brightness(given).enhance(0.6),
        given.transpose(Image.Transpose.FLIP_LEFT_RIGHT),
        photo(NAMES[NAMES.index(name) - 1]).resize(given.size),
    ]
    assert not any(one(edit, given)["copy_through"] for edit in edits)


def test_a_restoration_that_did_nothing_is_told_from_one_that_worked() -> None:
    clean = photo("cat")
    for task, given in (("denoise", with_noise(clean, 10)), ("deblur", clean.filter(ImageFilter.GaussianBlur(1)))):
        assert not one(clean, given, task=task)["copy_through"]
        assert one(given, given, task=task)["copy_through"]


def test_the_input_that_it_most_resembles_counts() -> None:
    output = as_jpeg(photo("cat"), 50)
    alone = one(output, photo("cat"))
    assert one(output, photo("rocket"), photo("cat"), photo("coffee")) == alone
    assert alone["copy_through"]
    assert not one(output, photo("rocket"), photo("coffee"))["copy_through"]


def test_a_picture_without_inputs_is_no_copy_and_has_no_numbers() -> None:
    """So that `not copy_through` keeps the text-to-image rows of a mixed store."""
    found = one(photo("cat"))
    assert [found[name] for name in CopyThrough.columns.names] == [None, None, None, False]


def test_psnr_has_known_values() -> None:
    black, grey = Image.new("RGB", (16, 16)), Image.new("RGB", (16, 16), (51, 51, 51))
    assert psnr_db(black, Image.new("RGB", (16, 16), (255, 255, 255))) == 0
    assert psnr_db(black, grey) == pytest.approx(20 * np.log10(5))


def test_ssim_falls_with_blur_and_needs_eleven_pixels() -> None:
    given = photo("cat")
    falling = [ssim(given, given.filter(ImageFilter.GaussianBlur(radius))) or 0 for radius in (0, 1, 2, 4)]
    assert falling == sorted(falling, reverse=True)
    assert falling[0] == 1
    assert ssim(given.resize((10, 40)), given.resize((10, 40))) is None
