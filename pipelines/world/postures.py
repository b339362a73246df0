"""How a person stands: in a photo, the known posture that fits best; in a skeleton, the middle of each limb.

Knows no tasks. It looks at pictures of 64 px, as `looking` does, and lengths are pixels of those.
"""

from __future__ import annotations

import itertools
from functools import lru_cache

import numpy as np

from pipelines.world.figure import COVERS, ENDS, LIMBS, STARTS, Point, joints_of
from pipelines.world.looking import SIDE, at_side, nearest
from pipelines.world.presets import World
from pipelines.world.render import render
from pipelines.world.scene import Person, Scene
from pipelines.world.shapes import Array
from pipelines.world.truth import parts

NOT_FOUND_PX = SIDE / 2
"""What counts as the error of a limb or a person that is not there."""

_FEWEST_ALIKE = 0.3
_FEWEST_PIXELS, _MOST_PIXELS = 0.3, 4.0  # against those of the true limb: what fills the picture is none
_DARKEST = 80.0
_LEAST_ALIKE = 0.93  # a cosine: an angle of 21 degrees
_SHIFTS = (0, -1, 1)
_RGB = np.array([limb.rgb for limb in LIMBS], np.float32)
_HUES = _RGB / np.sqrt(np.square(_RGB).sum(axis=1))[:, None]


def posture_error_px(world: World, picture: Array, person: Person) -> float:
    """How far the limbs' middles are, in the mean, from those of the posture that the picture fits best.

    The postures are the person's own, and those of all words in all columns, where no limb is a little turned. A
    picture that fits none of them has no person.
    """
    own, own_middles = _covers(at_side(world), person).reshape(1, -1), _middles(person.joints)
    others, middles = _postures(at_side(world))
    covers = _seen_covers(world, picture)
    shifted = np.stack([np.roll(covers, -shift, axis=2).ravel() for shift in _SHIFTS])
    fits = np.concatenate([_alike(own, shifted), _alike(others, shifted)])
    best, step = divmod(int(fits.argmax()), len(_SHIFTS))
    if fits[best, step] < _FEWEST_ALIKE:
        return NOT_FOUND_PX
    off = np.concatenate([own_middles[None], middles])[best] - own_middles
    off[:, 0] += _SHIFTS[step]
    return float(np.hypot(off[:, 0], off[:, 1]).mean())


def limb_errors_px(picture: Array, right: Array) -> Array:
    """For each limb that the right skeleton shows, how far its middle is in the other one; NaN where it is not found.

    A middle is the median, on either axis, of the pixels in the limb's hue: a few that are elsewhere do not move it.
    """
    seen, true = _limbs_seen(picture), _limbs_seen(right)
    there = [limb for limb in range(len(LIMBS)) if (true == limb).any()]
    return np.array([_limb_error_px(seen == limb, true == limb) for limb in there])


def _limb_error_px(seen: Array, true: Array) -> float:
    if not _FEWEST_PIXELS <= seen.sum() / true.sum() <= _MOST_PIXELS:
        return float("nan")
    (row, column), (true_row, true_column) = (np.median(np.nonzero(mask), axis=1) for mask in (seen, true))
    return float(np.hypot(row - true_row, column - true_column))


def _limbs_seen(picture: Array) -> Array:
    """The number of the limb that each pixel shows, (64, 64); a number beyond all limbs where it shows none.

    By hue alone: a thin line that is a little blurred is darker all over.
    """
    brightness = np.sqrt(np.square(picture).sum(axis=2))
    alike = (picture @ _HUES.T) / np.maximum(brightness, 1)[:, :, None]
    found: Array = alike.argmax(axis=2)
    found[(brightness < _DARKEST) | (alike.max(axis=2) < _LEAST_ALIKE)] = len(LIMBS)
    return found


def _alike(postures: Array, seen: Array) -> Array:
    """Intersection over union of what covers the limbs: (postures, shifts) from (postures, N) and (shifts, N)."""
    shared = postures @ seen.T
    found: Array = shared / np.maximum(postures.sum(axis=1)[:, None] + seen.sum(axis=1) - shared, 1)
    return found


def _seen_covers(world: World, picture: Array) -> Array:
    """Where each cover of limbs can be seen, (covers, 64, 64) float32. A shirt may have any colour of a thing."""
    of_cover = {"trousers": [world.trousers], "skin": [world.skin], "shirt": [rgb for _, rgb in world.colours]}
    colours = [*(rgb for cover in COVERS for rgb in of_cover[cover]), *(rgb for _, rgb in world.backgrounds)]
    covers = [n for n, cover in enumerate(COVERS) for _ in of_cover[cover]] + [len(COVERS)] * len(world.backgrounds)
    found = np.array(covers)[nearest(picture, np.array(colours, np.float32))]
    return _one_hot(found)


@lru_cache(maxsize=8)
def _postures(world: World) -> tuple[Array, Array]:
    """Every posture that words tell: what covers the limbs, (postures, N), and the limbs' middles."""
    covers, middles = [], []
    for arms, legs, (column, x) in itertools.product(world.arm_poses, world.leg_poses, world.columns):
        joints = joints_of(arms, legs, x, [0.0] * 8)
        shirt = world.colour_names[0]
        covers.append(_covers(world, Person(shirt=shirt, arms=arms, legs=legs, column=column, joints=joints)))
        middles.append(_middles(joints))
    return np.array(covers).reshape(len(covers), -1), np.array(middles)


def _covers(world: World, person: Person) -> Array:
    scene = Scene(background=world.background_names[0], person=person)
    shown = parts(scene, render(world, scene).ids)
    return _one_hot(shown.astype(np.int64) - 1)


def _middles(joints: tuple[Point, ...]) -> Array:
    """The middle of each limb in pixels, (limbs, 2) as (x, y)."""
    points = np.array(joints) * SIDE
    found: Array = (points[list(STARTS)] + points[list(ENDS)]) / 2
    return found


def _one_hot(covers: Array) -> Array:
    layers: Array = covers[None] == np.arange(len(COVERS))[:, None, None]
    return layers.astype(np.float32)
