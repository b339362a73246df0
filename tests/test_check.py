"""Every rule for a manifest row, one at a time and on rows that nobody would write."""

from __future__ import annotations

import json
from decimal import Decimal
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from omnigen_actor import schema, seeding
from omnigen_actor.errors import ErrorKind, Stage
from omnigen_actor.tasks import TaskSpec, TaskTable
from pipelines.check import check_parts, check_table, is_planned, planned_schema
from pipelines.config import GenerationConfig
from pipelines.rows import MAX_ID_LENGTH, MAX_SAMPLES

GENERATION = GenerationConfig()
TEXT: dict[str, Any] = {"id": "a", "task": "text_to_image", "instruction": "A cat."}
EDIT: dict[str, Any] = {"id": "a", "task": "edit", "instruction": "Make it red.", "images": ["in.png"]}


def plan(*rows: dict[str, Any], generation: GenerationConfig = GENERATION, base: str = "/base") -> list[dict[str, Any]]:
    return list(check_table(pa.Table.from_pylist(list(rows)), generation, base).to_pylist())


def plan_one(row: dict[str, Any], **more: Any) -> dict[str, Any]:
    (found,) = plan({**row, **more})
    return found


def test_a_good_row_has_every_default_and_no_error() -> None:
    row = plan_one(EDIT)
    assert row == {
        "id": "a",
        "sample": 0,
        "attempt": 1,
        "row_hash": row["row_hash"],
        "error_kind": None,
        "error_stage": None,
        "error": None,
        "task": "edit",
        "instruction": "Make it red.",
        "prompt": "<img><|image_1|></img> Make it red.",
        "images": ["in.png"],
        "width": None,
        "height": None,
        "seed": seeding.row_seed(0, "a", 0),
        "steps": 50,
        "guidance_scale": 2.5,
        "img_guidance_scale": 1.6,
        "negative_prompt": None,
        "parents": [],
        "depth": 0,
        "image_uris": ["/base/in.png"],
    }
    assert len(row["row_hash"]) == 64


