"""The scorer ``copy_through``: is the image only one of its inputs again? Knows no model.

An edit that did nothing gives back its input, yet never the same bytes: the autoencoder alone costs 5 to 20 levels at
single pixels. What it keeps are the colours of small areas, and an edit, even of a small thing, moves some of those.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from PIL import Image

from pipelines.scores.scorer import Picture, Score

COPY_PSNR_DB = 22.0
"""A copy is at least that near. The autoencoder of SDXL, which OmniGen uses, has 24.7 dB on photographs of 256 pixels
(Podell et al. 2023, table 3), more on larger ones; a picture made anew has 8 to 15 dB."""
COPY_CHANGE = 20.0
"""A copy moves no cell's mean colour by more levels of 255. Measured on photographs of 256 to 448 pixels: JPEG of
quality 30 up to 16, a slight warm tint 28 and more, a disc of a twentieth of the width 85 and more."""
NUM_CELLS = 32
"""Cells along each side: a thing of a hundredth of the side is still a tenth of a cell."""

FINE_TASKS = frozenset({"denoise", "deblur", "derain", "raindrop", "desnow"})
FINE_PSNR_DB = 35.0
"""These tasks are to change single pixels and no area's colour: only what is nearly equal was not worked on."""

PSNR_CAP_DB = 99.0
"""The PSNR of pictures that are the same."""
SSIM_SIDE = 256
"""The authors of SSIM average pixels until the short side has about so many (Wang et al. 2004, their ssim.m)."""

_SSIM_WINDOW = 11
_Levels = npt.NDArray[np.uint8]


class CopyThrough:
    """The output against the input that it most resembles, resized to the output's size."""

    name = "copy_through"
    columns = pa.schema(
        [
            ("copy_psnr_db", pa.float32()),
            ("copy_ssim", pa.float32()),
            ("copy_change", pa.float32()),  # the largest change of a cell's mean colour, levels of 255
            ("copy_through", pa.bool_()),
        ]
    )
    needs_inputs = True
    num_gpus = 0.0
    batch_size = 16

    def __call__(self, pictures: Sequence[Picture]) -> list[Score]:
        """One dict for each picture; what has no input is no copy, and has no numbers."""
        return [compare(picture) for picture in pictures]


def open_copy_through(options: Mapping[str, Any]) -> CopyThrough:  # noqa: ARG001
    """The factory of the registry; there are no options."""
    return CopyThrough()


def compare(picture: Picture) -> Score:
    """The columns of one picture. A copy that is shifted, cropped or mirrored is not found."""
    if not picture.inputs:
        return dict.fromkeys(CopyThrough.columns.names) | {"copy_through": False}
    output = picture.image
    found = [(psnr_db(output, one), -place, one) for place, one in enumerate(_resized(picture))]
    nearest_db, _, nearest = max(found, key=lambda one: one[:2])
    change = largest_change(output, nearest)
    is_fine = picture.task in FINE_TASKS
    return {
        "copy_psnr_db": nearest_db,
        "copy_ssim": ssim(output, nearest),
        "copy_change": change,
        "copy_through": nearest_db >= (FINE_PSNR_DB if is_fine else COPY_PSNR_DB) and change <= COPY_CHANGE,
    }


def psnr_db(one: Image.Image, other: Image.Image) -> float:
    """Peak signal to noise ratio over all channels of two RGB images of one size, at most PSNR_CAP_DB."""
    difference = np.asarray(one, np.float32) - np.asarray(other, np.float32)
    error = float(np.square(difference).mean(dtype=np.float64))
    return min(PSNR_CAP_DB, 10 * math.log10(255**2 / error)) if error else PSNR_CAP_DB


def ssim(one: Image.Image, other: Image.Image) -> float | None:
    """Structural similarity of the luma of two images of one size (Wang et al. 2004), at a short side of about 256.

    None below 11 pixels, the window of SSIM.
    """
    from skimage.metrics import structural_similarity

    factor = max(1, round(min(one.size) / SSIM_SIDE))
    first, second = (np.asarray(image.convert("L").reduce(factor)) for image in (one, other))
    if min(first.shape) < _SSIM_WINDOW:
        return None
    return float(
        structural_similarity(
            first, second, data_range=255, gaussian_weights=True, sigma=1.5, use_sample_covariance=False
        )
    )


def largest_change(one: Image.Image, other: Image.Image) -> float:
    """How far the mean colour of any cell of NUM_CELLS × NUM_CELLS differs, in levels of 255."""
    return float(np.abs(_cells(one) - _cells(other)).max())


def _cells(image: Image.Image) -> npt.NDArray[np.float64]:
    size = (min(NUM_CELLS, image.width), min(NUM_CELLS, image.height))
    return np.asarray(image.resize(size, Image.Resampling.BOX), np.float64)


def _resized(picture: Picture) -> list[Image.Image]:
    size = picture.image.size
    return [one if one.size == size else one.resize(size, Image.Resampling.BICUBIC) for one in picture.inputs]
