"""What a picture shows where a thing should be: its colour, and the shape and size that its outline fits best.

Knows no tasks and no right outputs, only where to look. It looks at 64 px: larger pictures are first made smaller.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import lru_cache

import numpy as np

from pipelines.world.presets import World
from pipelines.world.render import INK, pixel_centres
from pipelines.world.scene import Thing
from pipelines.world.shapes import REACH, SHAPES, Array

SIDE = 64
"""The side in pixels of what is looked at."""

MAX_SHIFT = 2
"""How many pixels a thing may be from where it should be. No words tell it closer than 1.6 pixels."""

FEWEST_ALIKE = 0.4
"""An outline that shares less than this with the best of all outlines (intersection over union) is no thing."""

_SHIFTS = range(-MAX_SHIFT, MAX_SHIFT + 1)
_FEWEST_INNER = 6
_INK_REACH = 2


@dataclass(frozen=True, slots=True)
class Fit:
    """The shape and size whose outline is most like what is seen, and the intersection over union of the two."""

    shape: str
    size: str
    overlap: float


@lru_cache(maxsize=8)
def at_side(world: World) -> World:
    """The same world with pictures of the size that is looked at."""
    return replace(world, size=SIDE)


def reduced(picture: Array) -> Array:
    """The picture (H, W, 3) uint8 at 64 px: (64, 64, 3) float32, the means of squares of pixels."""
    step = picture.shape[0] // SIDE
    if step == 1:
        return picture.astype(np.float32)
    squares: Array = picture.reshape(SIDE, step, SIDE, step, 3).astype(np.float32).mean(axis=(1, 3))
    return squares


def nearest(pixels: Array, colours: Array) -> Array:
    """For each of ``pixels`` (…, 3) the number of the nearest of ``colours`` (N, 3), by distance in RGB."""
    # |p - c|² without |p|², which is the same for all colours.
    found: Array = ((colours * colours).sum(axis=1) - 2 * (pixels @ colours.T)).argmin(axis=-1)
    return found


@lru_cache(maxsize=8)
def named_colours(world: World) -> tuple[tuple[str, ...], Array]:
    """The names of all colours, of things and of backgrounds, and their (N, 3) float32."""
    return tuple(world.rgb), np.array([*world.rgb.values()], np.float32)


def share_of_colour(world: World, pixels: Array, colour: str) -> float:
    """The share of ``pixels`` (N, 3) that are nearest to a colour, among those of things and backgrounds."""
    names, colours = named_colours(world)
    return float((nearest(pixels, colours) == names.index(colour)).mean())


def background_seen(world: World, picture: Array, free: Array) -> str:
    """The background whose colour is nearest to the median of what ``free`` (64, 64) bool marks."""
    colours = np.array([rgb for _, rgb in world.backgrounds], np.float32)
    return world.background_names[int(nearest(np.median(picture[free], axis=0), colours))]


def shows(world: World, picture: Array, mask: Array, colour: str, *, textured: bool = False) -> bool:
    """Whether the inner part of what ``mask`` (64, 64) bool marks, or that a little shifted, has a colour.

    It has the one whose name's colour is nearest to its median, among those of things and backgrounds. Of a texture the
    brightest third is taken: the rest may be ink, or between both.
    """
    wanted = tuple(world.rgb).index(colour)
    colours = named_colours(world)[1]
    return any(int(nearest(_median(pixels, textured), colours)) == wanted for pixels in _around(picture, mask))


def core(world: World, mask: Array, thing: Thing) -> Array:
    """The part of a thing's mask (64, 64) bool that it would have in the smallest size.

    Its colour is looked for there, so that a thing of the wrong size is not one of the wrong colour. The whole mask
    where another thing hides that part.
    """
    smallest = min(radius for _, radius in world.sizes) * SIDE
    centres = pixel_centres(SIDE)
    off_x, off_y = centres - np.float32(thing.x * SIDE), centres[:, None] - np.float32(thing.y * SIDE)
    found: Array = mask & (off_x * off_x + off_y * off_y < smallest * smallest)
    return found if found.sum() >= _FEWEST_INNER else mask


def grown(mask: Array, reach: int) -> Array:
    """A mask (H, W) bool and all pixels within ``reach`` of it, also over corners."""
    found: Array = np.pad(mask, reach)
    for axis in (0, 1):
        windows = np.lib.stride_tricks.sliding_window_view(found, 2 * reach + 1, axis=axis)
        found = np.logical_or.reduce(windows, axis=-1)
    return found


def inner(mask: Array) -> Array:
    """A mask (H, W) bool without its rim of one pixel; the mask itself where hardly anything would be left."""
    eaten = mask.copy()
    eaten[1:] &= mask[:-1]
    eaten[:-1] &= mask[1:]
    eaten[:, 1:] &= mask[:, :-1]
    eaten[:, :-1] &= mask[:, 1:]
    return eaten if eaten.sum() >= _FEWEST_INNER else mask


def _around(picture: Array, mask: Array) -> Iterator[Array]:
    """The pixels (N, 3) under the mask's inner part: where it is, then shifted by the most to each side."""
    rows, columns = np.nonzero(inner(mask))
    steps = (0, -MAX_SHIFT, MAX_SHIFT)
    for down, across in itertools.product(steps, steps):
        yield picture[np.clip(rows + down, 0, SIDE - 1), np.clip(columns + across, 0, SIDE - 1)]


