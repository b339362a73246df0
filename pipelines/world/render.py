"""A scene to its picture, and to the truth that lies in the picture: which pixel is what, and how near it is.

Painted from far to near, with smooth rims. Nothing is random here: a background's texture is always the same.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from pipelines.world.figure import ENDS, HEAD_RADIUS, JOINTS, LAYERS, LIMBS, STARTS, Point
from pipelines.world.presets import World
from pipelines.world.scene import Person, Scene, Thing
from pipelines.world.shapes import PATTERNS, REACH, SHAPES, Array, coverage, segment_distances

INK = 0.3
"""How bright the dark parts of a texture are, against its colour."""

_GRADIENT, _RIPPLE = 16.0, 6.0  # of 255, from edge to edge and around the middle
_HALF_WIDTHS = np.array([limb.half_width for limb in LIMBS], np.float32)
_HEAD = JOINTS.index("head")
_HEAD_LIMB = next(n for n, limb in enumerate(LIMBS) if limb.name == "head")


@dataclass(frozen=True, slots=True, eq=False)
class Rendering:
    """``picture`` (H, W, 3) uint8; ``ids`` (H, W) uint8; ``depth`` (H, W) float32, 1 near … 0 the background.

    An id is 0 for the background, n + 1 for thing n, and after the things one for each limb in the order of LIMBS.
    """

    picture: Array
    ids: Array
    depth: Array


@dataclass(frozen=True, slots=True, eq=False)
class _Canvas:
    """A rendering under way. Channels come first in ``planes``, (3, H, W) float32: so numpy's loops are long."""

    size: int
    planes: Array
    ids: Array
    depth: Array

    def blend(self, area: tuple[slice, slice], share: Array, colour: Array) -> None:
        """Lay a colour over an area, each pixel by its share."""
        patch = self.planes[:, area[0], area[1]]
        patch += share * (colour - patch)


def render(world: World, scene: Scene) -> Rendering:
    """Paint a scene."""
    canvas = _Canvas(
        size=world.size,
        planes=background(world, scene.background).copy(),
        ids=np.zeros((world.size, world.size), np.uint8),
        depth=np.zeros((world.size, world.size), np.float32),
    )
    for one in painters_order(scene):
        if isinstance(one, Person):
            _paint_person(world, one, len(scene.things) + 1, canvas)
        else:
            _paint_thing(world, one, scene.things.index(one) + 1, canvas)
    picture = np.ascontiguousarray(to_bytes(canvas.planes).transpose(1, 2, 0))
    return Rendering(picture=picture, ids=canvas.ids, depth=canvas.depth)


def painters_order(scene: Scene) -> list[Thing | Person]:
    """Things and person from far to near."""
    everything: list[Thing | Person] = [*scene.things, *([scene.person] if scene.person else [])]
    return sorted(everything, key=lambda one: one.depth)


def to_bytes(canvas: Array) -> Array:
    """A picture of numbers from 0 to 255, rounded to bytes."""
    return (canvas + np.float32(0.5)).astype(np.uint8)


def background(world: World, name: str) -> Array:
    """A background alone: (3, H, W) float32, 0 … 255; read only. A gradient and a ripple, other ones for each."""
    return _background(world.size, world.background_names.index(name), world.rgb[name])


@lru_cache(maxsize=64)
def _background(size: int, index: int, rgb: tuple[int, int, int]) -> Array:
    x, y = pixel_centres(size)[None, :] / size, pixel_centres(size)[:, None] / size
    turn = 0.6 + 1.3 * index
    along, across = x * math.cos(turn) + y * math.sin(turn), y * math.cos(turn) - x * math.sin(turn)
    light: Array = _GRADIENT * (along - along.mean()) + _RIPPLE * np.sin(across * (26 + 5 * index))
    canvas = (np.array(rgb)[:, None, None] + light).astype(np.float32)
    canvas.setflags(write=False)
    return canvas


