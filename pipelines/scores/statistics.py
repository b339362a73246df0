"""The scorer ``statistics``: what the pixels of an image say by themselves. Knows no model and no inputs.

`docs/scores.md` has the columns. Luma is that of ITU-R BT.601, as Pillow converts to grey.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from PIL import Image

from pipelines.scores.scorer import Picture, Score

BLANK_RANGE = 8
"""Levels of 255. Where all but one pixel in fifty lie that close in every channel there is nothing to see: a picture of
NaN is black, and one that was cut to nothing is even. A quiet sky spans three times as much."""
BLANK_SHARE = 0.98

BURNT_LEVELS = (5, 250)
BURNT_SHARE = 0.3
"""So many pixels with one channel at its top and another one at its bottom: burnt colours, as too high a guidance makes
them. Photographs have less than one in a hundred; white or black ground is not counted."""

_LAPLACIAN_SIDE = 3

_Levels = npt.NDArray[np.uint8]


class Statistics:
    """Brightness, contrast, saturation, sharpness, and the two verdicts that are made of pixels alone."""

    name = "statistics"
    columns = pa.schema(
        [
            ("brightness", pa.float32()),  # mean luma, 0 … 1
            ("contrast", pa.float32()),  # standard deviation of luma (RMS contrast), 0 … 0.5
            ("saturation", pa.float32()),  # mean saturation of HSV, 0 … 1
            ("sharpness", pa.float32()),  # variance of the Laplacian of luma in levels of 255
            ("is_blank", pa.bool_()),
            ("is_saturated", pa.bool_()),
        ]
    )
    needs_inputs = False
    num_gpus = 0.0
    batch_size = 32

    def __call__(self, pictures: Sequence[Picture]) -> list[Score]:
        """One dict for each picture."""
        return [measure(picture.image) for picture in pictures]


def open_statistics(options: Mapping[str, Any]) -> Statistics:  # noqa: ARG001
    """The factory of the registry; there are no options."""
    return Statistics()


def measure(image: Image.Image) -> Score:
    """The statistics of an RGB image of any size."""
    luma_HW = np.asarray(image.convert("L"))
    rgb_HW3 = np.asarray(image)
    highest_HW, lowest_HW = rgb_HW3.max(axis=2), rgb_HW3.min(axis=2)
    return {
        "brightness": float(luma_HW.mean()) / 255,
        "contrast": float(luma_HW.std(dtype=np.float64)) / 255,
        "saturation": _saturation(highest_HW, lowest_HW),
        "sharpness": sharpness(luma_HW),
        "is_blank": is_blank(image),
        "is_saturated": _is_saturated(highest_HW, lowest_HW),
    }


def sharpness(luma_HW: _Levels) -> float | None:
    """Variance of the Laplacian (Pech-Pacheco et al. 2000), over the pixels that have four neighbours.

    Low where a picture is blurred. It falls with the size of a picture: compare pictures of one size. None for a
    picture that is narrower than 3 pixels.
    """
    if min(luma_HW.shape) < _LAPLACIAN_SIDE:
        return None
    level = luma_HW.astype(np.int16)
    around = level[:-2, 1:-1] + level[2:, 1:-1] + level[1:-1, :-2] + level[1:-1, 2:]
    return float((around - 4 * level[1:-1, 1:-1]).var(dtype=np.float64))


def is_blank(image: Image.Image) -> bool:
    """Whether there is nothing to see: one colour, but for noise and a few pixels."""
    counts_3V = np.array(image.histogram(), np.int64).reshape(3, 256)
    shares_3V = counts_3V.cumsum(axis=1) / (image.width * image.height)
    unseen = (1 - BLANK_SHARE) / 2
    low, high = (shares_3V > unseen).argmax(axis=1), (shares_3V >= 1 - unseen).argmax(axis=1)
    return bool((high - low).max() <= BLANK_RANGE)


def _saturation(highest_HW: _Levels, lowest_HW: _Levels) -> float:
    span_HW = (highest_HW - lowest_HW).astype(np.float32)
    return float((span_HW / np.maximum(highest_HW, 1)).mean(dtype=np.float64))


def _is_saturated(highest_HW: _Levels, lowest_HW: _Levels) -> bool:
    bottom, top = BURNT_LEVELS
    return bool(((highest_HW >= top) & (lowest_HW <= bottom)).mean() >= BURNT_SHARE)
