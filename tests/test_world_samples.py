"""Samples of every task: in the task table's words, the same at any time, and right."""

from __future__ import annotations

import hashlib
import json
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from omnigen_actor import placeholders
from omnigen_actor.errors import ConfigError
from omnigen_actor.tasks import DEFAULT_TASKS, TASKS
from pipelines.world import captions, truth
from pipelines.world.edits import EDITS
from pipelines.world.figure import COVERS
from pipelines.world.pictures import DEGRADATION_OF_TASK
from pipelines.world.presets import FULL, PRESETS, SMALL, World
from pipelines.world.render import render
from pipelines.world.samples import TASKS_OF_THE_WORLD, Sample, make_sample
from pipelines.world.scene import Scene, Thing
from pipelines.world.shapes import Array

ROOT = Path(__file__).parent.parent
WORLDS = pytest.mark.parametrize("world", PRESETS.values(), ids=PRESETS)
ALL_TASKS = pytest.mark.parametrize("task", TASKS_OF_THE_WORLD)
USERS_OWN = {"custom", "multi_image_edit"}
"""Tasks without a meaning of their own."""


def samples(world: World, task: str, num: int = 40) -> list[Sample]:
    return [make_sample(world, task, 7, index) for index in range(num)]


def source_of(sample: Sample) -> Scene:
    assert sample.source_scene is not None
    return sample.source_scene


def changes_of(sample: Sample) -> list[dict[str, Any]]:
    found = sample.facts["changes"]
    assert isinstance(found, list)
    return [dict(change) for change in found if isinstance(change, dict)]


def target_of(sample: Sample) -> Thing:
    targets = sample.facts["targets"]
    assert isinstance(targets, list)
    assert isinstance(targets[0], int)
    return source_of(sample).things[targets[0]]


def picture(world: World, scene: Scene) -> Array:
    return render(world, scene).picture


def digest(task: str, index: int) -> str:
    sample = make_sample(SMALL, task, 0, index)
    parts = [sample.prompt().encode(), json.dumps(sample.facts).encode(), *map(bytes, (*sample.inputs, sample.output))]
    return hashlib.sha256(b"\0".join(parts)).hexdigest()


def near(mask: Array) -> Array:
    """The mask and a rim of two pixels."""
    padded = np.pad(mask, 2)
    side = mask.shape[0]
    grown: Array = np.any([padded[y : y + side, x : x + side] for y in range(5) for x in range(5)], axis=0)
    return grown


def test_the_world_has_every_task_of_the_table_but_those_of_the_users_own() -> None:
    assert {*TASKS} - {*TASKS_OF_THE_WORLD} <= USERS_OWN
    assert {*TASKS_OF_THE_WORLD} <= {*TASKS}


@ALL_TASKS
@WORLDS
def test_every_sample_passes_the_check_of_its_task(world: World, task: str) -> None:
    for sample in samples(world, task):
        prompt = sample.prompt(DEFAULT_TASKS)
        placeholders.check(prompt, len(sample.inputs))
        assert sample.task == task
        assert "{" not in prompt
        assert all(one.shape == (64, 64, 3) and one.dtype == np.uint8 for one in (*sample.inputs, sample.output))
        assert (sample.source_scene is None) == (not sample.inputs)
        assert json.loads(json.dumps(sample.facts)) == sample.facts


