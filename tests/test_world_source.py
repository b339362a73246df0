"""The world as files: a manifest that the pipeline takes, and a training set that it takes as well."""

from __future__ import annotations

import io
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from omnigen_actor import placeholders
from omnigen_actor.errors import ConfigError, OutputError
from omnigen_actor.schema import OWNED_COLUMNS
from omnigen_actor.tasks import DEFAULT_TASKS
from pipelines.check import check_table
from pipelines.config import GenerationConfig
from pipelines.manifest import open_manifest
from pipelines.world.presets import FULL, SMALL
from pipelines.world.samples import TASKS_OF_THE_WORLD, make_sample
from pipelines.world.source import rows, write_world

TASKS = list(TASKS_OF_THE_WORLD)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two rows of every task."""
    output = tmp_path_factory.mktemp("world")
    write_world(str(output), SMALL, TASKS, 2 * len(TASKS), 3)
    return output


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def pixels(path: Path) -> np.ndarray[Any, Any]:
    return np.asarray(Image.open(io.BytesIO(path.read_bytes())))


def files(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_every_row_is_its_sample_with_the_pictures_that_it_names(folder: Path) -> None:
    manifest = lines(folder / "manifest.jsonl")
    assert len({row["id"] for row in manifest}) == len(manifest) == 2 * len(TASKS)
    for number, row in enumerate(manifest):
        sample = make_sample(SMALL, TASKS[number % len(TASKS)], 3, number // len(TASKS))
        assert row["task"] == sample.task
        assert (row["instruction"] or "") == sample.instruction
        for name, expected in zip(row["images"], sample.inputs, strict=True):
            assert np.array_equal(pixels(folder / name), expected)
        assert np.array_equal(pixels(folder / row["truth_output"]), sample.output)
        assert json.loads(row["truth_facts"]) == sample.facts
        assert json.loads(row["truth_scene"])["background"] == sample.scene.background
        assert (json.loads(row["truth_source"]) is None) == (sample.source_scene is None)


def test_the_pipeline_plans_every_row_of_the_manifest(folder: Path) -> None:
    manifest = open_manifest(str(folder / "manifest.jsonl"))
    planned = [
        row for batch in manifest.read() for row in check_table(batch, GenerationConfig(), str(folder)).to_pylist()
    ]
    assert len(planned) == 2 * len(TASKS)
    for row, line in zip(planned, lines(folder / "manifest.jsonl"), strict=True):
        assert row["error"] is None
        assert row["truth_facts"] == line["truth_facts"]
        sized_by_input = DEFAULT_TASKS.find(row["task"]).sized_by_input
        assert (row["width"], row["height"]) == ((None, None) if sized_by_input else (64, 64))
        assert all(Path(uri).is_file() for uri in row["image_uris"])
    assert not {name for name in lines(folder / "manifest.jsonl")[0] if name.startswith("truth_")} & OWNED_COLUMNS


def test_the_training_set_has_the_same_samples_in_whole_prompts(folder: Path) -> None:
    manifest, x2i = lines(folder / "manifest.jsonl"), lines(folder / "x2i.jsonl")
    for row, line in zip(x2i, manifest, strict=True):
        assert list(row) == ["task_type", "instruction", "input_images", "output_image"]
        assert row["instruction"] == DEFAULT_TASKS.find(line["task"]).prompt(line["instruction"], len(line["images"]))
        placeholders.check(row["instruction"], len(row["input_images"]))
        assert (row["task_type"], row["input_images"], row["output_image"]) == (
            line["task"],
            line["images"],
            line["truth_output"],
        )


def test_the_pipeline_reads_the_training_set_as_the_same_prompts(folder: Path) -> None:
    """But for the blank after the last word of in_context: an instruction is taken without the blanks at its ends."""

    def prompts(name: str) -> list[str]:
        manifest = open_manifest(str(folder / name))
        tables = [check_table(batch, GenerationConfig(), str(folder)) for batch in manifest.read()]
        return [row["prompt"].rstrip() for table in tables for row in table.to_pylist()]

    assert prompts("x2i.jsonl") == prompts("manifest.jsonl")


def test_the_same_arguments_give_the_same_bytes(folder: Path, tmp_path: Path) -> None:
    write_world(str(tmp_path), SMALL, TASKS, 2 * len(TASKS), 3)
    assert files(tmp_path) == files(folder)


def test_more_rows_begin_with_the_same_ones() -> None:
    few, many = (list(rows(FULL, ["edit", "canny"], num, 0)) for num in (5, 9))
    assert [row.id for row in many[:5]] == [row.id for row in few]
    assert all(np.array_equal(a.sample.output, b.sample.output) for a, b in zip(few, many, strict=False))


@pytest.mark.parametrize(("image_format", "extension"), [("webp", ".webp"), ("png", ".png")])
def test_pictures_of_a_lossless_format_are_exact(tmp_path: Path, image_format: str, extension: str) -> None:
    world = replace(FULL, size=128)
    write_world(str(tmp_path), world, ["compose"], 1, 0, image_format=image_format)
    (row,) = lines(tmp_path / "manifest.jsonl")
    assert row["truth_output"].endswith(f"-output{extension}")
    assert row["width"] == 128
    assert np.array_equal(pixels(tmp_path / row["truth_output"]), make_sample(world, "compose", 0, 0).output)


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ({"tasks": []}, "no tasks"),
        ({"tasks": ["paint"]}, "'paint'"),
        ({"num_rows": 0}, "rows=0"),
        ({"image_format": "gif"}, "'gif'"),
    ],
)
def test_what_can_not_be_written_is_refused_before_anything_is(
    tmp_path: Path, more: dict[str, Any], message: str
) -> None:
    arguments: dict[str, Any] = {"tasks": ["canny"], "num_rows": 1, "seed": 0, **more}
    with pytest.raises(ConfigError, match=message):
        write_world(str(tmp_path / "out"), SMALL, **arguments)
    assert not (tmp_path / "out").exists()


def test_an_output_that_can_not_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match="file"):
        write_world(str(tmp_path / "file"), SMALL, ["canny"], 1, 0)


@pytest.mark.s3
def test_the_world_is_written_to_a_bucket(s3: Any) -> None:
    write_world(f"{s3.uri}/world", SMALL, ["canny"], 2, 0)
    assert s3.keys("world") == [
        "world/images/canny/000000-1.png",
        "world/images/canny/000000-output.png",
        "world/images/canny/000001-1.png",
        "world/images/canny/000001-output.png",
        "world/manifest.jsonl",
        "world/x2i.jsonl",
    ]
