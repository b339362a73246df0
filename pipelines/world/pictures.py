"""Samples with one scene: pictures from words, maps from pictures, pictures from maps, spoiled pictures restored."""

from __future__ import annotations

from dataclasses import replace

from pipelines.world import captions, truth
from pipelines.world.degrade import DEGRADATIONS
from pipelines.world.draws import Rng, happens, pick, shuffled
from pipelines.world.presets import World
from pipelines.world.render import Rendering, render
from pipelines.world.sample import Sample, photo
from pipelines.world.sampling import other, scene_of_any_kind, scene_with_person, scene_with_things
from pipelines.world.scene import Scene
from pipelines.world.shapes import Array

DEGRADATION_OF_TASK = {
    "denoise": "noise",
    "deblur": "blur",
    "derain": "rain",
    "raindrop": "raindrops",
    "desnow": "snow",
    "dehaze": "haze",
    "enhance": "darkness",
    "colorize": "grey",
    "inpaint": "holes",
}
"""Each restoring task, and what it takes away."""


def text_to_image(world: World, task: str, rng: Rng) -> Sample:
    """A caption; the picture."""
    scene = scene_of_any_kind(world, rng)
    return Sample(task=task, instruction=captions.caption(rng, scene), output=photo(world, scene), scene=scene)


def canny(world: World, task: str, rng: Rng) -> Sample:
    """A picture; its edges."""
    return _mapped(world, task, _some_scene(world, rng), "edges")


def depth(world: World, task: str, rng: Rng) -> Sample:
    """A picture; its depth."""
    return _mapped(world, task, _some_scene(world, rng), "depth")


def pose(world: World, task: str, rng: Rng) -> Sample:
    """A picture of a person; the skeleton."""
    return _mapped(world, task, scene_with_person(world, rng), "pose")


def segmentation(world: World, task: str, rng: Rng) -> Sample:
    """A picture and a name; what has the name in blue."""
    scene = _some_scene(world, rng)
    seen = render(world, scene)
    instruction, targets, mask = _found(rng, scene, seen)
    return Sample(
        task=task,
        instruction=instruction,
        inputs=(seen.picture,),
        output=truth.found_picture(seen.picture, mask),
        scene=scene,
        source_scene=scene,
        facts={"map": "segmentation", "targets": targets},
    )


def restoration(world: World, task: str, rng: Rng) -> Sample:
    """A spoiled picture; as it was."""
    scene = _some_scene(world, rng)
    seen = render(world, scene)
    degradation = DEGRADATION_OF_TASK[task]
    return Sample(
        task=task,
        inputs=(DEGRADATIONS[degradation](seen, rng),),
        output=seen.picture,
        scene=scene,
        source_scene=scene,
        facts={"degradation": degradation},
    )


def condition(world: World, task: str, rng: Rng) -> Sample:
    """A map and a caption; the picture."""
    kind = pick(rng, ("edges", "depth", "pose"))
    scene = scene_with_person(world, rng) if kind == "pose" else _some_scene(world, rng)
    seen = render(world, scene)
    return Sample(
        task=task,
        instruction=captions.caption_beside_pose(rng, scene) if kind == "pose" else captions.caption(rng, scene),
        inputs=(truth.condition_picture(world, scene, seen, kind),),
        output=seen.picture,
        scene=scene,
        source_scene=scene,
        facts={"map": kind},
    )


def follow_pose(world: World, task: str, rng: Rng) -> Sample:
    """A picture of a person and a caption; the same pose with another shirt and background."""
    source = scene_with_person(world, rng)
    person = replace(source.someone, shirt=other(rng, world.colour_names, source.colours))
    scene = replace(source, person=person, background=other(rng, world.background_names, [source.background]))
    return _followed(world, task, source, scene, captions.caption_beside_pose(rng, scene))


def follow_depth(world: World, task: str, rng: Rng) -> Sample:
    """A picture of things and a caption; the same things in other colours on another background."""
    source = scene_with_things(world, rng, fewest=1)
    colours = shuffled(rng, [name for name in world.colour_names if name not in source.colours])
    things = tuple(replace(thing, colour=colour) for thing, colour in zip(source.things, colours, strict=False))
    background = other(rng, world.background_names, [source.background])
    scene = Scene(background=background, things=things)
    return _followed(world, task, source, scene, captions.caption(rng, scene))


def _some_scene(world: World, rng: Rng) -> Scene:
    """Things, at least one, or a person."""
    return (
        scene_with_person(world, rng) if happens(rng, world.person_share) else scene_with_things(world, rng, fewest=1)
    )


def _mapped(world: World, task: str, scene: Scene, kind: str) -> Sample:
    seen = render(world, scene)
    return Sample(
        task=task,
        inputs=(seen.picture,),
        output=truth.condition_picture(world, scene, seen, kind),
        scene=scene,
        source_scene=scene,
        facts={"map": kind},
    )


def _followed(world: World, task: str, source: Scene, scene: Scene, instruction: str) -> Sample:
    return Sample(
        task=task,
        instruction=instruction,
        inputs=(photo(world, source),),
        output=photo(world, scene),
        scene=scene,
        source_scene=source,
    )


def _found(rng: Rng, scene: Scene, seen: Rendering) -> tuple[str, list[int], Array]:
    """What to find, the numbers of the things that it is (none: the person), and where it is."""
    named, everything, person = captions.PHRASES["find"]
    if scene.person is not None:
        return person, [], truth.person_mask(scene, seen.ids)
    if len(scene.things) > 1 and happens(rng, 0.2):
        return everything, list(range(len(scene.things))), seen.ids > 0
    index = pick(rng, range(len(scene.things)))
    thing = scene.things[index]
    shapes = [one.shape for one in scene.things]
    by_shape = shapes.count(thing.shape) == 1 and happens(rng, 0.3)
    name = thing.shape if by_shape else captions.name_of(thing)
    return named.format(name=name), [index], truth.thing_mask(seen.ids, index)
