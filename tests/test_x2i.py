"""Training files of OmniGen and OmniGen2, as their authors write them, are manifests."""

from __future__ import annotations

import csv
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from omnigen_actor.errors import ConfigError
from omnigen_actor.placeholders import placeholder
from omnigen_actor.tasks import DEFAULT_TASKS, TASKS, TaskSpec, TaskTable
from pipelines.check import check_table, planned_schema
from pipelines.config import GenerationConfig, InputConfig, RunConfig, WorkerConfig
from pipelines.generate import build_processor, run
from pipelines.ledger import Ledger
from pipelines.manifest import Manifest, open_manifest
from pipelines.plan import stage_plan
from pipelines.run_info import fingerprint
from pipelines.x2i import FOREIGN_NAMES, find_named, task_of

ONE, TWO, THREE = map(placeholder, (1, 2, 3))

TOY: list[dict[str, Any]] = [
    {"task_type": "text_to_iamge", "instruction": "A white cat on a table.", "input_images": [],
     "output_image": "cat.png"},
    {"task_type": "image_edit", "instruction": f"{ONE} The umbrella should be red.", "input_images": ["source.png"],
     "output_image": "target.png"},
    {"task_type": "segementation", "instruction": f"Find lamp in the picture {ONE} and color them blue.",
     "input_images": ["seg_input.png"], "output_image": "seg_output.png"},
    {"task_type": "try-on", "instruction": f"{ONE} wears {TWO}.", "input_images": ["model.png", "clothes.png"],
     "output_image": "try_on.png"},
    {"task_type": "pose", "instruction": f"Detect the skeleton of human in {ONE}", "input_images": ["human.png"],
     "output_image": "pose.png"},
]  # fmt: skip
"""The shape of OmniGen's own toy data, misspellings and all."""

TOY_TASKS = ["text_to_image", "edit", "segmentation", "try_on", "pose"]