def test_a_sample_is_the_same_in_another_process_and_order() -> None:
    code = (
        "import json\n"
        "from tests.test_world_samples import digest, TASKS_OF_THE_WORLD as tasks\n"
        "print(json.dumps({f'{task} {i}': digest(task, i) for i in (5, 0) for task in reversed(tasks)}))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    here = {f"{task} {index}": digest(task, index) for task in TASKS_OF_THE_WORLD for index in (0, 5)}
    assert json.loads(done.stdout) == here


@ALL_TASKS
def test_other_seeds_and_indices_make_other_samples(task: str) -> None:
    found = [make_sample(SMALL, task, seed, index) for seed in (0, 1) for index in range(10)]
    assert len({bytes(sample.output) for sample in found}) > 15


@WORLDS
@ALL_TASKS
def test_the_output_is_the_picture_of_its_scene_unless_it_is_a_map(world: World, task: str) -> None:
    for sample in samples(world, task, 15):
        if task in {"canny", "depth", "pose", "segmentation"} or sample.facts.get("relation") in MAPS:
            continue
        assert np.array_equal(sample.output, picture(world, sample.scene))


MAPS = ("edges", "depth", "pose", "grey")


@WORLDS
@pytest.mark.parametrize("task", ["canny", "depth", "pose"])
def test_a_map_is_of_the_picture_that_is_given(world: World, task: str) -> None:
    kind = {"canny": "edges"}.get(task, task)
    for sample in samples(world, task, 15):
        seen = render(world, sample.scene)
        assert np.array_equal(sample.inputs[0], seen.picture)
        assert np.array_equal(sample.output, truth.condition_picture(world, sample.scene, seen, kind))
        assert sample.facts == {"map": kind}
        assert sample.output.any()


@WORLDS
def test_segmentation_finds_what_is_named_and_only_that(world: World) -> None:
    kinds = set()
    for sample in samples(world, "segmentation", 80):
        blue = (sample.output == (0, 0, 255)).all(axis=2)
        ids = render(world, sample.scene).ids
        things = sample.scene.things
        if sample.instruction in {"the person", "all objects"}:
            expected = ids > 0
        else:
            said = captions.words(sample.instruction)[1:]
            (number,) = [n for n, thing in enumerate(things) if {thing.colour, thing.shape} >= {*said}]
            expected = ids == number + 1
            assert sample.facts["targets"] == [number]
        assert np.array_equal(blue, expected)
        kinds.add(len(sample.instruction.split()))
    assert kinds == {2, 3}


@WORLDS
@pytest.mark.parametrize("task", DEGRADATION_OF_TASK)
def test_a_restoration_is_given_the_spoiled_picture(world: World, task: str) -> None:
    for sample in samples(world, task, 15):
        assert not np.array_equal(sample.inputs[0], sample.output)
        assert sample.scene == sample.source_scene
        assert sample.facts == {"degradation": DEGRADATION_OF_TASK[task]}


def apply(change: dict[str, Any], things: list[Thing], background: str, source: Scene, out: Scene) -> str:
    """One change by hand; ``things`` is changed in place."""
    if change["kind"] == "background":
        return str(change["colour"])
    if change["kind"] == "add":
        (new,) = [thing for thing in out.things if thing.colour == change["colour"]]
        assert new.place == change["place"]
        things.append(new)
        return background
    position = things.index(source.things[change["target"]])
    if change["kind"] == "remove":
        del things[position]
    else:
        things[position] = replace(things[position], colour=change["colour"])
    return background


@WORLDS
def test_an_edited_scene_is_the_source_with_the_changes_that_are_told(world: World) -> None:
    kinds = set()
    for sample in samples(world, "edit", 150):
        source, changes = source_of(sample), changes_of(sample)
        kinds.add("several" if len(changes) > 1 else changes[0]["kind"])
        if source.person is not None:
            continue
        things, background = list(source.things), source.background
        for change in changes:
            background = apply(change, things, background, source, sample.scene)
        assert sample.scene == Scene(background=background, things=tuple(things))
    assert kinds == {*EDITS, "shirt"}


@WORLDS
@pytest.mark.parametrize("task", ["edit", "reasoning_edit"])
def test_an_edit_changes_no_pixel_but_those_of_what_is_changed(world: World, task: str) -> None:
    for sample in samples(world, task, 150):
        source, out = source_of(sample), sample.scene
        differs = (sample.inputs[0] != sample.output).any(axis=2)
        before, after = render(world, source), render(world, out)
        assert differs.any(), sample.prompt()
        if source.background != out.background:
            assert differs[~near(before.ids > 0) & ~near(after.ids > 0)].mean() > 0.95
            continue
        allowed = np.zeros((64, 64), bool)
        for thing in {*source.things} ^ {*out.things}:
            allowed |= render(world, Scene(background="grey", things=(thing,))).ids == 1
        if source.person != out.person:
            allowed |= before.ids > 0
        assert not differs[~near(allowed)].any()


@WORLDS
def test_an_instruction_names_what_it_changes(world: World) -> None:
    for sample in samples(world, "edit", 150):
        source = source_of(sample)
        for change in changes_of(sample):
            if "colour" in change:
                assert str(change["colour"]) in sample.instruction
            if "target" in change:
                name = captions.name_of(source.things[change["target"]])
                assert f"the {name}" in sample.instruction.lower()
                assert [captions.name_of(thing) for thing in source.things].count(name) == 1


ANSWERS = {
    "on the left": lambda thing: -thing.x,
    "on the right": lambda thing: thing.x,
    "at the top": lambda thing: -thing.y,
    "at the bottom": lambda thing: thing.y,
    "nearest": lambda thing: thing.y,
    "farthest": lambda thing: -thing.y,
    "largest": lambda thing: thing.radius,
    "smallest": lambda thing: -thing.radius,
}


@WORLDS
def test_the_answer_of_a_question_is_the_thing_that_is_edited(world: World) -> None:
    asked = set()
    for sample in samples(world, "reasoning_edit", 120):
        match = re.match(r"Which object is (?:the )?([a-z ]+)\?", sample.instruction)
        assert match
        asked.add(match[1])
        source, (change,) = source_of(sample), changes_of(sample)
        assert max(source.things, key=ANSWERS[match[1]]) == source.things[change["target"]]
        assert sample.instruction.endswith(" Remove it.") == (change["kind"] == "remove")
    assert asked == set(ANSWERS)


@WORLDS
@pytest.mark.parametrize("task", ["subject", "referring"])
def test_a_subject_keeps_what_no_word_tells(world: World, task: str) -> None:
    for sample in samples(world, task, 60):
        (moved,) = sample.scene.things
        thing = target_of(sample)
        assert replace(moved, place=thing.place, x=thing.x, y=thing.y) == thing
        assert moved.place != thing.place
        assert sample.scene.background != source_of(sample).background
        assert (moved.x, moved.y) == world.centres[moved.place]
        told = captions.words(sample.instruction)
        assert {*captions.words(moved.place), sample.scene.background} <= {*told}
        if task == "subject":
            assert told[1:3] == [thing.colour, thing.shape]
            assert thing.size not in told


@WORLDS
def test_a_thing_that_is_referred_to_stands_out(world: World) -> None:
    for sample in samples(world, "referring", 100):
        relation = sample.instruction.split()[1]
        question = {"left": "on the left", "right": "on the right", "top": "at the top", "bottom": "at the bottom"}
        answer = ANSWERS[question.get(relation, relation)]
        assert max(source_of(sample).things, key=answer) == target_of(sample)


@WORLDS
def test_two_subjects_come_from_their_pictures(world: World) -> None:
    for sample in samples(world, "multi_subject", 60):
        first, second = sample.scene.things
        text = sample.instruction
        assert text.index(captions.name_of(first)) < text.index("image_1") < text.index(captions.name_of(second))
        assert first.colour != second.colour
        assert target_of(sample).radius == first.radius
        assert f"{captions.where(second.place)} on" in text


@WORLDS
def test_composing_adds_one_thing_to_the_second_picture(world: World) -> None:
    for sample in samples(world, "compose", 60):
        *others, added = sample.scene.things
        host = replace(sample.scene, things=tuple(others))
        assert np.array_equal(sample.inputs[1], picture(world, host))
        assert np.array_equal(sample.inputs[0], picture(world, source_of(sample)))
        assert captions.name_of(added) == captions.name_of(target_of(sample))
        assert added.radius == target_of(sample).radius
        assert f"{captions.where(added.place)} of <img><|image_2|>" in sample.instruction


@WORLDS
def test_who_tries_on_a_shirt_changes_in_nothing_but_the_shirt(world: World) -> None:
    for sample in samples(world, "try_on", 20):
        before, after = source_of(sample).someone, sample.scene.someone
        assert replace(after, shirt=before.shirt) == before
        assert after.shirt != before.shirt
        assert sample.facts == {"shirt": after.shirt}
        differs = (sample.inputs[0] != sample.output).any(axis=2)
        seen = render(world, sample.scene)
        shirt = truth.parts(sample.scene, seen.ids) == 1 + COVERS.index("shirt")
        assert differs[shirt].mean() > 0.9
        assert not differs[~near(shirt)].any()
        assert (sample.inputs[1] == world.rgb[after.shirt]).all(axis=2).sum() > 40


@WORLDS
def test_a_condition_is_a_map_of_the_output(world: World) -> None:
    kinds = set()
    for sample in samples(world, "condition", 60):
        kind = str(sample.facts["map"])
        seen = render(world, sample.scene)
        assert np.array_equal(sample.inputs[0], truth.condition_picture(world, sample.scene, seen, kind))
        kinds.add(kind)
    assert kinds == {"edges", "depth", "pose"}


@WORLDS
def test_a_pose_or_depth_that_is_followed_stays(world: World) -> None:
    for sample in samples(world, "follow_pose", 20):
        assert sample.scene.someone.joints == source_of(sample).someone.joints
        assert sample.scene.someone.shirt != source_of(sample).someone.shirt
    for sample in samples(world, "follow_depth", 30):
        before, after = render(world, source_of(sample)), render(world, sample.scene)
        assert np.array_equal(before.depth, after.depth)
        assert not {*source_of(sample).colours} & {*sample.scene.colours}


@WORLDS
def test_the_answer_in_context_is_made_as_the_example_is(world: World) -> None:
    found = set()
    for sample in samples(world, "in_context", 120):
        relation, colour = str(sample.facts["relation"]), sample.facts["colour"]
        found.add(relation)
        example_in, example_out, query = sample.inputs
        source = source_of(sample)
        assert np.array_equal(example_in, picture(world, source))
        if relation in {"edges", "depth", "pose"}:
            seen = render(world, source)
            assert np.array_equal(example_out, truth.condition_picture(world, source, seen, relation))
            seen = render(world, sample.scene)
            assert np.array_equal(query, seen.picture)
            assert np.array_equal(sample.output, truth.condition_picture(world, sample.scene, seen, relation))
        elif relation == "grey":
            assert np.array_equal(example_out, truth.grey_picture(example_in))
            assert np.array_equal(sample.output, truth.grey_picture(query))
        elif relation == "background":
            assert np.array_equal(example_out, picture(world, replace(source, background=str(colour))))
            assert sample.scene.background == colour != source.background
        else:
            (thing,) = source.things
            recoloured = source.with_thing(0, replace(thing, colour=str(colour)))
            assert np.array_equal(example_out, picture(world, recoloured))
            assert [thing.colour for thing in sample.scene.things] == [colour]
        assert not np.array_equal(query, sample.output)
    assert found == set(world.relations)


def test_a_task_that_the_world_has_not_is_refused_with_those_it_has() -> None:
    with pytest.raises(ConfigError, match=r"no task 'custom'.*canny"):
        make_sample(FULL, "custom", 0, 0)
