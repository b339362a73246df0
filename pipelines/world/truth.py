"""The truth of a scene as pictures: edges, depth, skeleton, what was found; and masks. Knows no tasks and no words.

All from what `render` gives or from the joints, never from a picture's colours.
"""

from __future__ import annotations

import numpy as np

from pipelines.world.figure import COVERS, LIMBS
from pipelines.world.presets import World
from pipelines.world.render import Rendering, bone_distances, to_bytes
from pipelines.world.scene import Person, Scene
from pipelines.world.shapes import Array, coverage

FOUND_BLUE = (0, 0, 255)
REST_DIMMED = 0.6
"""What was found is flat blue, and the rest of the picture grey at this share of its brightness."""

_LUMA = np.array([0.299, 0.587, 0.114], np.float32)  # ITU-R BT.601
_BONE = 0.018  # half width of a line of the skeleton
_LIMB_RGB = np.array([limb.rgb for limb in LIMBS], np.float32)
_PIXELS_PER_STEP = 64


def parts(scene: Scene, ids: Array) -> Array:
    """Which visible part each pixel shows, (H, W) uint8: background 0, things as in ``ids``, what covers the limbs.

    Limbs of one cover have one colour: no edge lies between them.
    """
    first = len(scene.things) + 1
    table = np.array([*range(first), *(first + COVERS.index(limb.cover) for limb in LIMBS)], np.uint8)
    return np.take(table, ids)


def edges_picture(scene: Scene, ids: Array) -> Array:
    """White edges on black, (H, W, 3) uint8: pixels beside a change of part, two in all at 64 px, four at 128."""
    shown = parts(scene, ids)
    edge = np.zeros(ids.shape, bool)
    across, down = shown[:, 1:] != shown[:, :-1], shown[1:] != shown[:-1]
    edge[:, 1:] |= across
    edge[:, :-1] |= across
    edge[1:] |= down
    edge[:-1] |= down
    for _ in range(ids.shape[0] // _PIXELS_PER_STEP - 1):
        edge = _grown(edge)
    return np.repeat((edge * np.uint8(255))[:, :, None], 3, axis=2)


def depth_picture(depth: Array) -> Array:
    """Depth as grey, (H, W, 3) uint8: white near, black far."""
    return np.repeat(to_bytes(depth * np.float32(255))[:, :, None], 3, axis=2)


def skeleton_picture(world: World, person: Person) -> Array:
    """The limbs as thin lines, each in its own colour, on black: (H, W, 3) uint8."""
    rows, columns, distances = bone_distances(world.size, person.joints)
    nearest = distances.argmin(axis=0)
    shares = coverage(distances.min(axis=0) - np.float32(_BONE * world.size))
    canvas = np.zeros((world.size, world.size, 3), np.float32)
    canvas[rows, columns] = _LIMB_RGB[nearest] * shares[:, :, None]
    return to_bytes(canvas)


def found_picture(picture: Array, mask: Array) -> Array:
    """What ``mask`` (H, W) marks in flat blue, the rest grey and dimmed: (H, W, 3) uint8."""
    dimmed = to_bytes(luma(picture) * np.float32(REST_DIMMED))
    found = np.repeat(dimmed[:, :, None], 3, axis=2)
    found[mask] = FOUND_BLUE
    return found


def grey_picture(picture: Array) -> Array:
    """The picture without colours: (H, W, 3) uint8."""
    return np.repeat(to_bytes(luma(picture))[:, :, None], 3, axis=2)


def luma(picture: Array) -> Array:
    """Brightness of each pixel as the eye weighs it, (H, W) float32, 0 … 255."""
    weighed: Array = picture.astype(np.float32) @ _LUMA
    return weighed


def thing_mask(ids: Array, index: int) -> Array:
    """Where a thing can be seen, (H, W) bool."""
    mask: Array = ids == index + 1
    return mask


def person_mask(scene: Scene, ids: Array) -> Array:
    """Where the person can be seen, (H, W) bool."""
    mask: Array = ids > len(scene.things)
    return mask


def condition_picture(world: World, scene: Scene, rendering: Rendering, kind: str) -> Array:
    """The map of that kind: ``edges``, ``depth`` or, of a scene with a person, ``pose``."""
    if kind == "pose":
        return skeleton_picture(world, scene.someone)
    return edges_picture(scene, rendering.ids) if kind == "edges" else depth_picture(rendering.depth)


def _grown(edge: Array) -> Array:
    grown = edge.copy()
    grown[1:] |= edge[:-1]
    grown[:-1] |= edge[1:]
    grown[:, 1:] |= edge[:, :-1]
    grown[:, :-1] |= edge[:, 1:]
    return grown