def write_jsonl(path: Path, rows: list[dict[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def plan(manifest: Manifest, tasks: TaskTable = DEFAULT_TASKS) -> list[dict[str, Any]]:
    tables = [check_table(batch, GenerationConfig(), manifest.base_folder, tasks) for batch in manifest.batches()]
    assert all(batch.schema.names == manifest.schema.names for batch in manifest.batches())
    assert all(table.schema == planned_schema(manifest.schema) for table in tables)
    return [row for table in tables for row in table.to_pylist()]


def plan_of(folder: Path, rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return plan(open_manifest(str(write_jsonl(folder / "rows.jsonl", rows))))


# --- the names of tasks ---


@pytest.mark.parametrize("spec", TASKS.values(), ids=lambda spec: spec.name)
def test_a_task_is_found_by_its_names_however_they_are_written(spec: TaskSpec) -> None:
    for name in (spec.name, *spec.aliases):
        for written in (name, name.upper(), name.replace("_", "-"), f" {name.replace('_', '  ').title()}\n"):
            assert find_named(written, DEFAULT_TASKS) is spec


def test_every_foreign_name_means_a_task_and_is_written_as_it_is_looked_up() -> None:
    for foreign, name in FOREIGN_NAMES.items():
        assert find_named(foreign, DEFAULT_TASKS) is TASKS[name]
        assert find_named(foreign.replace("_", "-").upper(), DEFAULT_TASKS) is TASKS[name]
        assert foreign not in DEFAULT_TASKS


@pytest.mark.parametrize(
    ("written", "name"),
    [
        ("text_to_iamge", "text_to_image"),
        ("segementation", "segmentation"),
        ("Text-To-Imgae", "text_to_image"),
        ("image_editt", "edit"),
        ("in-context-learnin", "in_context"),
    ],
)
def test_a_misspelling_means_what_it_is_like(written: str, name: str) -> None:
    assert find_named(written, DEFAULT_TASKS) is TASKS[name]


@pytest.mark.parametrize(
    "written", ["visual_understanding", "text_image_to_image", "t2v", "image_to_text", "", "e", "edit" * 10**6]
)
def test_a_name_that_is_only_a_little_like_another_means_none(written: str) -> None:
    assert find_named(written, DEFAULT_TASKS) is None


def test_a_users_own_task_wins_over_a_foreign_name_and_can_be_misspelt() -> None:
    own = TaskSpec(name="gopro", wording="{i}", min_images=0, max_images=16, aliases=("sharpen_photo",))
    tasks = TaskTable([*TASKS.values(), own])
    assert find_named("GoPro", tasks) is own
    assert find_named("sharpen_phto", tasks) is own
    assert find_named("GoPro", DEFAULT_TASKS) is TASKS["deblur"]


def test_a_table_without_the_task_that_a_foreign_name_means_does_not_have_the_name() -> None:
    assert find_named("gopro", TaskTable([TASKS["edit"]])) is None


# --- the task of a row ---


def row(task_type: object, num_images: int, *, placed: bool = False) -> dict[str, Any]:
    marks = " ".join(map(placeholder, range(1, num_images + 1))) if placed else ""
    return {"task_type": task_type, "instruction": f"{marks} red", "images": [f"{n}.png" for n in range(num_images)]}


@pytest.mark.parametrize(
    ("cells", "expected"),
    [
        (row("t2i", 0), "text_to_image"),
        (row("edit", 1), "edit"),
        (row("ic", 3), "multi_image_edit"),
        (row("ic", 3, placed=True), "multi_image_edit"),
        (row("try-on", 2), "try_on"),
        (row("in-context-learning", 3), "in_context"),
        (row("subject-driven", 1, placed=True), "subject"),
    ],
)
def test_a_name_wins_where_its_task_takes_the_rows_images(cells: dict[str, Any], expected: str) -> None:
    assert task_of(cells, DEFAULT_TASKS) == expected


@pytest.mark.parametrize("task_type", [None, "", " ", "no such thing", "try_on_and_off_again", 7])
@pytest.mark.parametrize(
    ("num_images", "placed", "expected"),
    [
        (0, False, "text_to_image"),
        (1, False, "edit"),
        (2, False, "multi_image_edit"),
        (17, False, "multi_image_edit"),
        (1, True, "custom"),
        (4, True, "custom"),
    ],
)
def test_without_a_name_the_task_follows_from_images_and_instruction(
    task_type: object, num_images: int, placed: bool, expected: str
) -> None:
    assert task_of(row(task_type, num_images, placed=placed), DEFAULT_TASKS) == expected


@pytest.mark.parametrize(
    ("cells", "expected"),
    [
        (row("ic", 1), "edit"),
        (row("edit", 2), "multi_image_edit"),
        (row("edit", 2, placed=True), "custom"),
        (row("edit", 0), "text_to_image"),
        (row("t2i", 1), "edit"),
        (row("derain", 3, placed=True), "custom"),
        (row("in-context-learning", 4), "multi_image_edit"),
        (row("subject-driven", 1), "edit"),
        (row("subject-driven", 2), "multi_image_edit"),
    ],
)
def test_a_name_whose_task_can_not_take_or_place_the_images_does_not_count(
    cells: dict[str, Any], expected: str
) -> None:
    assert task_of(cells, DEFAULT_TASKS) == expected


@pytest.mark.parametrize("mark", ["<img><|image_1|><img>", "<|image_1|>", "< img > < | image_1 | > </ img >"])
def test_placeholders_of_any_form_are_seen(mark: str) -> None:
    cells = {"task_type": "?", "instruction": f"{mark} red", "images": "a.png"}
    assert task_of(cells, DEFAULT_TASKS) == "custom"


# --- whole files ---


def test_the_toy_data_of_omnigen_is_a_manifest(tmp_path: Path) -> None:
    planned = plan_of(tmp_path, TOY)
    assert [found["error"] for found in planned] == [None] * 5
    assert [found["task"] for found in planned] == TOY_TASKS
    for found, written in zip(planned, TOY, strict=True):
        assert found["prompt"] == written["instruction"]
        assert found["images"] == written["input_images"]
        assert found["image_uris"] == [str(tmp_path / name) for name in written["input_images"]]
        assert (found["task_type"], found["output_image"]) == (written["task_type"], written["output_image"])
        assert "input_images" not in found


def test_rows_of_omnigen2_need_no_placeholders(tmp_path: Path) -> None:
    rows: list[dict[str, Any]] = [
        {"task_type": "t2i", "instruction": "A forest.", "output_image": "/data/o1.png"},
        {"task_type": "edit", "instruction": "Add a hat.", "input_images": ["/data/i.png"], "output_image": "o2.png"},
        {"task_type": "ic", "instruction": "The man in the room.", "input_images": ["i.png", "/data/j.png"],
         "output_image": "/data/o3.png"},
        {"task_type": "t2i", "instruction": "A lake.", "input_images": None, "output_image": "/data/o4.png"},
    ]  # fmt: skip
    planned = plan_of(tmp_path, rows)
    assert [found["error"] for found in planned] == [None] * 4
    assert [(found["task"], found["prompt"]) for found in planned] == [
        ("text_to_image", "A forest."),
        ("edit", f"{ONE} Add a hat."),
        ("multi_image_edit", f"{ONE} {TWO} The man in the room."),
        ("text_to_image", "A lake."),
    ]
    assert planned[2]["image_uris"] == [str(tmp_path / "i.png"), "/data/j.png"]


def test_images_are_read_in_every_form_that_files_have_them_in(tmp_path: Path) -> None:
    """A column of lists and texts is one of JSON texts, which its metadata says: it has to survive the renaming."""
    forms: list[object] = [["a.png"], "a.png", '["a.png"]', None, [], ""]
    rows: list[dict[str, Any]] = [
        {"task_type": "?", "instruction": str(n), "input_images": form} for n, form in enumerate(forms)
    ]
    assert [found["task"] for found in plan_of(tmp_path, rows)] == ["edit"] * 3 + ["text_to_image"] * 3
    only_texts = plan_of(tmp_path, [rows[1], rows[3]])
    assert [found["images"] for found in only_texts] == [["a.png"], []]


@pytest.mark.parametrize(
    ("broken", "kind", "task", "words"),
    [
        ({"input_images": 5}, "bad_uri", "edit", "images=5: must be a list"),
        ({"input_images": ["a.png", None]}, "bad_uri", "edit", "images: number 2 is None"),
        ({"input_images": "[a.png"}, "bad_uri", "edit", "starts like a JSON list"),
        ({"instruction": ["x"]}, "bad_instruction", "edit", "instruction=['x']: must be text"),
        ({"instruction": None}, "bad_instruction", "edit", "needs an instruction"),
        ({"task_type": ["edit"]}, "unknown_task", "['edit']", "unknown task \"['edit']\""),
        ({"task_type": True}, "unknown_task", "True", "unknown task 'True'"),
        ({"task_type": "what", "input_images": 5}, "bad_uri", "what", "images=5: must be a list"),
        ({"instruction": f"{THREE} red"}, "bad_placeholders", "edit", "placeholders do not match"),
        ({"input_images": ["nope://a.png"]}, "bad_uri", "edit", "nope"),
        ({"input_images": [f"{n}.png" for n in range(17)]}, "bad_image_count", "multi_image_edit", "has 17"),
    ],
)
def test_a_broken_cell_is_told_as_ever(
    tmp_path: Path, broken: dict[str, Any], kind: str, task: str, words: str
) -> None:
    good = {"task_type": "image_edit", "instruction": "red", "input_images": ["a.png"], "output_image": "b.png"}
    first, found, last = plan_of(tmp_path, [good, {**good, **broken}, {**good, "output_image": "c.png"}])
    assert (found["error_kind"], found["task"]) == (kind, task)
    assert words in found["error"]
    assert (first["error"], last["error"]) == (None, None)


def test_a_line_that_is_no_row_stays_one(tmp_path: Path) -> None:
    file = write_jsonl(tmp_path / "rows.jsonl", TOY[:1])
    file.write_text(file.read_text() + "not json\n" + json.dumps(TOY[1]))
    _, bad, last = plan(open_manifest(str(file)))
    assert (bad["id"], bad["error_kind"], bad["task"]) == ("line-2", "bad_row", None)
    assert bad["error"].startswith("line 2: not JSON")
    assert last["error"] is None


def test_the_same_rows_give_the_same_plan_in_every_format(tmp_path: Path) -> None:
    expected = plan_of(tmp_path, TOY)
    pq.write_table(pa.Table.from_pylist(TOY), tmp_path / "rows.parquet")
    with (tmp_path / "rows.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, TOY[0])
        writer.writeheader()
        writer.writerows({**written, "input_images": json.dumps(written["input_images"])} for written in TOY)
    assert plan(open_manifest(str(tmp_path / "rows.parquet"))) == expected
    others = [dict(found) for found in plan(open_manifest(str(tmp_path / "rows.csv")))]
    assert [found["prompt"] for found in others] == [found["prompt"] for found in expected]
    assert [found["task"] for found in others] == TOY_TASKS


def test_a_folder_of_parquet_files_of_which_some_lack_images(tmp_path: Path) -> None:
    pq.write_table(pa.table({"task_type": ["t2i"], "instruction": ["x"]}), tmp_path / "a.parquet")
    pq.write_table(pa.Table.from_pylist(TOY[1:]), tmp_path / "b.parquet")
    assert [found["task"] for found in plan(open_manifest(str(tmp_path)))] == TOY_TASKS


def test_batches_stream_and_start_anew(tmp_path: Path) -> None:
    rows = [{**TOY[1], "output_image": f"{n}.png"} for n in range(10_000)]
    manifest = open_manifest(str(write_jsonl(tmp_path / "rows.jsonl", rows)))
    sizes = [batch.num_rows for batch in manifest.batches()]
    assert (sum(sizes), max(sizes)) == (10_000, 4096)
    assert [batch.num_rows for batch in manifest.batches()] == sizes


def test_tasks_of_a_users_own_are_named_too(tmp_path: Path) -> None:
    own = TaskSpec(name="sketch", wording="Sketch {img1}.", min_images=1, max_images=1, needs_instruction=False)
    tasks = TaskTable([*TASKS.values(), own])
    file = write_jsonl(tmp_path / "rows.jsonl", [{**TOY[1], "task_type": "Sketch", "instruction": ""}])
    (found,) = plan(open_manifest(str(file), tasks), tasks)
    assert (found["task"], found["prompt"]) == ("sketch", f"Sketch {ONE}.")


# --- what is no training file, and what is in part ---


def test_a_manifest_with_a_task_column_is_read_as_ever(tmp_path: Path) -> None:
    (found,) = plan_of(tmp_path, [{**TOY[0], "task": "text_to_image", "task_type": "x", "input_images": ["a.png"]}])
    assert (found["task"], found["images"]) == ("text_to_image", [])
    assert (found["task_type"], found["input_images"]) == ("x", ["a.png"])


def test_a_column_images_stays_what_it_is(tmp_path: Path) -> None:
    (found,) = plan_of(tmp_path, [{**TOY[1], "images": ["own.png"]}])
    assert (found["images"], found["input_images"]) == (["own.png"], ["source.png"])


def test_a_training_file_without_instructions_is_refused_with_its_own_columns(tmp_path: Path) -> None:
    file = write_jsonl(tmp_path / "rows.jsonl", [{"task_type": "t2i", "instructions": "x", "input_images": []}])
    with pytest.raises(
        ValueError, match="lacks the required column instruction; found: task_type, instructions, input"
    ):
        open_manifest(str(file))


# --- ids ---


def test_rows_that_differ_in_their_output_image_alone_are_two_and_repeated_rows_are_one(tmp_path: Path) -> None:
    """As in OmniGen's toy data for one subject, where one prompt has several photographs."""
    rows = [{**TOY[0], "output_image": name} for name in ("dog1.jpeg", "dog4.jpeg", "dog1.jpeg")]
    file = write_jsonl(tmp_path / "rows.jsonl", rows)
    summary = stage_plan(open_manifest(str(file)), RunConfig(), Ledger.load(str(tmp_path)), str(tmp_path), "r1")
    assert (summary.num_to_do, summary.num_duplicates) == (2, 1)
    first, second, third = plan(open_manifest(str(file)))
    assert first["id"] == third["id"] != second["id"]
    assert first["seed"] == third["seed"] != second["seed"]
    assert len(first["id"]) == 16


def test_ids_follow_from_what_a_row_asks_for_and_not_from_its_place_or_other_columns(tmp_path: Path) -> None:
    ids = [found["id"] for found in plan_of(tmp_path, TOY)]
    assert len(set(ids)) == 5
    changed = [{**written, "score": n, "split": None} for n, written in enumerate(TOY)]
    assert [found["id"] for found in plan_of(tmp_path, changed[::-1])] == ids[::-1]
    more_steps = [{**written, "steps": 7} for written in TOY]
    assert not {found["id"] for found in plan_of(tmp_path, more_steps)} & set(ids)


def test_ids_of_the_files_own_are_kept(tmp_path: Path) -> None:
    rows = [{**TOY[0], "id": "cat"}, {**TOY[1], "id": None}]
    first, second = plan_of(tmp_path, rows)
    assert first["id"] == "cat"
    assert len(second["id"]) == 16


# --- where images are ---


def test_the_image_root_takes_no_part_in_what_a_row_or_a_store_is(tmp_path: Path) -> None:
    manifest = open_manifest(str(write_jsonl(tmp_path / "rows.jsonl", TOY)))
    here, there = plan(manifest), plan(replace(manifest, base_folder="s3://bucket/images"))
    assert there[1]["image_uris"] == ["s3://bucket/images/source.png"]
    for one, other in zip(here, there, strict=True):
        assert {**one, "image_uris": []} == {**other, "image_uris": []}
    rooted = RunConfig(inputs=InputConfig(image_root="s3://bucket/images"))
    assert fingerprint(rooted, "sum") == fingerprint(RunConfig(), "sum")


@pytest.mark.parametrize("root", ["nope://user:hunter2@bucket/images", "s3://", " "])
def test_a_bad_image_root_is_one_line_without_secrets(tmp_path: Path, root: str) -> None:
    file = write_jsonl(tmp_path / "rows.jsonl", TOY)
    config = RunConfig(model="fake", inputs=InputConfig(image_root=root))
    with pytest.raises(ConfigError, match="image_root='") as caught:
        run(str(file), str(tmp_path / "store"), config)
    with pytest.raises(ConfigError, match="image_root='"):
        build_processor(config, output=str(tmp_path / "store"))
    assert "\n" not in str(caught.value)
    assert "hunter2" not in str(caught.value)


@pytest.mark.ray
@pytest.mark.slow
@pytest.mark.usefixtures("local_ray")
def test_a_whole_run_finds_images_below_the_root_and_keeps_the_users_columns(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "images").mkdir()
    rows = [
        TOY[0],
        {**TOY[1], "input_images": "red.png"},
        {**TOY[3], "input_images": ["red.png", "green.png"]},
        {"task_type": "ic", "instruction": "All of them.", "input_images": ["red.png", "green.png", "blue.png"]},
    ]
    for colour in ("red", "green", "blue"):
        Image.new("RGB", (32, 48), colour).save(tmp_path / "images" / f"{colour}.png")
    (tmp_path / "texts").mkdir()
    file = write_jsonl(tmp_path / "texts" / "rows.jsonl", rows)
    monkeypatch.chdir(tmp_path)
    config = RunConfig(
        model="fake",
        generation=GenerationConfig(width=48, height=32, steps=2),
        inputs=InputConfig(image_root="images"),
        workers=WorkerConfig(num_actors=1),
    )
    summary = run(str(file), str(tmp_path / "store"), config)
    assert (summary.num_in, summary.num_ok, summary.adds_up) == (4, 4, True)
    records = {found["task"]: found for found in pq.read_table(tmp_path / "store" / "records").to_pylist()}
    assert sorted(records) == ["edit", "multi_image_edit", "text_to_image", "try_on"]
    assert records["try_on"]["task_type"] == "try-on"
    assert records["edit"]["output_image"] == "target.png"
    assert records["multi_image_edit"]["prompt"] == f"{ONE} {TWO} {THREE} All of them."
    assert len(records["multi_image_edit"]["image_sha256"]) == 3

    (tmp_path / "images").rename(tmp_path / "moved")
    moved = run(str(file), str(tmp_path / "store"), replace(config, inputs=InputConfig(image_root="moved")))
    assert (moved.num_already_done, moved.num_generated) == (4, 0)


def test_rows_of_omnigen2_may_leave_out_the_task_type(tmp_path: Path) -> None:
    rows = [
        {"instruction": "Make it red.", "input_images": ["a.png"], "output_image": "b.png"},
        {"instruction": "A red boat.", "output_image": "c.png"},
    ]
    assert [row["task"] for row in plan_of(tmp_path, rows)] == ["edit", "text_to_image"]
