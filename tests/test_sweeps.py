"""Lists of parameters become rows: every combination once, with an id that follows from its values."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipelines.sweeps import MAX_COMBINATIONS, BadSweep, combinations

ROW = {"id": "boat", "task": "text_to_image", "instruction": "a boat"}


def ids(**lists: object) -> list[str]:
    found = combinations(ROW | lists)
    assert isinstance(found, list)
    return [row["id"] for row in found]


def test_a_row_without_lists_is_itself():
    row = ROW | {"steps": 20, "images": ["a.png", "b.png"]}
    assert combinations(row) == [row]


def test_every_combination_is_a_row():
    found = combinations(ROW | {"steps": [20, 50], "guidance_scale": [2, 2.5], "seed": 7})
    assert isinstance(found, list)
    assert [(row["steps"], row["guidance_scale"], row["seed"]) for row in found] == [
        (20, 2, 7),
        (20, 2.5, 7),
        (50, 2, 7),
        (50, 2.5, 7),
    ]
    assert [row["id"] for row in found] == [
        "boat[steps=20,guidance_scale=2]",
        "boat[steps=20,guidance_scale=2.5]",
        "boat[steps=50,guidance_scale=2]",
        "boat[steps=50,guidance_scale=2.5]",
    ]


def test_widths_and_heights_are_sizes():
    assert ids(width=[512, 1024], height=[512, 768]) == ["boat[width=512,height=512]", "boat[width=1024,height=768]"]
    assert ids(width=[512, 512], height=[512, 768]) == ["boat[width=512,height=512]", "boat[width=512,height=768]"]
    assert ids(width=[512, 1024], height=256) == ["boat[width=512]", "boat[width=1024]"]


@given(st.lists(st.integers(1, 1000), min_size=1, max_size=8, unique=True), st.randoms())
def test_an_id_depends_on_the_value_alone(steps: list[int], random):
    shuffled = random.sample(steps, len(steps))
    assert sorted(ids(steps=steps)) == sorted(ids(steps=shuffled))
    assert ids(steps=[*steps, 1001])[: len(steps)] == ids(steps=steps)


def test_the_spelling_of_a_number_does_not_show():
    assert ids(guidance_scale=[2, 3]) == ids(guidance_scale=["2", 3.0]) == ids(guidance_scale="[2.0, 3]")


def test_a_row_without_an_id_is_told_apart_by_its_content():
    found = combinations({"task": "text_to_image", "steps": [1, 2]})
    assert isinstance(found, list)
    assert all("id" not in row for row in found)


@pytest.mark.parametrize(
    ("lists", "column", "words"),
    [
        ({"steps": []}, "steps", "must hold a value"),
        ({"steps": [20, "many"]}, "steps", "number 2 of the list is no number"),
        ({"steps": [20, None]}, "steps", "number 2"),
        ({"seed": [2**64]}, "seed", "number 1"),
        ({"steps": [20, 20.0]}, "steps", "twice"),
        ({"width": [64, 64], "height": [32, 32]}, "width", "no pair twice"),
        ({"width": [64, 128], "height": [32]}, "width", "as long as each other"),
        ({"steps": list(range(1, 200)), "seed": list(range(200))}, "seed", f"at most {MAX_COMBINATIONS}"),
    ],
)
def test_a_list_that_can_not_be_expanded_is_that_rows_fault(lists: dict, column: str, words: str):
    found = combinations(ROW | lists)
    assert isinstance(found, BadSweep)
    assert found.column == column
    assert words in found.error.message
