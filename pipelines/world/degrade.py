"""What spoils a picture: noise, blur, weather, drops, darkness, holes, missing colour. Knows no tasks and no words.

Each takes a rendering and a stream of draws and gives a new picture (H, W, 3) uint8. Lengths are shares of a side.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import lru_cache

import numpy as np

from pipelines.world.draws import Rng, around, between, pick
from pipelines.world.render import Rendering, pixel_centres
from pipelines.world.shapes import Array, coverage
from pipelines.world.truth import grey_picture

_SIGMAS = (0.022, 0.027, 0.032)
_DROP_SIGMA = 0.05
_HAZE = np.array((222, 226, 232), np.float32)
_RAIN = np.float32(235)
_NUM_STREAKS, _NUM_FLAKES, _NUM_DROPS = 44, 42, 5
_NUM_HOLES, _NUM_HOLE_TRIES = 3, 12
_STREAK_LENGTH = 0.16
_FLAKE_REACH = 0.03
_HIDDEN_AT_MOST = 0.4


def noise(rendering: Rendering, rng: Rng) -> Array:
    """Normal noise in each channel."""
    sigma = np.float32(between(rng, 22, 38))
    return _to_bytes(rendering.picture + sigma * rng.standard_normal(rendering.picture.shape, dtype=np.float32))


def blur(rendering: Rendering, rng: Rng) -> Array:
    """A normal blur; what lies beyond the border is like the border."""
    return _to_bytes(_blurred(rendering.picture, pick(rng, _SIGMAS)))


def rain(rendering: Rendering, rng: Rng) -> Array:
    """Bright slanting streaks, all in one direction."""
    size = rendering.ids.shape[0]
    slant, length, width = around(rng, 0.5), round(_STREAK_LENGTH * size), size // 64
    starts = rng.random((_NUM_STREAKS, 2)) * size
    steps = np.arange(-length // 2, length // 2)
    rows = (starts[:, 1, None] + steps).astype(np.int64)
    across = starts[:, 0, None] + slant * steps
    columns = np.floor(across).astype(np.int64)
    share = (across - columns).astype(np.float32)
    veil = np.zeros((size, size), np.float32)
    for offset in range(width):
        _lay(veil, rows, columns + offset, 1 - share if offset == 0 else np.ones_like(share))
    _lay(veil, rows, columns + width, share)
    return _towards(rendering.picture, _RAIN, np.float32(0.75) * veil)


def snow(rendering: Rendering, rng: Rng) -> Array:
    """White flakes of several sizes."""
    size = rendering.ids.shape[0]
    reach = math.ceil(_FLAKE_REACH * size)
    centres = (rng.random((_NUM_FLAKES, 2)) * size).astype(np.float32)
    radii = (np.float32(0.011) + np.float32(0.016) * rng.random(_NUM_FLAKES).astype(np.float32)) * size
    near = np.arange(-reach, reach + 1)
    columns = centres[:, 0, None].astype(np.int64) + near
    rows = centres[:, 1, None].astype(np.int64) + near
    off_x = columns + np.float32(0.5) - centres[:, 0, None]
    off_y = rows + np.float32(0.5) - centres[:, 1, None]
    distance = np.sqrt(off_x[:, None, :] ** 2 + off_y[:, :, None] ** 2) - radii[:, None, None]
    veil = np.zeros((size, size), np.float32)
    shape = distance.shape
    _lay(
        veil, np.broadcast_to(rows[:, :, None], shape), np.broadcast_to(columns[:, None, :], shape), coverage(distance)
    )
    return _towards(rendering.picture, np.float32(255), veil)


def drops(rendering: Rendering, rng: Rng) -> Array:
    """Drops on the glass: through them the picture is blurred and brighter, with a light rim."""
    size = rendering.ids.shape[0]
    behind = _blurred(rendering.picture, _DROP_SIGMA) * np.float32(0.6) + np.float32(95)
    spoiled = rendering.picture.astype(np.float32)
    centres = pixel_centres(size)
    for _ in range(_NUM_DROPS):
        x, y, radius = rng.random() * size, rng.random() * size, between(rng, 0.06, 0.11) * size
        reach = 1.2 * radius + 2
        area = (_span(y - reach, y + reach, size), _span(x - reach, x + reach, size))
        off_x, off_y = centres[area[1]] - np.float32(x), (centres[area[0], None] - np.float32(y)) * np.float32(0.85)
        distance = np.sqrt(off_x * off_x + off_y * off_y) - np.float32(radius)
        rim = np.clip(1 - np.abs(distance + 1) * (64 / size), 0, 1)
        patch = spoiled[area]
        patch += coverage(distance)[:, :, None] * (behind[area] - patch)
        patch += (rim * np.float32(0.5))[:, :, None] * (255 - patch)
    return _to_bytes(spoiled)


def haze(rendering: Rendering, rng: Rng) -> Array:
    """What is farther fades more into a light grey: I = J t + A (1 - t), t = exp(-k (1 - depth)) (He et al., 2009)."""
    thickness = np.float32(between(rng, 0.6, 1.0))
    return _towards(rendering.picture, _HAZE, 1 - np.exp(-thickness * (1 - rendering.depth)))


def darkness(rendering: Rendering, rng: Rng) -> Array:
    """Little light, and a trace of noise."""
    light = np.float32(between(rng, 0.22, 0.38))
    return _to_bytes(rendering.picture * light + rng.standard_normal(rendering.picture.shape, dtype=np.float32))


def holes(rendering: Rendering, rng: Rng) -> Array:
    """Black rectangles. None, nor all together, hides so much of a thing or limb that it could not be told."""
    size = rendering.ids.shape[0]
    spoiled = rendering.picture.copy()
    ids = rendering.ids.copy()
    num_before = np.bincount(ids.ravel())
    num_holes = 0
    for _ in range(_NUM_HOLE_TRIES):
        width, height = (round(between(rng, 0.15, 0.26) * size) for _ in range(2))
        left, top = int(rng.random() * (size - width)), int(rng.random() * (size - height))
        area = np.s_[top : top + height, left : left + width]
        tried = ids.copy()
        tried[area] = 0
        num_left = np.bincount(tried.ravel(), minlength=len(num_before))
        if (num_left[1:] >= (1 - _HIDDEN_AT_MOST) * num_before[1:]).all():
            ids = tried
            spoiled[area] = 0
            num_holes += 1
        if num_holes == _NUM_HOLES:
            break
    return spoiled


def no_colour(rendering: Rendering, rng: Rng) -> Array:  # noqa: ARG001
    """The picture in grey."""
    return grey_picture(rendering.picture)


DEGRADATIONS: dict[str, Callable[[Rendering, Rng], Array]] = {
    "noise": noise,
    "blur": blur,
    "rain": rain,
    "raindrops": drops,
    "snow": snow,
    "haze": haze,
    "darkness": darkness,
    "grey": no_colour,
    "holes": holes,
}
"""What spoils a picture, by name."""


def _blurred(picture: Array, sigma: float) -> Array:
    """Rows, then columns, by one matrix: much faster than sums of shifted pictures at these sizes."""
    size = picture.shape[0]
    kernel = _blur_matrix(size, sigma)
    rows = (kernel @ picture.reshape(size, -1).astype(np.float32)).reshape(picture.shape)
    done: Array = np.matmul(kernel, rows)
    return done


@lru_cache(maxsize=16)
def _blur_matrix(size: int, sigma: float) -> Array:
    """(size, size): each row the weights of one output pixel; those of pixels beyond the border are the border's."""
    steps = np.arange(-size, 2 * size)
    weights = np.exp(-((steps[None, :] - np.arange(size)[:, None]) ** 2) / (2 * (sigma * size) ** 2))
    matrix = np.zeros((size, size))
    for step, column in zip(np.clip(steps, 0, size - 1), weights.T, strict=True):
        matrix[:, step] += column
    kernel: Array = (matrix / matrix.sum(axis=1, keepdims=True)).astype(np.float32)
    return kernel


def _span(start: float, end: float, size: int) -> slice:
    return slice(max(0, int(start)), min(size, int(end) + 1))


def _lay(veil: Array, rows: Array, columns: Array, share: Array) -> None:
    """Where several lie on one pixel, the densest counts; what falls outside is left out."""
    size = veil.shape[0]
    inside = (rows >= 0) & (rows < size) & (columns >= 0) & (columns < size)
    np.maximum.at(veil, (rows[inside], columns[inside]), share[inside])


def _towards(picture: Array, colour: Array | np.float32, share: Array) -> Array:
    """The picture, each pixel by its share on the way to a colour."""
    spoiled = picture.astype(np.float32)
    spoiled += share[:, :, None] * (colour - spoiled)
    return _to_bytes(spoiled)


def _to_bytes(canvas: Array) -> Array:
    return np.clip(canvas + np.float32(0.5), 0, 255).astype(np.uint8)
