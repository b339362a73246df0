"""The task table against the authors' wording, and what each task refuses."""

from __future__ import annotations

import re
from collections import Counter

import pytest

from omnigen_actor import placeholders
from omnigen_actor.errors import ConfigError, ErrorKind, RowError
from omnigen_actor.placeholders import placeholder
from omnigen_actor.tasks import DEFAULT_TASKS, MAX_IMAGES, TASKS, TaskSpec, TaskTable

SPECS = list(TASKS.values())
ONE, TWO, THREE, FOUR, FIVE = map(placeholder, range(1, 6))


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
        (
            "in_context",
            5,
            "According to the following examples, generate an output for the input.\n"
            f"Input: {ONE}\nOutput: {TWO}\n\nInput: {THREE}\nOutput: {FOUR}\n\nInput: {FIVE}\nOutput: ",
        ),
        ("multi_image_edit", 2, f"{ONE} {TWO} Make it."),
        ("multi_image_edit", 5, f"{ONE} {TWO} {THREE} {FOUR} {FIVE} Make it."),
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
    both = f"{TWO} in the room of {ONE}"
    assert TASKS["multi_image_edit"].prompt(both, 2) == both


def test_an_instruction_is_never_read_as_a_template() -> None:
    assert TASKS["edit"].prompt("{i} {img1} {img2} {}", 1) == f"{ONE} {{i}} {{img1}} {{img2}} {{}}"
    assert TASKS["multi_image_edit"].prompt("{images}", 2) == f"{ONE} {TWO} {{images}}"


@pytest.mark.parametrize("num_images", [2, 4, 6])
def test_an_example_without_its_output_is_refused(num_images: int) -> None:
    with pytest.raises(RowError, match="3 to 15 input images in steps of 2"):
        TASKS["in_context"].prompt("", num_images)


@pytest.mark.parametrize("spec", SPECS, ids=lambda spec: spec.name)
def test_a_task_takes_the_numbers_of_images_that_it_makes_prompts_for(spec: TaskSpec) -> None:
    own = [" ".join(map(placeholder, range(1, count + 1))) or "red" for count in range(MAX_IMAGES + 2)]

    def is_made(instruction: str, num_images: int) -> bool:
        try:
            spec.prompt(instruction, num_images)
        except RowError:
            return False
        return True

    taken = [count for count in range(MAX_IMAGES + 2) if spec.takes(count)]
    assert taken == [count for count, instruction in enumerate(own) if is_made(instruction, count)]
    assert spec.places_images == (taken != [0] and all(is_made("red", count) for count in taken if count))


def test_a_task_with_one_wording_that_leaves_the_images_out_does_not_place_them() -> None:
    spec = TaskSpec(name="w", wording="{img1} {i}", more_wordings=("{i}",), min_images=1, max_images=1)
    assert not spec.places_images


def test_a_wording_is_drawn_by_the_rows_id_and_by_nothing_else() -> None:
    spec = TaskSpec(name="w", wording="{i} 0", more_wordings=("{i} 1", "{i} 2"), min_images=0, max_images=0)
    drawn = {f"row-{n}": spec.prompt("x", 0, f"row-{n}") for n in range(300)}
    assert drawn == {row_id: spec.prompt("x", 0, row_id) for row_id in reversed(drawn)}
    counts = Counter(drawn.values())
    assert set(counts) == {"x 0", "x 1", "x 2"}
    assert min(counts.values()) > 60


def test_every_task_of_the_table_is_found_by_its_names() -> None:
    assert [DEFAULT_TASKS.find(name) for name in TASKS] == SPECS == list(DEFAULT_TASKS)
    assert [spec.name for spec in SPECS] == list(TASKS)
    for spec in SPECS:
        assert all(DEFAULT_TASKS.find(alias) is spec for alias in spec.aliases)
    assert max(spec.max_images for spec in SPECS) == MAX_IMAGES


@pytest.mark.parametrize(
    ("name", "words"),
    [("edti", "did you mean edit"), ("zzz", "known tasks: text_to_image, edit,"), ("", "known tasks"), (None, "None")],
)
def test_an_unknown_task_lists_the_nearest_or_all(name: str | None, words: str) -> None:
    with pytest.raises(RowError, match=words) as caught:
        DEFAULT_TASKS.find(name)
    assert caught.value.kind == ErrorKind.UNKNOWN_TASK


def test_a_huge_task_name_makes_a_short_message() -> None:
    with pytest.raises(RowError) as caught:
        DEFAULT_TASKS.find("x" * 10**6)
    assert len(str(caught.value)) < 1000


def test_two_tasks_can_not_share_a_name() -> None:
    one = TaskSpec(name="one", wording="{i}", min_images=0, max_images=0)
    with pytest.raises(ConfigError, match="'one' of 'two'"):
        TaskTable([one, TaskSpec(name="two", wording="{i}", min_images=0, max_images=0, aliases=("one",))])
