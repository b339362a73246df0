"""Scenes at random: things that leave each other in sight, or a person. Knows no tasks, words or pixels."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace

from pipelines.world.draws import Rng, around, happens, pick, shuffled
from pipelines.world.figure import joints_of
from pipelines.world.presets import World
from pipelines.world.scene import Person, Scene, Thing, stands_free

_SWINGS = 8


def scene_of_any_kind(world: World, rng: Rng) -> Scene:
    """Things, or a person."""
    return scene_with_person(world, rng) if happens(rng, world.person_share) else scene_with_things(world, rng)


def scene_with_things(world: World, rng: Rng, *, fewest: int = 0, most: int = 99, avoid: Collection[str] = ()) -> Scene:
    """So many things as the world has, between ``fewest`` and ``most``; none has a colour of ``avoid``."""
    num = pick(rng, [count for count in world.counts if fewest <= count <= most] or [fewest])
    colours = shuffled(rng, [name for name in world.colour_names if name not in avoid])[:num]
    things: tuple[Thing, ...] = ()
    for colour in colours:
        things = (*things, _somewhere(world, rng, _thing(world, rng, colour), things))
    return Scene(background=pick(rng, world.background_names), things=things)


def scene_with_person(world: World, rng: Rng) -> Scene:
    """One person and no things."""
    shirt = pick(rng, world.colour_names)
    arms, legs = pick(rng, world.arm_poses), pick(rng, world.leg_poses)
    column, x = pick(rng, world.columns)
    swings = [around(rng, world.max_swing) for _ in range(_SWINGS)]
    joints = joints_of(arms, legs, x + around(rng, world.max_shift), swings)
    person = Person(shirt=shirt, arms=arms, legs=legs, column=column, joints=joints)
    return Scene(background=pick(rng, world.background_names), person=person)


def plain_thing(world: World, rng: Rng, colour: str, others: tuple[Thing, ...]) -> Thing:
    """A thing that words tell all of: not turned, of its size's very radius, in the centre of a free place."""
    size, radius = pick(rng, world.sizes)
    thing = replace(_thing(world, rng, colour), size=size, radius=radius, tilt=0.0)
    return thing.at(world, free_place(world, rng, thing, others))


def free_place(world: World, rng: Rng, thing: Thing, others: tuple[Thing, ...]) -> str:
    """A place whose centre the thing can take beside ``others``, other than its own."""
    return pick(
        rng,
        [place for place in world.place_names if place != thing.place and stands_free(thing.at(world, place), others)],
    )


def other(rng: Rng, names: tuple[str, ...], taken: Collection[str]) -> str:
    """One of ``names`` that is not ``taken``."""
    return pick(rng, [name for name in names if name not in taken])


def _thing(world: World, rng: Rng, colour: str) -> Thing:
    """Not yet anywhere. A circle is not turned: nothing but its texture could tell."""
    size, radius = pick(rng, world.sizes)
    shape = pick(rng, world.shapes)
    return Thing(
        shape=shape,
        colour=colour,
        size=size,
        texture=pick(rng, world.textures),
        place="",
        x=0.0,
        y=0.0,
        radius=radius * (1 + around(rng, world.max_growth)),
        tilt=0.0 if shape == "circle" else around(rng, world.max_tilt),
    )


def _somewhere(world: World, rng: Rng, thing: Thing, others: tuple[Thing, ...]) -> Thing:
    """The thing near the centre of a free place. There is one: three things leave at least two of nine free."""
    shift_x, shift_y = around(rng, world.max_shift), around(rng, world.max_shift)
    for place, (x, y) in shuffled(rng, world.places):
        moved = replace(thing, place=place, x=x + shift_x, y=y + shift_y)
        if stands_free(moved, others):
            return moved
    raise AssertionError("no free place: a world's places are too close for its sizes")