BAD = {
    "unknown task": ({**TEXT, "task": "edti"}, ErrorKind.UNKNOWN_TASK, ["'edti'", "did you mean edit"]),
    "no task": ({**TEXT, "task": None}, ErrorKind.UNKNOWN_TASK, ["None", "known tasks"]),
    "task of a wrong type": ({**TEXT, "task": ["edit"]}, ErrorKind.UNKNOWN_TASK, ["['edit']"]),
    "empty instruction": ({**TEXT, "instruction": "  "}, ErrorKind.BAD_INSTRUCTION, ["text_to_image", "empty"]),
    "null instruction": ({**EDIT, "instruction": None}, ErrorKind.BAD_INSTRUCTION, ["edit", "empty"]),
    "instruction is no text": ({**TEXT, "instruction": {"a": 1}}, ErrorKind.BAD_INSTRUCTION, ["instruction", "text"]),
    "placeholder surplus": (
        {**EDIT, "instruction": "put <img><|image_2|></img> on <img><|image_1|></img>"},
        ErrorKind.BAD_PLACEHOLDERS,
        ["1 images", "image_2", "1 too many"],
    ),
    "placeholder missing": (
        {**EDIT, "task": "compose", "images": ["a", "b"], "instruction": "<img><|image_1|></img> in a vase"},
        ErrorKind.BAD_PLACEHOLDERS,
        ["2 images", "missing <img><|image_2|></img>"],
    ),
    "placeholders not contiguous": (
        {**EDIT, "task": "compose", "images": ["a", "b"], "instruction": "<|image_1|> and <|image_3|>"},
        ErrorKind.BAD_PLACEHOLDERS,
        ["[1, 3]", "without gaps"],
    ),
    "no placeholder at all": (
        {**EDIT, "task": "subject", "instruction": "A woman waves."},
        ErrorKind.BAD_PLACEHOLDERS,
        ["1 images", "missing"],
    ),
    "placeholder zero": ({**EDIT, "instruction": "<|image_0|>"}, ErrorKind.BAD_PLACEHOLDERS, ["[0]"]),
    "image too few": ({**EDIT, "images": []}, ErrorKind.BAD_IMAGE_COUNT, ["'edit'", "exactly 1", "has 0"]),
    "null images": ({**EDIT, "images": None}, ErrorKind.BAD_IMAGE_COUNT, ["has 0"]),
    "image too many": ({**TEXT, "images": ["a.png"]}, ErrorKind.BAD_IMAGE_COUNT, ["no input image", "has 1"]),
    "null image": ({**EDIT, "images": [None]}, ErrorKind.BAD_URI, ["number 1", "None"]),
    "empty image": ({**EDIT, "images": ["a.png", " "]}, ErrorKind.BAD_URI, ["number 2", "' '"]),
    "images of a wrong type": ({**EDIT, "images": 5}, ErrorKind.BAD_URI, ["images=5"]),
    "images like JSON": ({**EDIT, "images": '["a.png"'}, ErrorKind.BAD_URI, ["JSON list"]),
    "images with half a character": ({**EDIT, "images": '["\\ud800"]'}, ErrorKind.BAD_URI, ["number 1"]),
    "unknown scheme": ({**EDIT, "images": ["nope://bucket/a.png"]}, ErrorKind.BAD_URI, ["nope://bucket/a.png"]),
    "size 0": ({**TEXT, "width": 0, "height": 512}, ErrorKind.BAD_SIZE, ["width=0", "between 1 and 3072"]),
    "size negative": ({**TEXT, "width": 512, "height": -16}, ErrorKind.BAD_SIZE, ["height=-16"]),
    "size over 3072": ({**TEXT, "width": 3073, "height": 512}, ErrorKind.BAD_SIZE, ["width=3073", "3072"]),
    "size not whole": ({**TEXT, "width": 512.5, "height": 512}, ErrorKind.BAD_SIZE, ["width=512.5", "whole number"]),
    "size not a number": ({**TEXT, "width": "big", "height": "512"}, ErrorKind.BAD_SIZE, ["width='big'"]),
    "size NaN": ({**TEXT, "width": float("nan"), "height": 512.0}, ErrorKind.BAD_SIZE, ["width=nan"]),
    "size true": ({**TEXT, "width": True, "height": True}, ErrorKind.BAD_SIZE, ["width=True"]),
    "one side": ({**TEXT, "width": 512}, ErrorKind.BAD_SIZE, ["width=512", "height=None", "give both"]),
    "one side of an edit": ({**EDIT, "height": 512}, ErrorKind.BAD_SIZE, ["height=512", "give both"]),
    "guidance NaN": ({**TEXT, "guidance_scale": float("nan")}, ErrorKind.BAD_PARAMETER, ["guidance_scale=nan"]),
    "guidance infinite": ({**EDIT, "img_guidance_scale": "inf"}, ErrorKind.BAD_PARAMETER, ["img_guidance_scale='inf'"]),
    "guidance negative": ({**TEXT, "guidance_scale": -1}, ErrorKind.BAD_PARAMETER, ["guidance_scale=-1"]),
    "guidance no number": ({**TEXT, "guidance_scale": "high"}, ErrorKind.BAD_PARAMETER, ["guidance_scale='high'"]),
    "steps 0": ({**TEXT, "steps": 0}, ErrorKind.BAD_PARAMETER, ["steps=0", "1 and 1000"]),
    "steps no number": ({**TEXT, "steps": "many"}, ErrorKind.BAD_PARAMETER, ["steps='many'"]),
    "seed negative": ({**TEXT, "seed": -1}, ErrorKind.BAD_PARAMETER, ["seed=-1"]),
    "seed of 70 digits": ({**TEXT, "seed": "9" * 70}, ErrorKind.BAD_PARAMETER, ["seed='999", "whole number"]),
    "samples 0": ({**TEXT, "num_samples": 0}, ErrorKind.BAD_PARAMETER, ["num_samples=0", "10000"]),
    "samples too many": ({**TEXT, "num_samples": MAX_SAMPLES + 1}, ErrorKind.BAD_PARAMETER, ["num_samples=10001"]),
    "negative prompt no text": ({**TEXT, "negative_prompt": [1]}, ErrorKind.BAD_PARAMETER, ["negative_prompt"]),
    "id too long": ({**TEXT, "id": "x" * 201}, ErrorKind.BAD_ID, ["201 characters", "200"]),
    "id with a line break": ({**TEXT, "id": "a\nb"}, ErrorKind.BAD_ID, [r"'a\nb'", "control"]),
    "id no text": ({**TEXT, "id": 1.5}, ErrorKind.BAD_ID, ["id=1.5"]),
}


