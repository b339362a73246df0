"""The task table against the authors' wording, and what each task refuses."""

from __future__ import annotations

import re

import pytest

from omnigen_actor import placeholders
from omnigen_actor.errors import ErrorKind, RowError
from omnigen_actor.placeholders import placeholder
from omnigen_actor.tasks import MAX_IMAGES, TASKS, TaskSpec, find_task

SPECS = list(TASKS.values())
ONE, TWO, THREE = map(placeholder, (1, 2, 3))


@pytest.mark.parametrize(
    ("task", "num_images", "expected"),
    [
        ("text_to_image", 0, "Make it."),
        ("edit", 1, f"{ONE} Make it."),
        ("reasoning_edit", 1, f"{ONE} Make it."),
        ("try_on", 2, f"{ONE} wears {TWO}."),
        ("depth", 1, f"Generate the depth map for this image: {ONE}."),
        ("pose", 1, f"Detect the skeleton of human in this image: {ONE}."),
        ("segmentation", 1, f"Find Make it. in the picture {ONE} and color them blue."),
        ("condition", 1, f"Generate a new photo using the following picture and text as conditions: {ONE}\n Make it."),
        ("follow_pose", 1, f"Following the human pose of this image {ONE}, generate a new photo: Make it."),
        ("follow_depth", 1, f"Following the depth mapping of this image {ONE}, generate a new image: Make it."),
        (
            "in_context",
            3,
            "According to the following examples, generate an output for the input.\n"
            f"Input: {ONE}\nOutput: {TWO}\n\nInput: {THREE}\nOutput: ",
        ),
        ("custom", 0, "Make it."),
    ],
)
def test_prompts_have_the_authors_wording(task: str, num_images: int, expected: str) -> None:
    assert TASKS[task].prompt("Make it.", num_images) == expected


@pytest.mark.parametrize("spec", SPECS, ids=lambda spec: spec.name)
def test_every_task_makes_a_canonical_prompt_from_what_it_needs(spec: TaskSpec) -> None:
    for num_images in {spec.min_images, spec.max_images}:
        own = "".join(placeholder(number) for number in range(1, num_images + 1))
        prompt = spec.prompt(f"{own} red", num_images)
        placeholders.check(prompt, num_images)
        assert placeholders.normalise(prompt) == prompt
        assert not re.search(r"\{(i|img\d)\}", prompt)


@pytest.mark.parametrize("spec", SPECS, ids=lambda spec: spec.name)
def test_a_wording_names_exactly_the_images_that_its_task_must_have(spec: TaskSpec) -> None:
    named = sorted(set(map(int, re.findall(r"\{img(\d+)\}", spec.wording))))
    assert named in ([], list(range(1, spec.min_images + 1)))
    if named:
        assert spec.prompt("red", spec.min_images)
        assert spec.max_images == spec.min_images


@pytest.mark.parametrize("spec", SPECS, ids=lambda spec: spec.name)
def test_every_task_refuses_the_wrong_number_of_images(spec: TaskSpec) -> None:
    for num_images in {spec.min_images - 1, spec.max_images + 1} - {-1}:
        with pytest.raises(RowError, match=f"{spec.name!r} takes .*has {num_images}") as caught:
            spec.prompt("red", num_images)
        assert caught.value.kind == ErrorKind.BAD_IMAGE_COUNT


@pytest.mark.parametrize("spec", SPECS, ids=lambda spec: spec.name)
@pytest.mark.parametrize("empty", [None, "", " \n"])
def test_an_empty_instruction_is_refused_where_the_wording_uses_it(spec: TaskSpec, empty: str | None) -> None:
    assert spec.needs_instruction == ("{i}" in spec.wording)
    if spec.needs_instruction:
        with pytest.raises(RowError) as caught:
            spec.prompt(empty, spec.min_images)
        assert caught.value.kind == ErrorKind.BAD_INSTRUCTION
    else:
        assert spec.prompt(empty, spec.min_images) == spec.prompt("red", spec.min_images)


def test_an_instruction_with_placeholders_is_the_whole_prompt() -> None:
    own = f"Turn the sky of {ONE} green."
    for task in ("edit", "depth", "condition", "subject"):
        assert TASKS[task].prompt("Turn the sky of <img><|image_1|><img> green.", 1) == own


def test_an_instruction_is_never_read_as_a_template() -> None:
    assert TASKS["edit"].prompt("{i} {img1} {img2} {}", 1) == f"{ONE} {{i}} {{img1}} {{img2}} {{}}"


def test_every_task_of_the_table_is_found_by_its_name() -> None:
    assert [find_task(name) for name in TASKS] == SPECS
    assert [spec.name for spec in SPECS] == list(TASKS)
    assert max(spec.max_images for spec in SPECS) == MAX_IMAGES


@pytest.mark.parametrize(
    ("name", "words"),
    [("edti", "did you mean edit"), ("zzz", "known tasks: text_to_image, edit,"), ("", "known tasks"), (None, "None")],
)
def test_an_unknown_task_lists_the_nearest_or_all(name: str | None, words: str) -> None:
    with pytest.raises(RowError, match=words) as caught:
        find_task(name)
    assert caught.value.kind == ErrorKind.UNKNOWN_TASK


def test_a_huge_task_name_makes_a_short_message() -> None:
    with pytest.raises(RowError) as caught:
        find_task("x" * 10**6)
    assert len(str(caught.value)) < 1000
