"""A recipe and source rows -> manifest rows: loops, choices, references, shares, sets of several, rejected rows."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest

from omnigen_actor.errors import ConfigError
from pipelines.recipes.draws import draw
from pipelines.recipes.expand import Expander, check_columns
from pipelines.recipes.filling import Places, SourceRow
from pipelines.recipes.loading import load_recipe
from pipelines.recipes.recipe import Recipe

PLACES = Places(source_folder="/data/photos", manifest_folder="/data")


def source_rows(count: int, **cells: object) -> list[SourceRow]:
    both = {"caption": "A boat.", "image": "boat.jpg", **cells}
    said = {name: value for name, value in both.items() if value is not None}
    return [SourceRow(number=n + 1, id=f"r{n}", cells={**said}) for n in range(count)]


def mine(folder: Path, text: str, **settings: object) -> Recipe:
    path = folder / "mine.yaml"
    path.write_text(text)
    return load_recipe(str(path), settings)


def expand(
    recipe: Recipe, rows: Iterable[SourceRow], seed: int = 0
) -> tuple[list[dict[str, Any]], Expander, list[str]]:
    rejected: list[str] = []
    expander = Expander(
        recipe, PLACES, seed=seed, on_rejected=lambda row, reason: rejected.append(f"{row.number}: {reason}")
    )
    return list(expander.rows(rows)), expander, rejected


def test_controlnet_makes_maps_of_a_photograph_and_photographs_of_the_maps() -> None:
    rows, expander, _ = expand(load_recipe("controlnet"), source_rows(1))
    found = {row["id"]: (row["task"], row["instruction"], row["images"]) for row in rows}
    assert found == {
        "r0-canny": ("canny", "", ["photos/boat.jpg"]),
        "r0-depth": ("depth", "", ["photos/boat.jpg"]),
        "r0-pose": ("pose", "", ["photos/boat.jpg"]),
        "r0-segmentation": ("segmentation", "the main subject", ["photos/boat.jpg"]),
        "r0-by-canny": ("condition", "A boat.", ["row:r0-canny"]),
        "r0-by-depth": ("condition", "A boat.", ["row:r0-depth"]),
        "r0-by-pose": ("condition", "A boat.", ["row:r0-pose"]),
        "r0-by-segmentation": ("condition", "A boat.", ["row:r0-segmentation"]),
    }
    assert expander.account.per_task == Counter(canny=1, depth=1, pose=1, segmentation=1, condition=4)
    assert {(row["recipe"], row["group"], row["source_id"], row["image"]) for row in rows} == {
        ("controlnet", "controlnet", "r0", "boat.jpg")
    }


def test_an_edit_and_its_inverse_refer_to_each_other() -> None:
    rows, _, _ = expand(load_recipe("edit-pairs", {"num_edits": 3}), source_rows(1))
    edited, undone = rows[:3], rows[3:]
    assert len({row["edit"] for row in edited}) == 3
    for there, back in zip(edited, undone, strict=True):
        assert back["images"] == [f"row:{there['id']}"]
        assert back["instruction"] == there["inverse_instruction"]


def test_stepwise_begins_with_a_canvas_and_goes_on_from_the_step_before() -> None:
    rows, _, _ = expand(load_recipe("stepwise"), source_rows(1, image=None))
    assert rows[0]["images"][0].startswith("data:image/png;base64,")
    assert [row["images"] for row in rows[1:]] == [[f"row:r0-step-{n}"] for n in (1, 2, 3)]
    assert all(row["instruction"].endswith(": A boat.") for row in rows)


def test_in_context_takes_two_rows_at_a_time_and_tells_of_one_that_is_left_over() -> None:
    sources = [SourceRow(number=n + 1, id=f"r{n}", cells={"image": f"{n}.jpg"}) for n in range(3)]
    rows, expander, rejected = expand(load_recipe("in-context", {"relations": ["depth"]}), sources)
    assert [(row["id"], row["images"]) for row in rows] == [
        ("r0-depth-example", ["photos/0.jpg"]),
        ("r0-depth-of-r1", ["photos/0.jpg", "row:r0-depth-example", "photos/1.jpg"]),
    ]
    assert {row["source_id_2"] for row in rows} == {"r1"}
    assert rejected == ["3: is left over: in-context takes 2 rows at a time"]
    assert expander.account.adds_up


def test_a_column_of_the_source_wins_over_a_parameter() -> None:
    rows, _, _ = expand(load_recipe("controlnet"), source_rows(1, subject="the boat", maps=["depth"]))
    assert [row.get("instruction") for row in rows if row["task"] == "segmentation"] == ["the boat"]
    assert [row["id"] for row in rows if row["id"].startswith("r0-by")] == ["r0-by-depth", "r0-by-segmentation"]


def test_a_column_that_a_manifest_means_something_by_is_carried_under_another_name(tmp_path: Path) -> None:
    recipe = mine(
        tmp_path, "rows: [{id: '{id}', task: text_to_image, instruction: '{caption}', width: 64, height: 64}]"
    )
    (row,), _, _ = expand(recipe, source_rows(1, width=4000, seed=7, license="CC0", group="g"))
    assert (row["width"], row["source_width"], row["source_seed"]) == (64, 4000, 7)
    assert (row["license"], row["source_group"], "seed" in row) == ("CC0", "g", False)


def test_the_same_source_and_seed_give_the_same_rows_and_another_seed_others() -> None:
    recipe = load_recipe("edit-pairs")
    assert expand(recipe, source_rows(20))[0] == expand(recipe, source_rows(20))[0]
    assert expand(recipe, source_rows(20))[0] != expand(recipe, source_rows(20), seed=1)[0]


def test_what_a_source_row_draws_does_not_hang_on_its_place() -> None:
    recipe = load_recipe("edit-pairs")
    forward = {row["id"]: row for row in expand(recipe, source_rows(9))[0]}
    backward = {row["id"]: row for row in expand(recipe, reversed(source_rows(9)))[0]}
    assert forward == backward


def test_draws_are_even_and_one_more_option_changes_few_of_them() -> None:
    counts = Counter(draw("abcd", 1, "key", n)[0] for n in range(4000))
    assert all(850 < count < 1150 for count in counts.values())
    changed = sum(draw("abcd", 1, "key", n) != draw("abcde", 1, "key", n) for n in range(1000))
    assert 140 < changed < 260
    with pytest.raises(ValueError, match="5 of 4 options"):
        draw("abcd", 5)


def test_the_mix_has_the_shares_that_were_asked_for() -> None:
    recipe = load_recipe("x2i-mix")
    rows, expander, rejected = expand(recipe, source_rows(600))
    shares = expander.account.shares
    assert rejected == []
    assert sum(shares.made.values()) == len(rows)
    for name in shares.made:
        assert abs(shares.made_percent(name) - shares.asked_percent(name)) < 0.5, name


def test_the_mix_has_its_shares_where_some_rows_fit_some_groups_only() -> None:
    captions, photos = source_rows(500, image=None), source_rows(500, caption=None)
    mixed = [row for pair in zip(captions, photos, strict=True) for row in pair]
    rows = [SourceRow(number=n, id=f"m{n}", cells=row.cells) for n, row in enumerate(mixed)]
    recipe = load_recipe("x2i-mix", {"condition": 0})
    _, expander, rejected = expand(recipe, rows)
    shares = expander.account.shares
    # Half of the rows can only be text to image, the others make one or two images: what can be met is met.
    assert [reason for reason in rejected if "left over" not in reason] == []
    within = [name for name in shares.made if name != "text_to_image"]
    vision = sum(shares.made[name] for name in within)
    for name in within:
        asked = shares.asked_percent(name) / (100 - shares.asked_percent("text_to_image"))
        assert abs(shares.made[name] / vision - asked) < 0.01, name


def test_rows_that_are_appended_change_nothing_before_them() -> None:
    recipe = load_recipe("x2i-mix")
    few, many = expand(recipe, source_rows(50))[0], expand(recipe, source_rows(80))[0]
    assert many[: len(few) - 2] == few[: len(few) - 2]


def test_what_a_source_row_lacks_is_told_and_the_others_go_on() -> None:
    rows = [*source_rows(1), SourceRow(number=2, id="bare", cells={"image": "x.jpg"})]
    made, expander, rejected = expand(load_recipe("controlnet"), rows)
    assert len(made) == 8
    assert rejected == ["2: lacks what its recipe needs: controlnet needs caption"]
    assert (expander.account.num_source, expander.account.num_used, expander.account.num_rejected) == (2, 1, 1)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("rows: [{id: a, task: edjt, instruction: x}]", "unknown task 'edjt'; did you mean edit"),
        ("rows: [{id: a, task: edit, instruction: x}]", "takes exactly 1 input image(s), and this row has 0"),
        ("rows: [{id: a, task: text_to_image, instruction: x, width: 0, height: 8}]", "width"),
        ("rows: [{id: a, task: edit, instruction: x, images: ['row:b']}]", "refers to 'b#0', which is not made"),
        ("rows: [{id: a, task: edit, instruction: x, images: ['row:a#1']}]", "refers to 'a#1', which is not made"),
        ("rows: [{id: a, task: edit, instruction: x, images: ['row:a']}]", "a circle: a -> a"),
        (
            "rows: [{id: a, task: edit, instruction: x, images: ['row:b']},"
            " {id: b, task: edit, instruction: x, images: ['row:a']}]",
            "a circle",
        ),
        ("rows: [{for: {n: [1, 2]}, id: a, task: text_to_image, instruction: x}]", "makes the id 'a' twice"),
        ("rows: [{for: {n: '{caption}'}, id: a, task: edit}]", "loops over 'A boat.', which is no list"),
        ("choose: {c: '{caption}'}\nrows: [{id: a, task: edit}]", "chooses from 'A boat.', which is no list"),
        ("choose: {c: {from: [1], count: 2}}\nrows: [{id: a, task: edit}]", "2 of 1 options"),
        ("choose: {c: {from: [1], count: x}}\nrows: [{id: a, task: edit}]", "chooses 'x' of a list"),
        ("parameters: {e: {a: 1}}\nrows: [{id: '{e.b}', task: edit}]", "has no e.b"),
    ],
)
def test_a_set_that_breaks_a_rule_is_rejected_whole_with_the_rule(tmp_path: Path, text: str, reason: str) -> None:
    rows, expander, rejected = expand(mine(tmp_path, text), source_rows(1))
    assert rows == []
    assert len(rejected) == 1
    assert reason in rejected[0]
    assert expander.account.adds_up


def test_ids_that_two_source_rows_make_are_rejected_the_second_time(tmp_path: Path) -> None:
    recipe = mine(tmp_path, "rows: [{id: '{caption}', task: text_to_image, instruction: '{caption}'}]")
    rows, _, rejected = expand(recipe, source_rows(2))
    assert len(rows) == 1
    assert rejected == ["2: makes row 'A boat.', which an earlier source row made: give them different ids"]


def test_samples_and_sweeps_count_as_images_and_can_be_referred_to(tmp_path: Path) -> None:
    recipe = mine(
        tmp_path,
        "rows: [{id: '{id}', task: text_to_image, instruction: x, steps: [4, 8], num_samples: 3},"
        " {id: '{id}-on', task: edit, instruction: y, images: ['row:{id}[steps=8]#2']}]",
    )
    rows, expander, rejected = expand(recipe, source_rows(1))
    assert rejected == []
    assert (len(rows), expander.account.num_images) == (2, 7)
    assert rows[0]["steps"] == [4, 8]


def test_relative_images_are_written_for_where_the_manifest_lies() -> None:
    assert PLACES.rebase("cat.jpg") == "photos/cat.jpg"
    assert PLACES.rebase("/data/other/cat.jpg") == "other/cat.jpg"
    assert PLACES.rebase("/elsewhere/cat.jpg") == "/elsewhere/cat.jpg"
    assert PLACES.rebase("../../x.jpg") == "/x.jpg"
    assert PLACES.rebase("row:cat") == "row:cat"
    assert PLACES.rebase("https://example.com/cat.jpg") == "https://example.com/cat.jpg"
    assert PLACES.rebase("a:b.jpg") == "/data/photos/a:b.jpg"
    on_s3 = Places(source_folder="s3://bucket/photos", manifest_folder="s3://bucket/runs/1")
    assert on_s3.rebase("cat.jpg") == "s3://bucket/photos/cat.jpg"


def test_a_column_that_the_source_lacks_altogether_stops_before_anything_is_made() -> None:
    with pytest.raises(ConfigError, match="needs the column caption; the source has id, image"):
        check_columns(load_recipe("controlnet"), ["image", "id"])
    with pytest.raises(ConfigError, match="give group 'text_to_image' the share 0"):
        check_columns(load_recipe("x2i-mix"), ["image"])
    check_columns(load_recipe("x2i-mix", {"text_to_image": 0, "condition": 0}), ["image"])
