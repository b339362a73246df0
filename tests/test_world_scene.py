"""Scenes of the drawn world: what is drawn at random, and what is said to stand out."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from omnigen_actor.errors import ConfigError
from pipelines.world import sampling
from pipelines.world.draws import around, happens, pick, shuffled, stream
from pipelines.world.figure import ARM_POSES, JOINTS, LEG_POSES, LIMBS
from pipelines.world.presets import FULL, PRESETS, SMALL, World
from pipelines.world.render import render
from pipelines.world.scene import RELATIONS, Scene, Thing, depth_at, standing_out
from pipelines.world.shapes import PATTERNS, SHAPES

WORLDS = pytest.mark.parametrize("world", PRESETS.values(), ids=PRESETS)
BALL = Thing(
    shape="circle", colour="red", size="small", texture="plain", place="center", x=0.5, y=0.5, radius=0.1, tilt=0.0
)


def scenes(world: World, num: int, task: str = "test") -> list[Scene]:
    return [sampling.scene_with_things(world, stream(0, task, index)) for index in range(num)]


def test_a_stream_depends_on_seed_task_and_index_alone() -> None:
    first = {
        (seed, task, index): stream(seed, task, index).random() for seed in (0, 1) for task in "ab" for index in (0, 1)
    }
    again = {key: stream(*key).random() for key in reversed(first)}
    assert again == first
    assert len(set(first.values())) == len(first)


def test_draws_are_even() -> None:
    rng = stream(0, "even", 0)
    counts = np.bincount([pick(rng, range(4)) for _ in range(4000)])
    assert counts.min() > 900
    firsts = np.bincount([shuffled(rng, range(4))[0] for _ in range(4000)])
    assert firsts.min() > 900
    assert 0.25 < np.mean([happens(rng, 0.3) for _ in range(4000)]) < 0.35
    assert max(abs(around(rng, 2.0)) for _ in range(4000)) <= 2.0


@WORLDS
def test_the_same_draws_make_the_same_scene(world: World) -> None:
    assert scenes(world, 20) == scenes(world, 20)
    assert len(set(scenes(world, 20, "other")) & set(scenes(world, 20))) <= 1  # two may be empty


@WORLDS
def test_no_two_things_of_a_scene_have_one_colour(world: World) -> None:
    assert all(len(set(scene.colours)) == len(scene.things) for scene in scenes(world, 300))


@WORLDS
def test_three_fifths_of_every_thing_can_be_seen(world: World) -> None:
    """Each thing alone is its whole mask; what another hides of it is lost in the scene's."""
    for scene in scenes(world, 400):
        ids = render(world, scene).ids
        for number, thing in enumerate(scene.things, start=1):
            whole = render(world, Scene(background=scene.background, things=(thing,))).ids == 1
            assert (ids == number).sum() >= 0.6 * whole.sum()


@WORLDS
def test_at_least_nine_tenths_of_a_thing_lie_within_the_picture(world: World) -> None:
    for thing in [thing for scene in scenes(world, 200) for thing in scene.things]:
        x, y = (share + round((0.5 - share) * world.size) / world.size for share in (thing.x, thing.y))
        middle = replace(thing, x=x, y=y)
        within, whole = (
            (render(world, Scene(background="grey", things=(one,))).ids == 1).sum() for one in (thing, middle)
        )
        assert within >= 0.9 * whole


@WORLDS
def test_every_shape_colour_size_texture_place_and_background_occurs(world: World) -> None:
    things = [thing for scene in scenes(world, 600) for thing in scene.things]
    assert {thing.shape for thing in things} == set(world.shapes)
    assert {thing.colour for thing in things} == set(world.colour_names)
    assert {thing.size for thing in things} == {name for name, _ in world.sizes}
    assert {thing.texture for thing in things} == set(world.textures)
    assert {thing.place for thing in things} == set(world.place_names)
    assert {scene.background for scene in scenes(world, 600)} == set(world.background_names)
    assert {len(scene.things) for scene in scenes(world, 600)} == set(world.counts)


@WORLDS
def test_every_pose_shirt_and_column_occurs(world: World) -> None:
    persons = [sampling.scene_with_person(world, stream(0, "person", index)).someone for index in range(600)]
    assert {person.arms for person in persons} == set(world.arm_poses)
    assert {person.legs for person in persons} == set(world.leg_poses)
    assert {person.column for person in persons} == {name for name, _ in world.columns}
    assert {person.shirt for person in persons} == set(world.colour_names)


