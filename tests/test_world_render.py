"""The renderer against slow and obvious ones: polygons point by point, masks one by one."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest

from pipelines.world import sampling
from pipelines.world.draws import stream
from pipelines.world.figure import ENDS, HEAD_RADIUS, JOINTS, LIMBS, STARTS
from pipelines.world.presets import FULL, PRESETS, SMALL, World
from pipelines.world.render import INK, background, painters_order, render
from pipelines.world.scene import Scene, Thing, depth_at
from pipelines.world.shapes import Array

WORLDS = pytest.mark.parametrize("world", PRESETS.values(), ids=PRESETS)
THING = Thing(
    shape="circle", colour="red", size="large", texture="plain", place="center", x=0.47, y=0.52, radius=0.2, tilt=0.0
)

SQUARE = [(-0.9, -0.9), (0.9, -0.9), (0.9, 0.9), (-0.9, 0.9)]
TRIANGLE = [(0, -1.02), (1.178, 1.02), (-1.178, 1.02)]
STAR = [
    (radius * math.sin(n * math.pi / 5), -radius * math.cos(n * math.pi / 5))
    for n in range(10)
    for radius in [1.28 if n % 2 == 0 else 0.6]
]
CROSS = [(-0.4, -1.08), (0.4, -1.08), (0.4, -0.4), (1.08, -0.4), (1.08, 0.4), (0.4, 0.4)]
CROSS += [(-x, -y) for x, y in CROSS]


def is_inside(polygon: list[tuple[float, float]], x: float, y: float) -> bool:
    """Even-odd rule."""
    crossings = 0
    for (x1, y1), (x2, y2) in zip(polygon, [*polygon[1:], polygon[0]], strict=True):
        if (y1 > y) != (y2 > y) and x < x1 + (y - y1) * (x2 - x1) / (y2 - y1):
            crossings += 1
    return crossings % 2 == 1


def turned(polygon: list[tuple[float, float]], degrees: float) -> list[tuple[float, float]]:
    cosine, sine = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
    return [(x * cosine - y * sine, x * sine + y * cosine) for x, y in polygon]


def scene_of(world: World, index: int) -> Scene:
    return sampling.scene_with_things(world, stream(0, "render", index), fewest=1)


def person_of(world: World, index: int) -> Scene:
    return sampling.scene_with_person(world, stream(0, "render", index))


def alone(world: World, scene: Scene, index: int) -> Array:
    found: Array = render(world, replace(scene, things=(scene.things[index],))).ids == 1
    return found


@pytest.mark.parametrize("tilt", [0.0, 11.0, -14.0])
@pytest.mark.parametrize(
    ("shape", "polygon"), [("square", SQUARE), ("triangle", TRIANGLE), ("star", STAR), ("cross", CROSS)]
)
def test_the_ids_of_a_shape_are_the_pixels_inside_its_polygon(
    shape: str, polygon: list[tuple[float, float]], tilt: float
) -> None:
    thing = replace(THING, shape=shape, tilt=tilt)
    ids = render(FULL, Scene(background="grey", things=(thing,))).ids
    corners = turned(polygon, tilt)
    for row in range(64):
        for column in range(64):
            x, y = ((column + 0.5) / 64 - thing.x) / thing.radius, ((row + 0.5) / 64 - thing.y) / thing.radius
            assert (ids[row, column] == 1) == is_inside(corners, x, y), (row, column)


def test_the_ids_of_a_circle_are_the_pixels_nearer_than_its_radius() -> None:
    ids = render(SMALL, Scene(background="grey", things=(THING,))).ids
    for row in range(64):
        for column in range(64):
            distance = math.hypot((column + 0.5) / 64 - THING.x, (row + 0.5) / 64 - THING.y)
            assert (ids[row, column] == 1) == (distance < THING.radius)


@WORLDS
def test_the_id_map_is_each_thing_alone_laid_from_far_to_near(world: World) -> None:
    for index in range(60):
        scene = scene_of(world, index)
        expected = np.zeros((64, 64), np.uint8)
        for number in sorted(range(len(scene.things)), key=lambda number: scene.things[number].y):
            expected[alone(world, scene, number)] = number + 1
        assert np.array_equal(render(world, scene).ids, expected)


@WORLDS
def test_depth_is_that_of_the_thing_in_front(world: World) -> None:
    for index in range(60):
        scene = scene_of(world, index)
        seen = render(world, scene)
        assert (seen.depth[seen.ids == 0] == 0).all()
        for number, thing in enumerate(scene.things):
            assert (seen.depth[seen.ids == number + 1] == np.float32(depth_at(thing.y))).all()
        assert [one.depth for one in painters_order(scene)] == sorted(thing.depth for thing in scene.things)


@WORLDS
def test_a_plain_thing_has_its_very_colour_inside_and_the_background_is_untouched_outside(world: World) -> None:
    num_deep = 0
    for index in range(40):
        scene = scene_of(world, index)
        thing = replace(scene.things[0], texture="plain")
        scene = replace(scene, things=(thing,))
        seen, empty = render(world, scene), render(world, replace(scene, things=()))
        mask = seen.ids == 1
        near = dilated(mask, 2)
        assert np.array_equal(seen.picture[~near], empty.picture[~near])
        deep = ~dilated(~mask, 2)
        deep[[0, -1]] = deep[:, [0, -1]] = False  # whose neighbours may lie outside of the picture
        num_deep += deep.sum()
        assert (seen.picture[deep] == world.rgb[thing.colour]).all()
    assert num_deep > 1000


def dilated(mask: Array, steps: int) -> Array:
    grown = mask.copy()
    for _ in range(steps):
        padded = np.pad(grown, 1)
        grown = np.any([padded[y : y + 64, x : x + 64] for y in range(3) for x in range(3)], axis=0)
    return grown


@pytest.mark.parametrize("texture", ["striped", "dotted"])
def test_a_texture_is_the_colour_and_its_dark_ink(texture: str) -> None:
    scene = Scene(background="grey", things=(replace(THING, texture=texture),))
    seen = render(FULL, scene)
    inside = seen.picture[~dilated(seen.ids == 0, 2)].astype(float)
    shares = inside[:, 0] / FULL.rgb["red"][0]
    assert shares.min() == pytest.approx(INK, abs=0.02)
    assert shares.max() == pytest.approx(1, abs=0.02)
    assert 0.25 < (shares > 0.6).mean() < 0.75
    assert np.array_equal(seen.ids, render(FULL, Scene(background="grey", things=(THING,))).ids)


@pytest.mark.parametrize("index", range(20))
def test_a_persons_ids_are_the_nearest_painted_limb_at_each_pixel(index: int) -> None:
    scene = person_of(SMALL, index)
    joints = [(x * 64, y * 64) for x, y in scene.someone.joints]
    expected = np.zeros((64, 64), np.uint8)
    for row in range(64):
        for column in range(64):
            for number, limb in enumerate(LIMBS, start=1):
                point = (column + 0.5, row + 0.5)
                distance = to_segment(point, joints[STARTS[number - 1]], joints[ENDS[number - 1]])
                is_head = limb.name == "head" and math.dist(point, joints[JOINTS.index("head")]) < HEAD_RADIUS * 64
                if distance < limb.half_width * 64 or is_head:
                    expected[row, column] = number
    # A pixel whose centre lies on the rim may fall to either side.
    assert (render(SMALL, scene).ids != expected).sum() <= 2


def to_segment(point: tuple[float, float], start: tuple[float, float], end: tuple[float, float]) -> float:
    """Law of cosines: beyond an end the angle there is obtuse."""
    a, b, c = math.dist(point, start), math.dist(point, end), math.dist(start, end)
    if a * a > b * b + c * c:
        return b
    if b * b > a * a + c * c:
        return a
    half = (a + b + c) / 2
    return 2 * math.sqrt(max(0.0, half * (half - a) * (half - b) * (half - c))) / c


def test_a_person_and_things_are_painted_from_far_to_near_together() -> None:
    person = person_of(SMALL, 3)
    far, near = replace(THING, y=0.3), replace(THING, y=0.98, colour="blue")
    seen = render(SMALL, replace(person, things=(far, near)))
    without = render(SMALL, person)
    assert np.array_equal(
        seen.ids[(without.ids > 0) & (seen.ids != 2)], without.ids[(without.ids > 0) & (seen.ids != 2)] + 2
    )
    assert (seen.ids == 2).sum() == (render(SMALL, Scene(background="grey", things=(near,))).ids == 1).sum()
    assert (seen.ids[(without.ids > 0)] != 1).all()


@WORLDS
def test_one_scene_is_the_same_at_both_sizes(world: World) -> None:
    double = replace(world, size=128)
    for scene in (scene_of(world, 5), person_of(world, 5)):
        small, large = render(world, scene).picture, render(double, scene).picture
        halved = large.reshape(64, 2, 64, 2, 3).mean(axis=(1, 3))
        assert np.abs(halved - small).mean() < 2.0
        assert np.abs(halved - small).max() < 60


@WORLDS
def test_painting_again_gives_the_same_and_spoils_no_background(world: World) -> None:
    before = background(world, "pink").copy()
    for index in range(5):
        for scene in (replace(scene_of(world, index), background="pink"), person_of(world, index)):
            first, again = render(world, scene), render(world, scene)
            assert np.array_equal(first.picture, again.picture)
            assert first.picture.dtype == np.uint8
            assert first.picture.shape == (64, 64, 3)
    assert np.array_equal(background(world, "pink"), before)


def test_each_background_has_a_texture_of_its_own() -> None:
    patterns = [background(SMALL, name)[0] - SMALL.rgb[name][0] for name in SMALL.background_names]
    for n, pattern in enumerate(patterns):
        assert 2 < pattern.std() < 8
        for other in patterns[:n]:
            assert abs(np.corrcoef(pattern.ravel(), other.ravel())[0, 1]) < 0.9
