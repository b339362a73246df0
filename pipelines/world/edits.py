"""Samples where one picture is changed in words: edits, edits after a question, another's shirt.

The output is the changed scene painted anew, so everything that was not changed is the same to the pixel.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

from pipelines.world import captions
from pipelines.world.draws import Rng, happens, pick, shuffled
from pipelines.world.presets import World
from pipelines.world.sample import Sample, photo
from pipelines.world.sampling import other, plain_thing, scene_with_person, scene_with_things
from pipelines.world.scene import RELATIONS, Scene, Thing, standing_out

Change = dict[str, str | int]
"""What one edit did. ``target`` is the number of a thing in the source, ``index`` that of a new one in the output."""

EDITS = ("recolour", "remove", "add", "background", "several")
"""The kinds of edits of things. A person's shirt and background can change, too."""


@dataclass(frozen=True, slots=True)
class Edited:
    """A scene after some edits: ``words`` say the last one."""

    scene: Scene
    words: str
    change: Change


def edit(world: World, task: str, rng: Rng) -> Sample:
    """A picture and what to change; the picture with that changed and nothing else."""
    if happens(rng, world.person_share / 2):
        return _edited_person(world, task, rng)
    kind = pick(rng, EDITS)
    if kind == "several":
        return _several(world, task, rng)
    source = _source(world, rng, (kind,))
    edited = _EDITS[kind](world, rng, source, source)
    return _sample(world, task, (source, edited.scene), f"{edited.words}.", [edited.change])


def reasoning_edit(world: World, task: str, rng: Rng) -> Sample:
    """A picture, a question and what to do with the answer; the picture with that done."""
    relation = pick(rng, RELATIONS)
    source, target = scene_where(world, rng, relation)
    thing = source.things[target]
    change: Change
    if happens(rng, 0.5):
        scene, action = source.without(target), captions.say(rng, "remove it")
        change = {"kind": "remove", "target": target}
    else:
        colour = other(rng, world.colour_names, source.colours)
        scene = source.with_thing(target, replace(thing, colour=colour))
        action = captions.say(rng, "recolour it", colour=colour)
        change = {"kind": "recolour", "target": target, "colour": colour}
    question = captions.QUESTIONS[relation]
    instruction = captions.say(rng, "reasoning", question=question, action=captions.sentence(action))
    sample = _sample(world, task, (source, scene), instruction, [change])
    sample.facts["relation"] = relation
    return sample


def try_on(world: World, task: str, rng: Rng) -> Sample:
    """A person, and one with another shirt; the first in the shirt of the second."""
    source, second = scene_with_person(world, rng), scene_with_person(world, rng)
    shirt = other(rng, world.colour_names, source.colours)
    second = replace(second, person=replace(second.someone, shirt=shirt))
    scene = replace(source, person=replace(source.someone, shirt=shirt))
    return Sample(
        task=task,
        inputs=(photo(world, source), photo(world, second)),
        output=photo(world, scene),
        scene=scene,
        source_scene=source,
        facts={"shirt": shirt},
    )


def scene_where(world: World, rng: Rng, relation: str) -> tuple[Scene, int]:
    """A scene in which one thing stands out in that way, and which one."""
    for _ in range(1000):  # a third of all scenes with two things will do, for any relation
        scene = scene_with_things(world, rng, fewest=2)
        index = standing_out(scene, relation)
        if index is not None:
            return scene, index
    raise AssertionError(f"no scene in which a thing is {relation}: a world's sizes or places are too much alike")


def _several(world: World, task: str, rng: Rng) -> Sample:
    """Two edits of different kinds, never of the same thing."""
    kinds = shuffled(rng, EDITS[:4])[:2]
    source = _source(world, rng, kinds)
    first = _EDITS[kinds[0]](world, rng, source, source)
    second = _EDITS[kinds[1]](world, rng, first.scene, source)
    words = captions.say(rng, "several", first=first.words, second=second.words)
    return _sample(world, task, (source, second.scene), words, [first.change, second.change])


def _source(world: World, rng: Rng, kinds: tuple[str, ...] | list[str]) -> Scene:
    """A scene that those edits can be made of: with things enough, and room for one more."""
    num_taken = len({"recolour", "remove"} & set(kinds))
    most = max(world.counts) - ("add" in kinds and "remove" not in kinds)
    return scene_with_things(world, rng, fewest=num_taken, most=max(most, num_taken))


def _recolour(world: World, rng: Rng, scene: Scene, source: Scene) -> Edited:
    index = _untouched(rng, scene, source)
    thing = scene.things[index]
    colour = other(rng, world.colour_names, {*scene.colours, *source.colours})
    words = captions.say(rng, "recolour", name=captions.name_of(thing), colour=colour)
    change: Change = {"kind": "recolour", "target": source.things.index(thing), "colour": colour}
    return Edited(scene.with_thing(index, replace(thing, colour=colour)), words, change)


def _remove(world: World, rng: Rng, scene: Scene, source: Scene) -> Edited:  # noqa: ARG001
    index = _untouched(rng, scene, source)
    thing = scene.things[index]
    words = captions.say(rng, "remove", name=captions.name_of(thing))
    return Edited(scene.without(index), words, {"kind": "remove", "target": source.things.index(thing)})


def _add(world: World, rng: Rng, scene: Scene, source: Scene) -> Edited:
    """The place is free in the source as well: a thing added where one is removed would hide what was asked."""
    taken = {*scene.colours, *source.colours}
    colour = other(rng, world.colour_names, taken)
    thing = plain_thing(world, rng, colour, (*scene.things, *source.things))
    added = replace(scene, things=(*scene.things, thing))
    words = captions.say(rng, "add", thing=captions.a_thing(thing))
    return Edited(added, words, {"kind": "add", "colour": colour, "place": thing.place})


def _change_background(world: World, rng: Rng, scene: Scene, source: Scene) -> Edited:  # noqa: ARG001
    colour = other(rng, world.background_names, [scene.background])
    words = captions.say(rng, "background", colour=colour)
    return Edited(replace(scene, background=colour), words, {"kind": "background", "colour": colour})


_EDITS: dict[str, Callable[[World, Rng, Scene, Scene], Edited]] = {
    "recolour": _recolour,
    "remove": _remove,
    "add": _add,
    "background": _change_background,
}


def _untouched(rng: Rng, scene: Scene, source: Scene) -> int:
    """One of the things that are still as they were in the source."""
    old: list[Thing] = [thing for thing in scene.things if thing in source.things]
    return scene.things.index(pick(rng, old))


def _edited_person(world: World, task: str, rng: Rng) -> Sample:
    source = scene_with_person(world, rng)
    if happens(rng, 0.3):
        edited = _change_background(world, rng, source, source)
    else:
        shirt = other(rng, world.colour_names, source.colours)
        words = captions.say(rng, "recolour", name=captions.SHIRT, colour=shirt)
        scene = replace(source, person=replace(source.someone, shirt=shirt))
        edited = Edited(scene, words, {"kind": "shirt", "colour": shirt})
    return _sample(world, task, (source, edited.scene), f"{edited.words}.", [edited.change])


def _sample(world: World, task: str, scenes: tuple[Scene, Scene], words: str, changes: list[Change]) -> Sample:
    source, scene = scenes
    return Sample(
        task=task,
        instruction=captions.sentence(words),
        inputs=(photo(world, source),),
        output=photo(world, scene),
        scene=scene,
        source_scene=source,
        facts={"changes": changes},
    )
