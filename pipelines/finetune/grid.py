"""Lines of pictures as one picture, to look at. Knows no model and no files."""

from __future__ import annotations

from collections.abc import Sequence

from PIL import Image

GAP_PX = 8
MAX_SIDE_PX = 512


def grid(lines: Sequence[Sequence[Image.Image]]) -> Image.Image:
    """The lines one under the other, on white. Pictures are shown with a longest side of 512 px at most.

    Lines end at the same place, so that the last pictures of all lines are below each other.
    """
    shown = [[_reduced(picture) for picture in line] for line in lines]
    width = max(sum(picture.width + GAP_PX for picture in line) for line in shown) + GAP_PX
    height = sum(max(picture.height for picture in line) + GAP_PX for line in shown) + GAP_PX
    sheet = Image.new("RGB", (width, height), "white")
    top = GAP_PX
    for line in shown:
        right = width
        for picture in reversed(line):
            right -= picture.width + GAP_PX
            sheet.paste(picture, (right, top))
        top += max(picture.height for picture in line) + GAP_PX
    return sheet


def _reduced(picture: Image.Image) -> Image.Image:
    reduced = picture.copy()
    reduced.thumbnail((MAX_SIDE_PX, MAX_SIDE_PX))
    return reduced
