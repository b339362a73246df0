"""The figure of a person: 11 joints, 10 limbs, and where the joints are in each pose. Knows no scenes and no pixels.

Left and right are those of the picture. Lengths are shares of a picture's side, x to the right and y down.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable
from typing import NamedTuple

Point = tuple[float, float]

JOINTS = (
    "head",
    "neck",
    "hip",
    "left elbow",
    "left hand",
    "right elbow",
    "right hand",
    "left knee",
    "left foot",
    "right knee",
    "right foot",
)


class Limb(NamedTuple):
    """From joint to joint, with its half width, what covers it, and its colour in a skeleton picture."""

    name: str
    start: str
    end: str
    half_width: float
    cover: str
    rgb: tuple[int, int, int]


LIMBS = (
    Limb("left thigh", "hip", "left knee", 0.044, "trousers", (0, 128, 255)),
    Limb("left shin", "left knee", "left foot", 0.040, "trousers", (0, 0, 255)),
    Limb("right thigh", "hip", "right knee", 0.044, "trousers", (255, 0, 255)),
    Limb("right shin", "right knee", "right foot", 0.040, "trousers", (140, 60, 255)),
    Limb("left forearm", "left elbow", "left hand", 0.036, "skin", (255, 255, 0)),
    Limb("right forearm", "right elbow", "right hand", 0.036, "skin", (0, 255, 255)),
    Limb("torso", "neck", "hip", 0.075, "shirt", (255, 255, 255)),
    Limb("left upper arm", "neck", "left elbow", 0.042, "shirt", (255, 128, 0)),
    Limb("right upper arm", "neck", "right elbow", 0.042, "shirt", (0, 255, 0)),
    Limb("head", "neck", "head", 0.030, "skin", (255, 0, 0)),
)
"""In the order in which they are painted: a later limb lies over an earlier one. So sleeves lie over forearms."""

COVERS = ("trousers", "skin", "shirt")
"""What covers limbs. Each has one colour."""

LAYERS = tuple(
    (cover, slice(group[0], group[-1] + 1))
    for cover, numbers in itertools.groupby(range(len(LIMBS)), key=lambda number: LIMBS[number].cover)
    for group in [list(numbers)]
)
"""Neighbours in LIMBS with one cover, which are painted at once."""

HEAD_RADIUS = 0.078
STARTS = tuple(JOINTS.index(limb.start) for limb in LIMBS)
ENDS = tuple(JOINTS.index(limb.end) for limb in LIMBS)

_HEAD_Y, _NECK_Y, _HIP_Y = 0.185, 0.30, 0.555
_ARM = 0.135
_LEG = 0.18

# Degrees away from hanging straight down, outwards: upper and lower part.
_ARM_DOWN, _ARM_OUT, _ARM_UP = (52.0, 8.0), (92.0, 92.0), (125.0, 168.0)
_LEG_DOWN, _LEG_OUT, _LEG_UP = (13.0, 3.0), (32.0, 24.0), (84.0, 4.0)

ARM_POSES = {
    "arms down": (_ARM_DOWN, _ARM_DOWN),
    "arms up": (_ARM_UP, _ARM_UP),
    "arms out": (_ARM_OUT, _ARM_OUT),
    "left arm up": (_ARM_UP, _ARM_DOWN),
    "right arm up": (_ARM_DOWN, _ARM_UP),
}
LEG_POSES = {
    "legs together": (_LEG_DOWN, _LEG_DOWN),
    "legs apart": (_LEG_OUT, _LEG_OUT),
    "left leg up": (_LEG_UP, _LEG_DOWN),
}


def joints_of(arms: str, legs: str, x: float, swings: Iterable[float]) -> tuple[Point, ...]:
    """The joints, in the order of JOINTS, of a person who stands at ``x``.

    ``swings`` are eight angles in degrees that are added to those of the pose.
    """
    head, neck, hip = (x, _HEAD_Y), (x, _NECK_Y), (x, _HIP_Y)
    swing = iter(swings)
    found = [head, neck, hip]
    for origin, length, sides in ((neck, _ARM, ARM_POSES[arms]), (hip, _LEG, LEG_POSES[legs])):
        for outwards, angles in zip((-1.0, 1.0), sides, strict=True):
            point = origin
            for angle in angles:
                point = _from(point, angle + next(swing), length, outwards)
                found.append(point)
    return tuple(found)


def _from(point: Point, angle: float, length: float, outwards: float) -> Point:
    turn = math.radians(angle)
    return (point[0] + outwards * length * math.sin(turn), point[1] + length * math.cos(turn))