@WORLDS
def test_a_person_is_within_the_picture_and_the_poses_look_as_they_are_called(world: World) -> None:
    for index in range(300):
        person = sampling.scene_with_person(world, stream(0, "person", index)).someone
        at = dict(zip(JOINTS, person.joints, strict=True))
        assert all(0.0 < x < 1.0 and 0.0 < y < 1.0 for x, y in person.joints)
        left_up, right_up = (at[f"{side} hand"][1] < at["neck"][1] - 0.1 for side in ("left", "right"))
        assert left_up == (person.arms in {"arms up", "left arm up"})
        assert right_up == (person.arms in {"arms up", "right arm up"})
        assert (at["left foot"][1] < at["right foot"][1] - 0.05) == (person.legs == "left leg up")
        is_wide = at["right foot"][0] - at["left foot"][0] > 0.25
        assert is_wide == (person.legs == "legs apart") or person.legs == "left leg up"
        assert at["left elbow"][0] < at["neck"][0] < at["right elbow"][0]


@WORLDS
def test_a_world_names_only_what_can_be_drawn(world: World) -> None:
    assert set(world.shapes) <= set(SHAPES)
    assert set(world.textures) <= {*PATTERNS, "plain"}
    assert set(world.arm_poses) <= set(ARM_POSES)
    assert set(world.leg_poses) <= set(LEG_POSES)
    assert len(JOINTS) == 11
    assert len(LIMBS) == len({limb.rgb for limb in LIMBS}) == 10


@WORLDS
def test_no_colour_of_a_thing_is_near_a_background_or_another(world: World) -> None:
    colours, backgrounds = [rgb for _, rgb in world.colours], [rgb for _, rgb in world.backgrounds]
    near = [math.dist(rgb, other) for n, rgb in enumerate(colours) for other in colours[:n]]
    assert min(near) >= 75
    assert min(math.dist(rgb, other) for rgb in colours for other in backgrounds) >= 85
    assert min(math.dist(other, rgb) for rgb in (world.skin, world.trousers) for other in backgrounds) >= 85


def test_the_colours_of_the_small_world_can_be_told_in_grey() -> None:
    def luma(rgb: tuple[int, int, int]) -> float:
        return 0.299 * rgb[0] + 0.587 * rgb[1] + 0.114 * rgb[2]

    colours = sorted(luma(rgb) for _, rgb in SMALL.colours)
    assert min(np.diff(colours)) >= 15
    assert min(abs(luma(rgb) - one) for _, rgb in SMALL.backgrounds for one in colours) >= 12


def test_a_world_of_another_size_or_with_a_colour_of_both_kinds_is_refused() -> None:
    with pytest.raises(ConfigError, match="size=96"):
        replace(SMALL, size=96)
    with pytest.raises(ConfigError, match="'grey'"):
        replace(SMALL, colours=(*SMALL.colours, ("grey", (0, 0, 0))))


@given(st.floats(0, 1), st.floats(0, 1))
def test_the_lower_is_the_nearer(one: float, other: float) -> None:
    assert (one < other) == (depth_at(one) < depth_at(other)) or math.isclose(one, other, abs_tol=1e-9)
    assert 0 < depth_at(one) <= 1


@settings(max_examples=50)
@given(st.lists(st.tuples(st.floats(0.2, 0.8), st.floats(0.2, 0.8)), min_size=2, max_size=4, unique=True))
def test_what_stands_out_is_first_by_a_margin(points: list[tuple[float, float]]) -> None:
    scene = Scene(background="grey", things=tuple(replace(BALL, x=x, y=y) for x, y in points))
    xs, ys = [x for x, _ in points], [y for _, y in points]
    for relation, index in {
        "left": int(np.argmin(xs)),
        "right": int(np.argmax(xs)),
        "top": int(np.argmin(ys)),
        "bottom": int(np.argmax(ys)),
        "nearest": int(np.argmax(ys)),
        "farthest": int(np.argmin(ys)),
    }.items():
        assert standing_out(scene, relation) in {index, None}


def test_nothing_stands_out_where_it_is_not_plain_to_see() -> None:
    beside = Scene(background="grey", things=(BALL, replace(BALL, x=0.9)))
    assert standing_out(beside, "left") == 0
    assert [standing_out(beside, relation) for relation in RELATIONS if relation not in {"left", "right"}] == [None] * 6
    assert standing_out(Scene(background="grey", things=(BALL,)), "left") is None
    larger = Scene(background="grey", things=(BALL, replace(BALL, radius=0.17)))
    assert (standing_out(larger, "largest"), standing_out(larger, "smallest")) == (1, 0)


def test_a_thing_that_is_added_is_told_by_words_alone() -> None:
    for index, scene in enumerate(scenes(FULL, 100)):
        rng = stream(1, "added", index)
        thing = sampling.plain_thing(FULL, rng, "red", scene.things)
        assert (thing.x, thing.y) == FULL.centres[thing.place]
        assert (thing.tilt, thing.radius) == (0.0, dict(FULL.sizes)[thing.size])
