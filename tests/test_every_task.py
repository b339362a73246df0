"""Every task of the table, from its example rows: the prompt, the size and what is refused, all written out by hand.

A new task fails here until it has a row in ``examples/manifest.jsonl``, its prompt below, and a line in ``RULES``.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from omnigen_actor import schema
from omnigen_actor.errors import ErrorKind
from omnigen_actor.tasks import DEFAULT_TASKS, MAX_IMAGES
from pipelines.config import GenerationConfig
from pipelines.rows import check_row

EXAMPLES = Path(__file__).parent.parent / "examples"
ROWS = [json.loads(line) for line in (EXAMPLES / "manifest.jsonl").read_text(encoding="utf-8").splitlines()]
RUN = GenerationConfig(width=320, height=192)


class Rule(NamedTuple):
    """How many images a task takes, whether it needs an instruction, and where a row without a size gets it from."""

    num_images: range
    instruction: str
    size: str


RULES = {
    "text_to_image": Rule(range(1), "needed", "run"),
    "edit": Rule(range(1, 2), "needed", "input"),
    "reasoning_edit": Rule(range(1, 2), "needed", "input"),
    "subject": Rule(range(1, 17), "needed", "run"),
    "referring": Rule(range(1, 17), "needed", "run"),
    "multi_subject": Rule(range(2, 17), "needed", "run"),
    "compose": Rule(range(2, 17), "needed", "run"),
    "multi_image_edit": Rule(range(2, 17), "needed", "run"),
    "try_on": Rule(range(2, 3), "not needed", "run"),
    "canny": Rule(range(1, 2), "not needed", "input"),
    "depth": Rule(range(1, 2), "not needed", "input"),
    "pose": Rule(range(1, 2), "not needed", "input"),
    "segmentation": Rule(range(1, 2), "needed", "input"),
    "denoise": Rule(range(1, 2), "not needed", "input"),
    "deblur": Rule(range(1, 2), "not needed", "input"),
    "derain": Rule(range(1, 2), "not needed", "input"),
    "raindrop": Rule(range(1, 2), "not needed", "input"),
    "desnow": Rule(range(1, 2), "not needed", "input"),
    "dehaze": Rule(range(1, 2), "not needed", "input"),
    "enhance": Rule(range(1, 2), "not needed", "input"),
    "colorize": Rule(range(1, 2), "not needed", "input"),
    "inpaint": Rule(range(1, 2), "not needed", "input"),
    "condition": Rule(range(1, 2), "needed", "input"),
    "follow_pose": Rule(range(1, 2), "needed", "input"),
    "follow_depth": Rule(range(1, 2), "needed", "input"),
    "in_context": Rule(range(3, 16, 2), "not needed", "run"),
    "custom": Rule(range(17), "needed", "run"),
}

each_task = pytest.mark.parametrize("task", [spec.name for spec in DEFAULT_TASKS])

# Every row of the example manifest: its id and the prompt that the model reads.
PROMPTS = {
    "edit-cat-hat": "<img><|image_1|></img> Put a small red knitted hat on the cat.",
    "edit-coffee-marble": (
        "<img><|image_1|></img> Replace the wooden table with white marble and add a croissant next to the saucer."
    ),
    "edit-rocket-sunrise": "<img><|image_1|></img> Change the night sky to a pink and orange sunrise.",
    "edit-pavilion-snow": "<img><|image_1|></img> Cover the roofs and the trees with fresh snow.",
    "reasoning-edit-coffee": "<img><|image_1|></img> Which item can be used to stir the coffee? Please remove it.",
    "text-lighthouse": (
        "A white lighthouse on a rocky coast at dusk, waves breaking below it, warm light in its windows, long "
        "exposure photograph."
    ),
    "text-fox": (
        "A close-up photograph of a red fox in deep snow, looking straight into the camera, soft morning light, "
        "shallow depth of field."
    ),
    "text-market": (
        "A narrow street market in the rain at night, neon signs mirrored in the puddles, people with umbrellas "
        "seen from behind."
    ),
    "text-kitchen": (
        "A bright kitchen with a wooden table, a bowl of lemons and a blue enamel kettle, sunlight through linen "
        "curtains."
    ),
    "text-giraffe": (
        "A giraffe in an orange space suit stands on the moon, the earth rising behind it, detailed illustration "
        "for a children's book."
    ),
    "subject-astronaut": (
        "The woman in <img><|image_1|></img> walks through a busy street market in the evening and waves at the camera."
    ),
    "subject-cat": "The cat in <img><|image_1|></img> sleeps on a sunny window sill between two flower pots.",
    "subject-cup": "The red cup in <img><|image_1|></img> stands on a stack of old books next to a rainy window.",
    "referring-spoon": (
        "The silver spoon on the saucer in <img><|image_1|></img> stands in a jar of honey on a breakfast table."
    ),
    "referring-portrait": (
        "A man and a cat sit on a park bench. The man is the one behind the tripod in <img><|image_1|></img>. The "
        "cat is the one in <img><|image_2|></img>."
    ),
    "multi-subject-portrait": (
        "A man and a woman stand side by side in a museum hall. The man is the photographer in "
        "<img><|image_1|></img>. The woman is the astronaut in <img><|image_2|></img>."
    ),
    "compose-cup-pavilion": (
        "The red cup in <img><|image_1|></img> is placed on a stone balustrade. The pavilion in "
        "<img><|image_2|></img> is in the background."
    ),
    "compose-cat-rocket": (
        "The cat in <img><|image_1|></img> sits in the grass and watches the rocket in <img><|image_2|></img> on "
        "its launch pad."
    ),
    "multi-image-edit-filming": (
        "<img><|image_1|></img> <img><|image_2|></img> Show the photographer of the first image filming the rocket "
        "of the second image."
    ),
    "try-on-suit": (
        "The man in <img><|image_1|></img> wears the orange space suit of the woman in <img><|image_2|></img>."
    ),
    "canny-coffee": "Detect the edges in this image: <img><|image_1|></img>.",
    "canny-pavilion": "Detect the edges in this image: <img><|image_1|></img>.",
    "depth-pavilion": "Generate the depth map for this image: <img><|image_1|></img>.",
    "depth-rocket": "Generate the depth map for this image: <img><|image_1|></img>.",
    "pose-photographer": "Detect the skeleton of human in this image: <img><|image_1|></img>.",
    "pose-astronaut": "Detect the skeleton of human in this image: <img><|image_1|></img>.",
    "segmentation-cup": "Find the cup in the picture <img><|image_1|></img> and color them blue.",
    "segmentation-rocket": "Find the rocket in the picture <img><|image_1|></img> and color them blue.",
    "denoise-coffee": "Remove the noise from this image: <img><|image_1|></img>.",
    "deblur-clock": "Remove the blur from this image: <img><|image_1|></img>.",
    "derain-rocket": "Remove the rain from this image: <img><|image_1|></img>.",
    "raindrop-cat": "Remove the raindrops from this image: <img><|image_1|></img>.",
    "desnow-photographer": "Remove the snow from this image: <img><|image_1|></img>.",
    "dehaze-rocket": "Remove the haze from this image: <img><|image_1|></img>.",
    "enhance-pavilion": "Brighten this low-light image: <img><|image_1|></img>.",
    "colorize-photographer": "Colorize this black-and-white image: <img><|image_1|></img>.",
    "inpaint-coffee": "Fill in the missing parts of this image: <img><|image_1|></img>.",
    "condition-cat-edges": (
        "Generate a new photo using the following picture and text as conditions: <img><|image_1|></img>\n A fluffy "
        "white cat with blue eyes in front of a dark green curtain, studio light."
    ),
    "condition-astronaut-edges": (
        "Generate a new photo using the following picture and text as conditions: <img><|image_1|></img>\n An oil "
        "painting of a smiling astronaut in a silver space suit, with a helmet on the table in front of her."
    ),
    "follow-pose-photographer": (
        "Following the human pose of this image <img><|image_1|></img>, generate a new photo: A bird watcher in a "
        "yellow raincoat bends over a telescope on a tripod, in a misty wetland."
    ),
    "follow-depth-pavilion": (
        "Following the depth mapping of this image <img><|image_1|></img>, generate a new image: A tall wooden "
        "lookout tower above an autumn forest, a wide river in the distance."
    ),
    "in-context-edges": (
        "According to the following examples, generate an output for the input.\nInput: "
        "<img><|image_1|></img>\nOutput: <img><|image_2|></img>\n\nInput: <img><|image_3|></img>\nOutput: "
    ),
    "custom-poster": (
        "A film poster. In the foreground the astronaut in <img><|image_1|></img> smiles; behind her the rocket in "
        "<img><|image_2|></img> rises into a starry sky. The title says FIRST LIGHT."
    ),
    "chain-1-photo": (
        "A full-length photograph of a young woman in a green coat, arms spread, on a path in an autumn park."
    ),
    "chain-2-edited": (
        "<img><|image_1|></img> Make the coat red, put a straw hat on her head and turn the park into a sandy beach."
    ),
    "chain-3-pose": "Detect the skeleton of human in this image: <img><|image_1|></img>.",
    "chain-4-dancer": (
        "Generate a new photo using the following picture and text as conditions: <img><|image_1|></img>\n A dancer "
        "in a silver dress on the stage of a theatre, a dark blue curtain behind her."
    ),
    "chain-5-depth": "Generate the depth map for this image: <img><|image_1|></img>.",
    "chain-6-merged": (
        "The dancer in <img><|image_1|></img> stands on her stage. The red cup in <img><|image_2|></img> is on the "
        "floor in front of her."
    ),
}


def planned(cells: dict[str, Any]) -> dict[str, Any]:
    """What the check makes of one row."""
    (row,) = check_row(cells, RUN, "/base")
    return dict(zip(schema.PLAN.names, row, strict=True))


def cells(task: str, num_images: int, instruction: str | None) -> dict[str, Any]:
    return {
        "id": "a",
        "task": task,
        "instruction": instruction,
        "images": [f"{number}.png" for number in range(num_images)],
    }


def naming(*numbers: int) -> str:
    """An instruction that names these images."""
    return " and ".join(["red", *(f"<img><|image_{number}|></img>" for number in numbers)])


def examples_of(task: str) -> list[dict[str, Any]]:
    found = [row for row in ROWS if row["task"] == task]
    assert found, f"examples/manifest.jsonl has no row of task {task}"
    return found


@each_task
def test_the_example_rows_of_a_task_make_these_prompts(task: str) -> None:
    found = {row["id"]: planned(row) for row in examples_of(task)}
    assert {name: row["error"] for name, row in found.items() if row["error"]} == {}
    assert {name: row["prompt"] for name, row in found.items()} == {name: PROMPTS.get(name) for name in found}


def test_no_prompt_is_without_its_row() -> None:
    assert list(PROMPTS) == [row["id"] for row in ROWS]


@each_task
def test_the_example_rows_of_a_task_have_their_own_size_or_follow_its_rule(task: str) -> None:
    for row in examples_of(task):
        found = planned(row)
        own = (row["width"], row["height"])
        left_out = {"input": (None, None), "run": (320, 192)}[RULES[task].size]
        assert (found["width"], found["height"]) == (left_out if own == (None, None) else own)


@each_task
def test_a_size_is_the_rows_else_that_of_the_input_or_the_run(task: str) -> None:
    rule = RULES[task]
    row = cells(task, rule.num_images[-1], naming(*range(1, rule.num_images[-1] + 1)))
    explicit = planned(row | {"width": 80, "height": 115})
    assert (explicit["width"], explicit["height"]) == (80, 112)
    left_out = planned(row)
    assert (left_out["width"], left_out["height"]) == ((None, None) if rule.size == "input" else (320, 192))


@each_task
def test_a_task_takes_these_numbers_of_images_and_refuses_all_others(task: str) -> None:
    for num_images in range(MAX_IMAGES + 2):
        found = planned(cells(task, num_images, naming(*range(1, num_images + 1))))
        if num_images in RULES[task].num_images:
            assert found["error"] is None
        else:
            assert found["error_kind"] == ErrorKind.BAD_IMAGE_COUNT
            assert f"task {task!r} takes" in found["error"]
            assert f"this row has {num_images}" in found["error"]


@each_task
@pytest.mark.parametrize("empty", [None, "", " \n"])
def test_an_empty_instruction_is_refused_where_one_is_needed(task: str, empty: str | None) -> None:
    rule = RULES[task]
    found = planned(cells(task, rule.num_images[0], empty))
    if rule.instruction == "needed":
        assert found["error_kind"] == ErrorKind.BAD_INSTRUCTION
        assert f"task {task!r} needs an instruction" in found["error"]
    else:
        assert (found["error"], bool(found["prompt"])) == (None, True)


@each_task
def test_an_instruction_that_names_an_image_too_many_is_refused(task: str) -> None:
    num_images = RULES[task].num_images[0]
    found = planned(cells(task, num_images, naming(*range(1, num_images + 2))))
    assert found["error_kind"] == ErrorKind.BAD_PLACEHOLDERS
    assert f"{num_images} images" in found["error"]
    assert f"<|image_{num_images + 1}|>" in found["error"]


@each_task
def test_an_instruction_that_leaves_a_gap_in_the_numbers_is_refused(task: str) -> None:
    num_images = RULES[task].num_images[-1]
    numbers = [*range(1, num_images), num_images + 1] if num_images else [2]
    found = planned(cells(task, num_images, naming(*numbers)))
    assert found["error_kind"] == ErrorKind.BAD_PLACEHOLDERS
    assert f"the numbers are {numbers[:10]}" in found["error"]


@pytest.mark.parametrize("task", [name for name, rule in RULES.items() if rule.num_images[-1] > 1])
def test_an_instruction_that_names_some_images_has_to_name_the_last(task: str) -> None:
    num_images = next(number for number in RULES[task].num_images if number > 1)
    found = planned(cells(task, num_images, naming(*range(1, num_images))))
    assert found["error_kind"] == ErrorKind.BAD_PLACEHOLDERS
    assert f"{num_images} images" in found["error"]
    assert f"missing <img><|image_{num_images}|></img>" in found["error"]


@pytest.mark.parametrize("task", ["subject", "referring", "multi_subject", "compose", "custom"])
def test_where_the_wording_names_no_image_the_instruction_has_to(task: str) -> None:
    num_images = RULES[task].num_images[-1]
    found = planned(cells(task, num_images, "red"))
    assert found["error_kind"] == ErrorKind.BAD_PLACEHOLDERS
    assert "missing <img><|image_1|></img>" in found["error"]
