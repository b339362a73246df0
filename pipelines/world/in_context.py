"""Samples without words: one pair of pictures shows what to do, and it is to be done to a third."""

from __future__ import annotations

from dataclasses import replace

from pipelines.world import truth
from pipelines.world.draws import Rng, pick
from pipelines.world.presets import World
from pipelines.world.render import render
from pipelines.world.sample import Sample, photo
from pipelines.world.sampling import other, scene_with_person, scene_with_things
from pipelines.world.scene import Scene
from pipelines.world.shapes import Array


def in_context(world: World, task: str, rng: Rng) -> Sample:
    """Three pictures; to the third what the second is to the first.

    A background or a thing takes the same colour in the example and in the answer.
    """
    relation = pick(rng, world.relations)
    colour = pick(rng, world.background_names if relation == "background" else world.colour_names)
    (example, shown, _), (query, answer, scene) = (_pair(world, rng, relation, colour) for _ in range(2))
    source, example_in = example
    coloured = relation in {"background", "recolour"}
    return Sample(
        task=task,
        inputs=(example_in, shown, query[1]),
        output=answer,
        scene=scene,
        source_scene=source,
        facts={
            "relation": relation,
            "colour": colour if coloured else None,
            "before": _coloured(query[0], relation) if coloured else None,
        },
    )


def _pair(world: World, rng: Rng, relation: str, colour: str) -> tuple[tuple[Scene, Array], Array, Scene]:
    """A scene with its picture, what the relation makes of it, and the scene that this shows."""
    source = _source(world, rng, relation, colour)
    seen = render(world, source)
    if relation in {"background", "recolour"}:
        scene = _changed(source, relation, colour)
        return (source, seen.picture), photo(world, scene), scene
    if relation == "grey":
        return (source, seen.picture), truth.grey_picture(seen.picture), source
    return (source, seen.picture), truth.condition_picture(world, source, seen, relation), source


def _source(world: World, rng: Rng, relation: str, colour: str) -> Scene:
    if relation == "pose":
        return scene_with_person(world, rng)
    most = 1 if relation == "recolour" else max(world.counts)
    scene = scene_with_things(world, rng, fewest=1, most=most, avoid=[colour])
    if scene.background == colour:
        return replace(scene, background=other(rng, world.background_names, [colour]))
    return scene


def _coloured(scene: Scene, relation: str) -> str:
    """The colour that the relation changes."""
    return scene.background if relation == "background" else scene.things[0].colour


def _changed(scene: Scene, relation: str, colour: str) -> Scene:
    if relation == "background":
        return replace(scene, background=colour)
    return scene.with_thing(0, replace(scene.things[0], colour=colour))