def _median(pixels: Array, textured: bool) -> Array:
    if textured:
        brightness = pixels.sum(axis=1)
        pixels = pixels[brightness >= np.quantile(brightness, 2 / 3)]
    found: Array = np.median(pixels, axis=0)
    return found


def fitted(world: World, picture: Array, thing: Thing, known: Array) -> Fit:
    """Which outline of all shapes, sizes and small turns and shifts fits best around the thing's place.

    The outline is that of all pixels which are nearest to the thing's colour; of a thing with a texture also of those
    beside them that are nearest to an ink. Only pixels that ``known`` (64, 64) bool marks count: what another thing
    hides tells nothing.
    """
    outline = _outline(world, picture, thing)
    outlines, names = _outlines(at_side(world))
    seen, told = (_windows(part, world.centres[thing.place]) for part in (outline & known, known))
    shared = outlines @ seen.T
    overlap = shared / np.maximum(outlines @ told.T + seen.sum(axis=1) - shared, 1)
    best = int(overlap.argmax())
    shape, size = names[best // overlap.shape[1]]
    return Fit(shape, size, float(overlap.flat[best]))


def _outline(world: World, picture: Array, thing: Thing) -> Array:
    names, colours = named_colours(world)
    wanted = names.index(thing.colour)
    if thing.texture == "plain":
        coloured: Array = nearest(picture, colours) == wanted
        return coloured
    inks = np.array([rgb for _, rgb in world.colours], np.float32) * INK
    found = nearest(picture, np.concatenate([colours, inks]))
    coloured = np.equal(found, wanted)
    inked: Array = grown(coloured, _INK_REACH) & (found >= len(names))
    return np.logical_or(coloured, inked)


def _windows(mask: Array, centre: tuple[float, float]) -> Array:
    """What is around a place, once for each shift: (shifts, pixels) float32, nothing beyond the border."""
    half = _reach() + MAX_SHIFT
    column, row = (round(share * SIDE) for share in centre)
    padded = np.pad(mask, half)[row : row + 2 * half, column : column + 2 * half]
    window = 2 * _reach()
    shifted = np.lib.stride_tricks.sliding_window_view(padded, (window, window))
    return shifted.reshape(len(_SHIFTS) ** 2, -1).astype(np.float32)


@lru_cache(maxsize=8)
def _outlines(world: World) -> tuple[Array, list[tuple[str, str]]]:
    """Outlines in the middle of a window, (outlines, pixels) float32, with the shape and size of each."""
    steps = np.arange(2 * _reach(), dtype=np.float32) + np.float32(0.5 - _reach())
    found, names = [], []
    for shape, (size, radius), growth in itertools.product(world.shapes, world.sizes, (-1, 0, 1)):
        pixels = radius * (1 + growth * world.max_growth) * SIDE
        for turn in (0.0,) if shape == "circle" else (-1.0, 0.0, 1.0):
            angle = math.radians(turn * world.max_tilt)
            for off_x, off_y in itertools.product((0.0, 0.5), repeat=2):
                x, y = (steps[None, :] - off_x) / pixels, (steps[:, None] - off_y) / pixels
                u, v = x * math.cos(angle) + y * math.sin(angle), y * math.cos(angle) - x * math.sin(angle)
                found.append(SHAPES[shape](u, v).ravel() < 0)
                names.append((shape, size))
    return np.array(found, np.float32), names


def _reach() -> int:
    """Half the side of a window: no thing's outline is larger."""
    return math.ceil(0.19 * REACH * SIDE)
