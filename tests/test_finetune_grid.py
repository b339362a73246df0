"""Lines of pictures on one sheet: nothing covered, a white gap between, the last pictures below each other."""

from __future__ import annotations

import numpy as np
from PIL import Image

from pipelines.finetune.grid import GAP_PX, MAX_SIDE_PX, grid


def test_lines_are_below_each_other_and_end_at_the_same_place() -> None:
    lines = [
        [Image.new("RGB", (16, 16), "red"), Image.new("RGB", (32, 16), "blue")],
        [Image.new("RGB", (16, 48), "green"), Image.new("RGB", (16, 16), "red"), Image.new("RGB", (32, 32), "blue")],
    ]
    sheet = grid(lines)
    assert sheet.size == (16 + 16 + 32 + 4 * GAP_PX, 16 + 48 + 3 * GAP_PX)
    right, second = sheet.width - GAP_PX, 16 + 2 * GAP_PX
    assert sheet.crop((right - 32, GAP_PX, right, GAP_PX + 16)).getcolors() == [(32 * 16, (0, 0, 255))]
    assert sheet.crop((right - 32, second, right, second + 32)).getcolors() == [(32 * 32, (0, 0, 255))]
    colours = {colour: count for count, colour in sheet.getcolors() or []}
    assert colours[(255, 0, 0)] == 2 * 16 * 16
    assert colours[(0, 128, 0)] == 16 * 48
    around = np.asarray(sheet).copy()
    around[GAP_PX:-GAP_PX, GAP_PX:-GAP_PX] = 255
    assert (around == 255).all()


def test_a_large_picture_is_shown_smaller_and_stays_as_it_is() -> None:
    large = Image.new("RGB", (2 * MAX_SIDE_PX, MAX_SIDE_PX), "red")
    assert grid([[large]]).size == (MAX_SIDE_PX + 2 * GAP_PX, MAX_SIDE_PX // 2 + 2 * GAP_PX)
    assert large.size == (2 * MAX_SIDE_PX, MAX_SIDE_PX)
