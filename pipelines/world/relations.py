"""Whether an answer by example follows the example, and not another relation. Knows no other tasks."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import numpy as np

from pipelines.world import truth
from pipelines.world.presets import World
from pipelines.world.render import render
from pipelines.world.sample import Sample, photo
from pipelines.world.scene import Scene
from pipelines.world.shapes import Array


def relation_is_right(world: World, sample: Sample, picture: Array) -> bool:
    """Whether the picture is nearer to the right output than to the query, or to what another relation makes of it.

    Nearer is of the higher PSNR. Another relation may take any colour.
    """
    off = _off(picture, sample.output)
    others = (sample.inputs[-1], *_of_other_relations(world, sample))
    return all(off < _off(picture, other) for other in others)


def _off(picture: Array, other: Array) -> float:
    return float(np.square(picture.astype(np.float32) - other).mean())


def _of_other_relations(world: World, sample: Sample) -> Iterator[Array]:
    relation, query = str(sample.facts["relation"]), _query_scene(sample)
    seen = render(world, query)
    for kind in ("edges", "depth", *(("pose",) if query.person else ())):
        if kind != relation:
            yield truth.condition_picture(world, query, seen, kind)
    if relation != "grey":
        yield truth.grey_picture(seen.picture)
    if relation != "background":
        grounds = [name for name in world.background_names if name != query.background]
        yield from (photo(world, replace(query, background=name)) for name in grounds)
    if relation != "recolour" and query.things:
        thing = query.things[0]
        colours = [name for name in world.colour_names if name not in query.colours]
        yield from (photo(world, query.with_thing(0, replace(thing, colour=name))) for name in colours)


def _query_scene(sample: Sample) -> Scene:
    """What the last input shows: the scene of the output before it was changed."""
    before = sample.facts["before"]
    if before is None:
        return sample.scene
    if sample.facts["relation"] == "background":
        return replace(sample.scene, background=str(before))
    return sample.scene.with_thing(0, replace(sample.scene.things[0], colour=str(before)))
