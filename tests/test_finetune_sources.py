"""What is trained on: stores and manifests with targets, and rows of them that can't be examples."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from omnigen_actor import uri
from omnigen_actor.errors import ManifestError
from omnigen_actor.schema import PLAN
from pipelines.config import InputConfig
from pipelines.finetune.sources import TrainingSet

ROWS: list[dict[str, Any]] = [
    {"task_type": "text_to_iamge", "instruction": "A cat.", "input_images": [], "output_image": "cat.png"},
    {"task_type": "image_edit", "instruction": "<img><|image_1|></img> Red.", "input_images": ["a.png"],
     "output_image": "b.png"},
    {"task_type": "edit", "instruction": "Make it blue.", "input_images": ["a.png"], "output_image": "c.png"},
]  # fmt: skip


def examples(folder: Path, rows: list[dict[str, Any]], **options: Any) -> list[dict[str, Any]]:
    path = folder / "x2i.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    tables = list(TrainingSet(uri=str(path), **options).batches())
    assert all(table.schema == PLAN for table in tables)
    return [row for table in tables for row in table.to_pylist()]


def test_a_training_file_gives_prompts_and_pictures_with_the_target_last(tmp_path: Path) -> None:
    found = examples(tmp_path, ROWS)
    assert [(row["prompt"], row["image_uris"], row["error"]) for row in found] == [
        ("A cat.", [f"{tmp_path}/cat.png"], None),
        ("<img><|image_1|></img> Red.", [f"{tmp_path}/a.png", f"{tmp_path}/b.png"], None),
        ("<img><|image_1|></img> Make it blue.", [f"{tmp_path}/a.png", f"{tmp_path}/c.png"], None),
    ]


def test_relative_pictures_start_at_the_image_root(tmp_path: Path) -> None:
    (row, *_) = examples(tmp_path, ROWS, image_root="/data/images")
    assert row["image_uris"] == ["/data/images/cat.png"]


@pytest.mark.parametrize("target", [None, "", [], ["a.png", "b.png"], 7, "nothing://x"])
def test_a_row_without_one_target_is_a_row_with_an_error(tmp_path: Path, target: object) -> None:
    good, bad = examples(tmp_path, [ROWS[0], {**ROWS[1], "output_image": target}])
    assert good["error"] is None
    assert bad["error_kind"] in {"bad_image_count", "bad_uri"}
    assert bad["image_uris"] == []


def test_a_row_that_breaks_a_rule_keeps_its_error(tmp_path: Path) -> None:
    _, bad = examples(tmp_path, [ROWS[0], {**ROWS[1], "instruction": "<img><|image_2|></img> Red."}])
    assert bad["error_kind"] == "bad_placeholders"


def test_a_manifest_without_targets_is_refused(tmp_path: Path) -> None:
    rows = [{"id": "a", "task": "text_to_image", "instruction": "x"}]
    with pytest.raises(ManifestError, match="no column output_image"):
        examples(tmp_path, rows)


@pytest.mark.parametrize("is_store", [False, True])
def test_what_rows_name_is_read_below_the_data_or_where_the_settings_allow_it(tmp_path: Path, is_store: bool) -> None:
    folder = tmp_path / "data"
    folder.mkdir()
    (folder / ("run.json" if is_store else "x2i.jsonl")).write_text("{}")
    source = TrainingSet(uri=str(folder if is_store else folder / "x2i.jsonl"))
    other = tmp_path / "other" / "b.png"
    source.allowed(InputConfig()).check(str(folder / "images" / "a.png"))
    with pytest.raises(uri.Refused, match="--allow"):
        source.allowed(InputConfig()).check(str(other))
    source.allowed(InputConfig(allow=(str(other.parent),))).check(str(other))
    source.allowed(InputConfig(image_root=str(other.parent))).check(str(other))
