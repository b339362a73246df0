"""Tasks of a user's own join the table, and what is wrong with them is said before a run starts."""

from __future__ import annotations

from pathlib import Path

import pytest

from omnigen_actor.errors import ConfigError
from omnigen_actor.placeholders import placeholder
from omnigen_actor.tasks import TASKS, TaskSpec
from pipelines.task_files import load_tasks

ONE = placeholder(1)
MINE = TaskSpec(name="mine", wording="{i}!", min_images=0, max_images=0)
MANY = [MINE, TaskSpec(name="other", wording="{i}?", min_images=0, max_images=0)]
NO_TASK = "text"

SKETCH = """
tasks:
  - name: sketch
    wording: "Turn this photo into a pencil sketch: {img1}."
    more_wordings: ["{img1} Redraw this photo as a pencil sketch."]
    min_images: 1
    sized_by_input: true
    guidance_scale: 2
    aliases: [pencil]
  - name: shout
    wording: "{i}!"
    min_images: 0
"""


def write(folder: Path, text: str) -> str:
    path = folder / "tasks.yaml"
    path.write_text(text)
    return str(path)


def test_a_yaml_file_adds_its_tasks(tmp_path: Path):
    tasks = load_tasks([write(tmp_path, SKETCH)])
    assert [spec.name for spec in tasks] == [*TASKS, "sketch", "shout"]
    sketch = tasks.find("pencil")
    assert (sketch.name, sketch.guidance_scale, sketch.sized_by_input) == ("sketch", 2.0, True)
    assert (sketch.max_images, sketch.needs_instruction) == (1, False)
    assert tasks.find("shout").prompt("go", 0) == "go!"


def test_python_adds_one_task_or_several():
    assert load_tasks(["tests.test_task_files:MINE"]).find("mine") is MINE
    assert load_tasks(["tests.test_task_files:MANY"]).find("other") is MANY[1]


def test_without_sources_the_table_is_the_own_one():
    assert [spec.name for spec in load_tasks()] == list(TASKS)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("- name: x", "must hold one list under the key 'tasks'"),
        ("tasks: []", "must hold one list"),
        ("tasks: {", "tasks.yaml"),
        ("tasks: [5]", "number 1: 5 is no mapping"),
        ("tasks: [{name: a, wording: b}]", "min_images must be given"),
        ("tasks: [{name: a, wordnig: b, min_images: 0}]", "'wordnig' is unknown; did you mean wording"),
        ("tasks: [{name: a, wording: b, min_images: true}]", "min_images=True: must be int"),
        ("tasks: [{name: a, wording: b, min_images: 0, aliases: c}]", "aliases='c': must be a list of texts"),
        ("tasks: [{name: A B, wording: b, min_images: 0}]", "task 'A B': a name has small letters"),
        ("tasks: [{name: edit, wording: '{i}', min_images: 0}]", "task 'edit' of 'edit' is there already"),
        ("tasks: [{name: a, wording: '{img2}', min_images: 1}]", "with 1 images: placeholders do not match"),
        ("tasks: [{name: a, wording: '{img1}', min_images: 1, max_images: 2}]", "with 2 images"),
        ("tasks: [{name: a, wording: 'b', min_images: 2, max_images: 1}]", "must be in order"),
        ("tasks: [{name: a, wording: '{i}', min_images: 0, needs_instruction: false}]", "has {i}"),
    ],
)
def test_what_is_wrong_names_the_file_and_the_value(tmp_path: Path, text: str, words: str):
    with pytest.raises(ConfigError) as caught:
        load_tasks([write(tmp_path, text)])
    assert words in str(caught.value)
    assert "task" in str(caught.value)


@pytest.mark.parametrize("source", ["nowhere.yaml", "no.such.module:X", "tests.test_task_files:NO_TASK", "tests:NONE"])
def test_a_source_that_gives_no_task_is_named(source: str):
    with pytest.raises(ConfigError, match=source.split(":", maxsplit=1)[0]):
        load_tasks([source])