@pytest.mark.parametrize("case", BAD)
def test_a_bad_row_is_one_failed_row_that_names_the_value(case: str) -> None:
    bad, kind, words = BAD[case]
    good = {**TEXT, "id": "good"}
    # Alone in its table: the other row's types must not mend or spoil it.
    row, neighbour = plan_one(bad), plan_one(good)
    assert (row["error_kind"], row["error_stage"]) == (kind, Stage.CHECK)
    assert [word for word in words if word not in row["error"]] == []
    assert row["image_uris"] == []
    assert neighbour["error"] is None


def test_a_bad_row_keeps_its_usable_values_and_no_default_for_the_bad_one() -> None:
    row = plan_one(EDIT, steps="x", width=100, height=100, guidance_scale=3)
    assert row["steps"] is None
    assert (row["task"], row["images"], row["width"], row["guidance_scale"]) == ("edit", ["in.png"], 96, 3.0)
    assert row["prompt"] == "<img><|image_1|></img> Make it red."
    assert plan_one(TEXT, width="x", height=512)["width"] is None
    assert plan_one(TEXT, seed=-1)["seed"] is None


def test_a_bad_row_has_one_row_per_sample_unless_their_number_is_bad() -> None:
    rows = plan({**TEXT, "steps": 0, "num_samples": 3})
    assert [(row["sample"], row["error_kind"]) for row in rows] == [(n, "bad_parameter") for n in range(3)]
    assert [row["sample"] for row in plan({**TEXT, "num_samples": "x"})] == [0]


def test_all_samples_of_a_row_are_adjacent_and_differ_in_seed_and_hash_alone() -> None:
    rows = plan({**TEXT, "id": "a", "num_samples": 2}, {**TEXT, "id": "b", "num_samples": 3})
    assert [(row["id"], row["sample"]) for row in rows] == [("a", 0), ("a", 1), ("b", 0), ("b", 1), ("b", 2)]
    assert len({row["seed"] for row in rows}) == len({row["row_hash"] for row in rows}) == 5
    assert {row["prompt"] for row in rows} == {"A cat."}


def test_the_number_of_samples_falls_back_to_the_configuration() -> None:
    assert len(plan(TEXT, generation=GenerationConfig(num_samples=4))) == 4
    assert len(plan({**TEXT, "num_samples": 2}, generation=GenerationConfig(num_samples=4))) == 2


def test_a_row_seed_serves_sample_0_and_others_derive_from_it() -> None:
    rows = plan({**TEXT, "seed": 7, "num_samples": 2})
    assert [row["seed"] for row in rows] == [7, seeding.sample_seed(7, 1)]


def test_seeds_depend_on_neither_the_position_nor_the_neighbours() -> None:
    first, _, third = plan({**TEXT, "id": "x"}, {**TEXT, "id": "y"}, {**TEXT, "id": "z"})
    third_first, first_last = plan({**TEXT, "id": "z"}, {**TEXT, "id": "x"})
    assert (first, third) == (first_last, third_first)


def test_guidance_is_the_rows_then_the_runs_then_the_tasks() -> None:
    run = GenerationConfig(guidance_scale=9.0)
    assert plan({**TEXT, "guidance_scale": 4}, generation=run)[0]["guidance_scale"] == 4.0
    assert plan(TEXT, generation=run)[0]["guidance_scale"] == 9.0
    assert plan_one(EDIT, task="follow_pose")["guidance_scale"] == 2.0
    assert plan_one(EDIT, guidance_scale=0, task="follow_pose")["guidance_scale"] == 0.0


def test_sizes_are_rounded_down_to_multiples_of_16_after_the_check() -> None:
    row = plan_one(TEXT, width=1000, height=5)
    assert (row["width"], row["height"], row["error"]) == (992, 16, None)
    assert plan_one(TEXT, width=3072, height=1)["width"] == 3072


def test_a_size_left_out_is_the_inputs_or_the_configurations() -> None:
    small = GenerationConfig(width=100, height=200)
    assert [plan(TEXT, generation=small)[0][side] for side in ("width", "height")] == [96, 192]
    assert [plan(EDIT, generation=small)[0][side] for side in ("width", "height")] == [None, None]
    assert plan_one(EDIT, width=512, height=256)["width"] == 512


