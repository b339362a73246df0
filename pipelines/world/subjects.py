"""Samples where what is in one or two pictures goes into another: subject, referring, multi_subject, compose.

A thing keeps what no word tells of it: its very size, how it is turned, its texture.
"""

from __future__ import annotations

from dataclasses import replace

from pipelines.world import captions
from pipelines.world.draws import Rng, pick
from pipelines.world.edits import scene_where
from pipelines.world.presets import World
from pipelines.world.sample import Sample, photo
from pipelines.world.sampling import free_place, other, scene_with_things
from pipelines.world.scene import RELATIONS, Scene


def subject(world: World, task: str, rng: Rng) -> Sample:
    """A picture and the name of a thing in it; that thing alone, at another place on another background."""
    source = scene_with_things(world, rng, fewest=1)
    target = pick(rng, range(len(source.things)))
    return _alone(world, task, rng, (source, target), captions.name_of(source.things[target]))


def referring(world: World, task: str, rng: Rng) -> Sample:
    """As subject, where the thing is told by how it stands out: the left object, the nearest object."""
    relation = pick(rng, RELATIONS)
    source, target = scene_where(world, rng, relation)
    sample = _alone(world, task, rng, (source, target), f"{relation} object")
    sample.facts["relation"] = relation
    return sample


def multi_subject(world: World, task: str, rng: Rng) -> Sample:
    """Two pictures and a name in each; both things together, at other places on another background."""
    first_source = scene_with_things(world, rng, fewest=1)
    target1 = pick(rng, range(len(first_source.things)))
    first = first_source.things[target1]
    second_source = scene_with_things(world, rng, fewest=1, avoid=[first.colour])
    target2 = pick(rng, range(len(second_source.things)))
    second = second_source.things[target2]
    moved1 = first.at(world, free_place(world, rng, first, ()))
    moved2 = second.at(world, free_place(world, rng, second, (moved1,)))
    background = other(rng, world.background_names, [first_source.background, second_source.background])
    scene = Scene(background=background, things=(moved1, moved2))
    instruction = captions.say(
        rng,
        "two moved",
        first=captions.name_of(first),
        image1=captions.mark(1),
        where1=captions.where(moved1.place),
        second=captions.name_of(second),
        image2=captions.mark(2),
        where2=captions.where(moved2.place),
        background=captions.a_background(background),
    )
    return Sample(
        task=task,
        instruction=instruction,
        inputs=(photo(world, first_source), photo(world, second_source)),
        output=photo(world, scene),
        scene=scene,
        source_scene=first_source,
        facts={"targets": [target1, target2]},
    )


def compose(world: World, task: str, rng: Rng) -> Sample:
    """Two pictures and the name of a thing in the first; the second with that thing in it."""
    source = scene_with_things(world, rng, fewest=1)
    target = pick(rng, range(len(source.things)))
    thing = source.things[target]
    host = scene_with_things(world, rng, most=max(world.counts) - 1, avoid=[thing.colour])
    moved = thing.at(world, free_place(world, rng, thing, host.things))
    scene = replace(host, things=(*host.things, moved))
    instruction = captions.say(
        rng,
        "put",
        name=captions.name_of(thing),
        image1=captions.mark(1),
        where=captions.where(moved.place),
        image2=captions.mark(2),
    )
    return Sample(
        task=task,
        instruction=instruction,
        inputs=(photo(world, source), photo(world, host)),
        output=photo(world, scene),
        scene=scene,
        source_scene=source,
        facts={"targets": [target], "place": moved.place},
    )


def _alone(world: World, task: str, rng: Rng, found: tuple[Scene, int], name: str) -> Sample:
    source, target = found
    thing = source.things[target]
    moved = thing.at(world, free_place(world, rng, thing, ()))
    background = other(rng, world.background_names, [source.background])
    instruction = captions.say(
        rng,
        "one moved",
        name=name,
        image=captions.mark(1),
        where=captions.where(moved.place),
        background=captions.a_background(background),
    )
    scene = Scene(background=background, things=(moved,))
    return Sample(
        task=task,
        instruction=instruction,
        inputs=(photo(world, source),),
        output=photo(world, scene),
        scene=scene,
        source_scene=source,
        facts={"targets": [target], "place": moved.place},
    )