@lru_cache(maxsize=8)
def pixel_centres(size: int) -> Array:
    """Where the pixels of a row lie, in pixels; read only."""
    centres = np.arange(size, dtype=np.float32) + np.float32(0.5)
    centres.setflags(write=False)
    return centres


def _paint_thing(world: World, thing: Thing, number: int, canvas: _Canvas) -> None:
    size = canvas.size
    x, y, radius = thing.x * size, thing.y * size, thing.radius * size
    reach = radius * REACH * (1 + math.sin(math.radians(abs(thing.tilt)))) + 1
    columns, rows = _span(x - reach, x + reach, size), _span(y - reach, y + reach, size)
    across = (pixel_centres(size)[columns] - np.float32(x)) / np.float32(radius)
    down = (pixel_centres(size)[rows, None] - np.float32(y)) / np.float32(radius)
    cosine, sine = np.float32(math.cos(math.radians(thing.tilt))), np.float32(math.sin(math.radians(thing.tilt)))
    u, v = across * cosine + down * sine, down * cosine - across * sine
    distance = SHAPES[thing.shape](u, v)
    canvas.blend((rows, columns), coverage(distance * np.float32(radius)), _paint(world, thing, u, v))
    inside = distance < 0
    canvas.ids[rows, columns][inside] = number
    canvas.depth[rows, columns][inside] = thing.depth


def _paint(world: World, thing: Thing, u: Array, v: Array) -> Array:
    rgb = _column(world.rgb[thing.colour])
    if thing.texture not in PATTERNS:
        return rgb
    return rgb * (1 - (1 - np.float32(INK)) * PATTERNS[thing.texture](u, v))


def _paint_person(world: World, person: Person, first: int, canvas: _Canvas) -> None:
    rows, columns, bones = bone_distances(world.size, person.joints)
    distances = bones - (_HALF_WIDTHS * np.float32(world.size))[:, None, None]
    np.minimum(distances[_HEAD_LIMB], _head_distance(world.size, person, rows, columns), out=distances[_HEAD_LIMB])
    colours = {"trousers": world.trousers, "shirt": world.rgb[person.shirt], "skin": world.skin}
    for cover, limbs in LAYERS:
        nearest = distances[limbs].min(axis=0)
        canvas.blend((rows, columns), coverage(nearest), _column(colours[cover]))
    inside = distances < 0
    for limb in range(len(LIMBS)):
        canvas.ids[rows, columns][inside[limb]] = first + limb
    canvas.depth[rows, columns][inside.any(axis=0)] = person.depth


@lru_cache(maxsize=4)
def bone_distances(size: int, joints: tuple[Point, ...]) -> tuple[slice, slice, Array]:
    """The rows and columns around a person, and there the distances in pixels of the line in each limb.

    (limbs, rows, columns) float32; read only. Kept for the next call: one pose is often painted several times.
    """
    points = np.array(joints, np.float32) * size
    margin = HEAD_RADIUS * size + 1
    (left, top), (right, bottom) = points.min(axis=0) - margin, points.max(axis=0) + margin
    columns, rows = _span(left, right, size), _span(top, bottom, size)
    centres = pixel_centres(size)
    distances = segment_distances(centres[columns], centres[rows], points[list(STARTS)], points[list(ENDS)])
    distances.setflags(write=False)
    return rows, columns, distances


def _head_distance(size: int, person: Person, rows: slice, columns: slice) -> Array:
    x, y = (np.float32(share * size) for share in person.joints[_HEAD])
    off_x, off_y = pixel_centres(size)[columns] - x, pixel_centres(size)[rows, None] - y
    return np.sqrt(off_x * off_x + off_y * off_y) - np.float32(HEAD_RADIUS * size)


def _span(start: float, end: float, size: int) -> slice:
    return slice(max(0, int(start)), min(size, int(end) + 1))


def _column(rgb: tuple[int, int, int]) -> Array:
    return np.array(rgb, np.float32)[:, None, None]