@pytest.mark.parametrize("value", [512, "512", 512.0, " 512 ", "512.0", Decimal(512), "5.12e2"])
def test_a_whole_number_counts_in_every_form(value: object) -> None:
    row = plan_one(TEXT, width=value, height=value, steps=value, seed=value)
    assert (row["width"], row["steps"], row["seed"], row["error"]) == (512, 512, 512, None)
    assert row["row_hash"] == plan_one(TEXT, width=512, height=512, steps=512, seed=512)["row_hash"]


def test_the_largest_seed_is_exact() -> None:
    assert plan_one(TEXT, seed=2**63 - 1)["seed"] == 2**63 - 1
    assert plan_one(TEXT, seed=str(2**63 - 1))["seed"] == 2**63 - 1


def test_a_blank_is_a_missing_value_everywhere() -> None:
    blank = dict.fromkeys(set(schema.MANIFEST.names) - {"id", "task", "instruction"}, "")
    assert plan_one({**blank, **TEXT}) == plan_one(TEXT)


@pytest.mark.parametrize("images", [["a.png"], "a.png", '["a.png"]', ' ["a.png"] '])
def test_images_are_a_list_or_one_uri_or_a_json_list(images: object) -> None:
    assert plan_one(EDIT, images=images)["image_uris"] == ["/base/a.png"]


def test_image_references_are_kept_as_written_and_resolved_beside() -> None:
    row = plan_one(EDIT, task="compose", instruction="<|image_1|> <|image_2|>", images=["../a.png", "s3://b/c.png"])
    assert row["images"] == ["../a.png", "s3://b/c.png"]
    assert row["image_uris"] == ["/a.png", "s3://b/c.png"]


def test_messages_hold_no_secrets() -> None:
    message = plan_one(EDIT, images=["nope://user:hunter2@bucket/a.png?X-Signature=abcdef12345"])["error"]
    assert "bucket/a.png" in message
    assert "hunter2" not in message
    assert "abcdef12345" not in message


def test_messages_stay_short_for_huge_values() -> None:
    huge = "x" * 100_000
    for name in ("task", "steps", "guidance_scale", "width", "id", "seed"):
        assert len(plan_one(TEXT, **{name: huge})["error"]) < 1000, name


def test_an_id_may_be_a_whole_number() -> None:
    assert plan_one(TEXT, id=17)["id"] == "17"
    assert plan_one(TEXT, id="x" * MAX_ID_LENGTH)["error"] is None


def test_a_row_without_an_id_gets_one_from_its_content_alone() -> None:
    bare = {name: value for name, value in TEXT.items() if name != "id"}
    ids = [
        plan_one(bare)["id"],
        plan_one(bare, id=None)["id"],
        plan_one(bare, id="")["id"],
        plan_one(bare, extra=1)["id"],
    ]
    assert len(set(ids)) == 1
    assert len(ids[0]) == 16
    assert plan(bare, generation=GenerationConfig(seed=5, steps=3, width=64))[0]["id"] == ids[0]
    for change in (
        {"instruction": "A dog."},
        {"steps": 3},
        {"seed": 0},
        {"width": 16, "height": 16},
        {"num_samples": 2},
    ):
        assert plan({**bare, **change})[0]["id"] != ids[0], change


def test_bad_ids_that_differ_give_ids_that_differ() -> None:
    one, other = (plan_one(TEXT, id="x" * 300 + last)["id"] for last in "ab")
    assert one != other


CHANGES: list[dict[str, Any]] = [
    {"id": "b"},
    {"task": "reasoning_edit"},
    {"instruction": "Make it blue."},
    {"images": ["other.png"]},
    {"width": 64, "height": 64},
    {"seed": 1},
    {"steps": 10},
    {"guidance_scale": 3},
    {"img_guidance_scale": 3},
    {"negative_prompt": "ugly"},
]


@pytest.mark.parametrize("change", CHANGES, ids=lambda change: next(iter(change)))
def test_a_change_of_anything_that_makes_the_image_changes_the_hash(change: dict[str, Any]) -> None:
    assert plan_one(EDIT, **change)["row_hash"] != plan_one(EDIT)["row_hash"]


