"""The scorer ``edges``: does an image that was made by an edge map keep to it? Knows no model.

Canny edges of the output are held against the lines of the map, with a tolerance: precision says how many edges lie on
lines, recall how many lines have an edge, and F1 is their harmonic mean. As in the benchmark of Berkeley (Arbeláez et
al. 2011) the scale is the best one for each picture: nobody knows how the map was drawn.
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

SIGMAS = (1.0, 1.5, 2.0, 3.0)
"""Widths in pixels of the smoothing before Canny."""
TOLERANCE = 0.002
"""Of the diagonal, at least one pixel: 1 px at 512 × 512, 3 px at 1024 × 1024."""

LINE_LEVEL = 64
"""Brighter is a line: one of a single pixel is still that bright when it was shrunk to half."""
_MID_LEVELS = (64, 192)
MOST_MID = 0.15
"""A map is black and white: so much of it may be grey, where lines were smoothed. A depth map has ten times that."""
LINE_SHARES = (0.001, 0.45)
"""How much of a map is line."""
_COLOUR_LEVELS = 24
MOST_COLOUR = 0.02
"""A skeleton is drawn in colours, a map is not."""

_Mask = npt.NDArray[np.bool_]


class Edges:
    """``tasks``: those whose first input may be an edge map. ``condition`` takes any map: what is none has no score."""

    name = "edges"
    columns = pa.schema([("edges_f1", pa.float32())])
    needs_inputs = True
    num_gpus = 0.0
    batch_size = 16

    def __init__(self, tasks: Sequence[str] = ("condition",)) -> None:
        self.tasks = frozenset(tasks)

    def __call__(self, pictures: Sequence[Picture]) -> list[Score]:
        """One dict for each picture; None for other tasks and for maps that have no edges drawn."""
        return [{"edges_f1": self._f1(picture)} for picture in pictures]

    def _f1(self, picture: Picture) -> float | None:
        if picture.task not in self.tasks or not picture.inputs:
            return None
        lines_HW = lines(picture.inputs[0])
        return None if lines_HW is None else best_f1(picture.image, lines_HW)


def open_edges(options: Mapping[str, Any]) -> Edges:
    """The factory of the registry. ``tasks``: names with commas between."""
    names = str(options.get("tasks") or "condition").split(",")
    return Edges([name.strip() for name in names if name.strip()])


def lines(image: Image.Image) -> _Mask | None:
    """Where an RGB edge map has its lines, white on black or black on white; None for what looks like none."""
    rgb_HW3 = np.asarray(image)
    colour_HW = rgb_HW3.max(axis=2) - rgb_HW3.min(axis=2)
    grey_HW = np.asarray(image.convert("L"))
    low, high = _MID_LEVELS
    if (colour_HW > _COLOUR_LEVELS).mean() > MOST_COLOUR or ((grey_HW > low) & (grey_HW < high)).mean() > MOST_MID:
        return None
    is_inverted = (grey_HW > 127).mean() > 0.5
    found_HW = (255 - grey_HW if is_inverted else grey_HW) > LINE_LEVEL
    fewest, most = LINE_SHARES
    return found_HW if fewest <= found_HW.mean() <= most else None


def best_f1(output: Image.Image, lines_HW: _Mask) -> float:
    """F1 of the output's edges against the lines, at the scale that suits best; 0 where no edge is found.

    The output is resized to the map, since thin lines would not outlive a resize.
    """
    from skimage.feature import canny

    height, width = lines_HW.shape
    if output.size != (width, height):
        output = output.resize((width, height), Image.Resampling.BICUBIC)
    grey_HW = np.asarray(output.convert("L"), np.float32) / 255
    tolerance_px = max(1, round(TOLERANCE * math.hypot(width, height)))
    return max(f1(canny(grey_HW, sigma=sigma), lines_HW, tolerance_px) for sigma in SIGMAS)


def f1(edges_HW: _Mask, lines_HW: _Mask, tolerance_px: int) -> float:
    """Harmonic mean of precision and recall; a pixel counts where the other mask has one within the tolerance."""
    precision, recall = (
        _share(edges_HW, _grown(lines_HW, tolerance_px)),
        _share(lines_HW, _grown(edges_HW, tolerance_px)),
    )
    return 2 * precision * recall / (precision + recall) if precision + recall else 0.0


def _share(mask_HW: _Mask, near_HW: _Mask) -> float:
    count = int(mask_HW.sum())
    return int((mask_HW & near_HW).sum()) / count if count else 0.0


def _grown(mask_HW: _Mask, radius_px: int) -> _Mask:
    from scipy.ndimage import maximum_filter

    grown: _Mask = maximum_filter(mask_HW.view(np.uint8), size=2 * radius_px + 1).astype(bool)
    return grown
