"""Signed distances of shapes and patterns on them, over whole arrays of pixels. Knows no scenes and no colours.

Coordinates ``u``, ``v`` are counted in radii from a shape's centre, ``v`` downwards. A distance is negative inside.
Outside of a square, triangle or cross it is that of the nearest side's line: enough for a rim of one pixel.
The formulas are those of I. Quilez, "2D distance functions", where not written out.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

Array = np.ndarray[Any, Any]
"""Of the shape and type that a docstring says."""

REACH = 1.3
"""No shape has a point farther than this from its centre, in radii, on either axis."""

_SQUARE = 0.9
_TRIANGLE_TOP, _TRIANGLE_HALF = 1.02, 1.178  # its box is centred, so that a place holds it; all sides are equal
_BAR_LENGTH, _BAR_WIDTH = 1.08, 0.4
_STAR_TIP, _STAR_DENT = 1.28, 0.6
_FIFTH = 2 * math.pi / 5


def _circle(u: Array, v: Array) -> Array:
    found: Array = np.sqrt(u * u + v * v) - 1
    return found


def _square(u: Array, v: Array) -> Array:
    return np.maximum(np.abs(u), np.abs(v)) - _SQUARE


def _triangle(u: Array, v: Array) -> Array:
    slant = math.hypot(2 * _TRIANGLE_TOP, _TRIANGLE_HALF)
    sides = (np.abs(u) * 2 * _TRIANGLE_TOP - (v + _TRIANGLE_TOP) * _TRIANGLE_HALF) / slant
    return np.maximum(sides, v - _TRIANGLE_TOP)


def _cross(u: Array, v: Array) -> Array:
    across, along = np.abs(u), np.abs(v)
    bar = np.maximum(across - _BAR_LENGTH, along - _BAR_WIDTH)
    return np.minimum(bar, np.maximum(across - _BAR_WIDTH, along - _BAR_LENGTH))


def _star(u: Array, v: Array) -> Array:
    """Folded into half a point: then one segment, from the tip to the dent, bounds it."""
    distance = np.sqrt(u * u + v * v)
    angle = np.abs(np.remainder(np.arctan2(u, -v) + _FIFTH / 2, _FIFTH) - _FIFTH / 2)
    x, y = distance * np.cos(angle) - _STAR_TIP, distance * np.sin(angle)
    along_x, along_y = _STAR_DENT * math.cos(_FIFTH / 2) - _STAR_TIP, _STAR_DENT * math.sin(_FIFTH / 2)
    share = np.clip((x * along_x + y * along_y) / (along_x**2 + along_y**2), 0, 1)
    off_x, off_y = x - share * along_x, y - share * along_y
    found: Array = np.copysign(np.sqrt(off_x * off_x + off_y * off_y), x * along_y - y * along_x)
    return found


SHAPES: dict[str, Callable[[Array, Array], Array]] = {
    "circle": _circle,
    "square": _square,
    "triangle": _triangle,
    "cross": _cross,
    "star": _star,
}
"""Shape to its signed distance in radii."""


def _striped(u: Array, v: Array) -> Array:  # noqa: ARG001
    found: Array = np.clip(0.5 + 2 * np.sin(v * 8.5), 0, 1)
    return found


def _dotted(u: Array, v: Array) -> Array:
    found: Array = np.clip(2 * (np.cos(u * 8) + np.cos(v * 8) - 0.4), 0, 1)
    return found


PATTERNS: dict[str, Callable[[Array, Array], Array]] = {"striped": _striped, "dotted": _dotted}
"""Texture to how much of the dark ink is at a point, 0 … 1. A plain thing has none."""


def coverage(distance: Array) -> Array:
    """How much of each pixel a shape covers, 0 … 1, from its distance in pixels: smooth over a rim of 1.4 pixels."""
    share = np.clip(0.5 - distance * (1 / 1.4), 0, 1)
    return share * share * (3 - 2 * share)


def segment_distances(xs: Array, ys: Array, starts: Array, ends: Array) -> Array:
    """The distance of each pixel from each segment: (segments, ``ys``, ``xs``), in the unit of the coordinates.

    ``starts`` and ``ends`` are (segments, 2) as (x, y).
    """
    along = ends - starts
    along_x, along_y = along[:, 0, None, None], along[:, 1, None, None]
    from_x = xs[None, None, :] - starts[:, 0, None, None]
    from_y = ys[None, :, None] - starts[:, 1, None, None]
    squared = along_x * along_x + along_y * along_y
    share = np.clip(from_x * (along_x / squared) + from_y * (along_y / squared), 0, 1)
    off_x, off_y = from_x - share * along_x, from_y - share * along_y
    found: Array = np.sqrt(off_x * off_x + off_y * off_y)
    return found