@pytest.mark.parametrize("change", [{"seed": 1}, {"steps": 7}, {"guidance_scale": 3.0}, {"max_input_image_size": 512}])
def test_a_change_of_a_default_that_a_row_uses_changes_its_hash(change: dict[str, Any]) -> None:
    (changed,) = plan(EDIT, generation=GenerationConfig(**change))
    assert changed["row_hash"] != plan_one(EDIT)["row_hash"]


def test_the_hash_ignores_the_folder_the_users_columns_and_unused_defaults() -> None:
    expected = plan_one(EDIT)["row_hash"]
    assert plan(EDIT, base="/elsewhere")[0]["row_hash"] == expected
    assert plan_one(EDIT, note="x")["row_hash"] == expected
    assert plan(EDIT, generation=GenerationConfig(width=64, height=64))[0]["row_hash"] == expected
    text = plan_one(TEXT)["row_hash"]
    assert plan(TEXT, generation=GenerationConfig(max_input_image_size=512))[0]["row_hash"] == text


def test_user_columns_follow_every_sample_untouched() -> None:
    nested = pa.array([[{"a": 1}], None], pa.list_(pa.struct([("a", pa.int8())])))
    table = pa.table(
        {"task": ["text_to_image"] * 2, "instruction": ["x", "y"], "num_samples": [2, 1], "nested": nested}
    )
    planned = check_table(table, GENERATION, "/base")
    assert planned.schema.field("nested").type == nested.type
    assert planned.column("nested").to_pylist() == [[{"a": 1}], [{"a": 1}], None]


def test_a_user_column_with_a_name_of_ours_is_renamed() -> None:
    row = plan_one(TEXT, status="draft", prompt="p", manifest_status="mine", error="e")
    assert (row["manifest_prompt"], row["manifest_error"], row["prompt"]) == ("p", "e", "A cat.")
    assert (row["manifest_status"], row["manifest_manifest_status"]) == ("mine", "draft")


def test_the_schema_is_the_declared_one_even_for_no_rows() -> None:
    table = pa.table({"task": pa.array([], pa.string()), "note": pa.array([], pa.float32()), "seed": pa.nulls(0)})
    planned = check_table(table, GENERATION, "/base")
    assert planned.num_rows == 0
    assert planned.schema == planned_schema(table.schema)
    assert planned.schema == pa.schema([*schema.PLAN, ("note", pa.float32())])
    assert check_table(pa.table({"task": ["edit"]}), GENERATION, "/b").schema == schema.PLAN


def test_columns_of_nulls_fail_row_by_row() -> None:
    table = pa.table({name: pa.nulls(2) for name in schema.MANIFEST.names})
    assert check_table(table, GENERATION, "/b").column("error_kind").to_pylist() == ["unknown_task"] * 2


def test_text_that_is_not_utf8_fails_its_row_alone() -> None:
    broken = pa.array([b"A cat.", b"\xff\xfe"], pa.binary()).view(pa.string())
    table = pa.table({"id": ["a", "b"], "task": ["text_to_image"] * 2, "instruction": broken})
    assert check_table(table, GENERATION, "/b").column("error_kind").to_pylist() == [None, "bad_instruction"]


def test_dictionary_and_large_and_view_columns_are_read() -> None:
    table = pa.table(
        {
            "task": pa.array(["edit", "edit"]).dictionary_encode(),
            "instruction": pa.array(["a", "b"], pa.large_string()),
            "images": pa.array([["x.png"], ["y.png"]], pa.large_list(pa.string_view())),
            "steps": pa.array([3, 4], pa.uint8()),
        }
    )
    planned = check_table(table, GENERATION, "/b")
    assert planned.column("error").to_pylist() == [None, None]
    assert planned.column("steps").to_pylist() == [3, 4]


def test_is_planned_tells_a_plan_from_a_manifest() -> None:
    table = pa.Table.from_pylist([TEXT])
    assert not is_planned(table.schema)
    assert is_planned(check_table(table, GENERATION, "/b").schema)


def test_parts_are_bounded_and_split_no_row() -> None:
    table = pa.Table.from_pylist([{**TEXT, "id": str(number), "num_samples": 30} for number in range(20)])
    parts = list(check_parts(table, GENERATION, "/b", rows_per_part=100))
    assert [part.table.num_rows for part in parts] == [120] * 5
    assert [index for part in parts for index in part.row_index.tolist()] == [n for n in range(20) for _ in range(30)]
    assert pa.concat_tables(part.table for part in parts) == check_table(table, GENERATION, "/b")


_CELL = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(),
    st.text(st.characters(), max_size=20),  # halves of surrogate pairs among them
    st.sampled_from(
        ["", "nan", "[", "[1]", '[""]', "1e400", "-0", "0x10", "edit", "<|image_1|>", "s3://", "a://b", "\0"]
    ),
    st.lists(st.one_of(st.none(), st.integers(), st.text(max_size=5)), max_size=3),
    st.dictionaries(st.text(max_size=3), st.integers(), max_size=2),
)
_ROW = st.fixed_dictionaries({}, optional={**dict.fromkeys(schema.MANIFEST.names, _CELL), "note": _CELL})


@settings(deadline=None)
@given(st.lists(_ROW, min_size=1, max_size=4))
def test_no_row_raises_and_each_is_good_or_has_exactly_one_error(rows: list[dict[str, Any]]) -> None:
    names = sorted({name for row in rows for name in row})
    metadata = {b"cells": b"json"}
    fields = [pa.field(name, pa.string(), metadata=metadata) for name in names]
    columns = [
        pa.array([json.dumps(row[name]) if name in row else None for row in rows], pa.string()) for name in names
    ]
    table = pa.Table.from_arrays(columns, schema=pa.schema(fields)) if names else pa.table({"note": [None] * len(rows)})
    parts = list(check_parts(table, GENERATION, "/base"))
    planned = pa.concat_tables(part.table for part in parts)
    planned.validate(full=True)
    assert sorted({index for part in parts for index in part.row_index.tolist()}) == list(range(len(rows)))
    for row in planned.to_pylist():
        told = [row["error_kind"], row["error_stage"], row["error"]]
        assert told == [None] * 3 or (ErrorKind(row["error_kind"]) and row["error_stage"] == "check" and row["error"])
        assert row["id"]
        if row["error"] is None:
            assert row["prompt"] is not None
            assert row["seed"] is not None
            assert len(row["image_uris"]) == len(row["images"])


def test_a_task_is_recorded_under_its_first_name() -> None:
    row = plan_one({"task": "edges", "instruction": "", "images": ["a.png"]})
    assert row["task"] == "canny"
    assert row["error"] is None


def test_a_wording_is_drawn_by_the_rows_id() -> None:
    spec = TaskSpec(name="w", wording="{i} 0", more_wordings=("{i} 1",), min_images=0, max_images=0)
    table = pa.Table.from_pylist([{"id": f"row-{n}", "task": "w", "instruction": "x"} for n in range(40)])
    prompts = check_table(table, GENERATION, "/b", TaskTable([spec])).column("prompt").to_pylist()
    assert prompts == [spec.prompt("x", 0, f"row-{n}") for n in range(40)]
    assert len(set(prompts)) == 2


def test_a_reference_names_its_parent_and_waits_for_its_place() -> None:
    row = plan_one({**EDIT, "images": ["row:cat"]})
    assert (row["parents"], row["depth"], row["image_uris"]) == (["cat#0"], 1, ["row:cat"])
    both = plan_one(
        {**EDIT, "task": "compose", "images": ["row:cat#2", "in.png"], "instruction": "<|image_1|> on <|image_2|>"}
    )
    assert (both["parents"], both["image_uris"]) == (["cat#2"], ["row:cat#2", "/base/in.png"])


def test_a_reference_without_an_id_is_that_rows_fault() -> None:
    row = plan_one({**EDIT, "images": ["row:"]})
    assert (row["error_kind"], row["parents"]) == ("bad_uri", [])
    assert "row:<id>" in row["error"]


def test_a_row_never_has_the_seed_of_the_row_that_it_refers_to() -> None:
    parent = plan_one({**TEXT, "id": "parent", "seed": 7})
    child = plan_one({**EDIT, "id": "child", "images": ["row:parent"], "seed": 7})
    assert parent["seed"] == 7 != child["seed"]
    assert child["seed"] == seeding.row_seed(7, "child", 0)
