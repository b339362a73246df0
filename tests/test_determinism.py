"""Same row, same seed, same model: the same bytes, whatever the actors, batches, order and number of runs."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from omnigen_actor.schema import TIMING_COLUMNS
from pipelines.config import GenerationConfig, InputConfig, RunConfig, WorkerConfig

pytestmark = [pytest.mark.ray, pytest.mark.slow]

Contents = tuple[dict[str, bytes], list[dict[str, Any]]]


@pytest.fixture(scope="module")
def rows(tmp_path_factory: pytest.TempPathFactory, picture: Callable[..., Any]) -> list[dict[str, Any]]:
    """Rows of all kinds, a failing one among them."""
    folder = tmp_path_factory.mktemp("pictures")
    paths = [str(folder / f"{name}.png") for name in ("a", "b", "c")]
    for number, path in enumerate(paths):
        picture(60 + 16 * number, 100 - 16 * number, number).save(path)
    size = {"width": 64, "height": 80}
    kinds = [
        {"task": "text_to_image", "instruction": "a boat", **size},
        {"task": "text_to_image", "instruction": "a long road into the hills " * 8, "width": 96, "height": 32},
        {"task": "edit", "instruction": "make it blue", "images": paths[:1]},
        {"task": "depth", "instruction": "", "images": paths[1:2], "num_samples": 2},
        {"task": "in_context", "instruction": "", "images": paths, **size},
        {"task": "edit", "instruction": "x", "images": ["nowhere.png"]},
    ]
    keys = ("id", "task", "instruction", "images", "width", "height", "num_samples", "steps")
    found = [{"id": f"row-{i}", "steps": 2 + i % 3, **kinds[i % len(kinds)]} for i in range(14)]
    return [{key: row.get(key) for key in keys} for row in found]


@pytest.fixture(scope="module")
def config(tiny_model: Path, rows: list[dict[str, Any]]) -> RunConfig:
    """One actor, small batches."""
    return RunConfig(
        model=str(tiny_model),
        generation=GenerationConfig(max_input_image_size=64),
        inputs=InputConfig(allow=(str(Path(rows[2]["images"][0]).parent),)),
        workers=WorkerConfig(num_actors=1, batch_size=4),
    )


@pytest.fixture(scope="module")
def undisturbed(local_ray: None, rows: list[dict[str, Any]], config: RunConfig, tmp_path_factory) -> Contents:
    """What every other way of running has to equal."""
    return contents(generate(tmp_path_factory.mktemp("undisturbed"), rows, config))


def test_the_undisturbed_run_is_complete(undisturbed: Contents, rows: list[dict[str, Any]]):
    images, records = undisturbed
    assert len(records) == 14 + 2
    assert len(images) == 16 - 2
    assert len(set(images.values())) == len(images)


@pytest.mark.parametrize(
    "workers",
    [{"num_actors": 2, "batch_size": 4}, {"num_actors": 1, "batch_size": 3}, {"num_actors": 2, "batch_size": 1}],
    ids=["two actors", "another batch size", "two actors, single rows"],
)
def test_the_pool_and_the_batches_do_not_show(workers, undisturbed, rows, config, tmp_path: Path):
    changed = replace(config, workers=replace(config.workers, **workers))
    assert contents(generate(tmp_path, rows, changed)) == undisturbed


def test_the_order_of_the_rows_does_not_show(undisturbed, rows, config, tmp_path: Path):
    shuffled = random.Random(5).sample(rows, len(rows))
    assert shuffled != rows
    assert contents(generate(tmp_path, shuffled, config)) == undisturbed


def test_a_run_split_in_two_does_not_show(undisturbed, rows, config, tmp_path: Path):
    generate(tmp_path, rows[:5], config)
    assert contents(generate(tmp_path, rows, config)) == undisturbed


def generate(folder: Path, rows: list[dict[str, Any]], config: RunConfig) -> Path:
    from pipelines.generate import run

    manifest, store = folder / "manifest.jsonl", folder / "store"
    manifest.write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert run(str(manifest), str(store), config).adds_up
    return store


def contents(store: Path) -> Contents:
    """All images as bytes, and all records without their times, in the order of ids."""
    images = {path.relative_to(store).as_posix(): path.read_bytes() for path in (store / "images").rglob("*.*")}
    table = pq.read_table(store / "records").drop_columns(list(TIMING_COLUMNS))
    records = sorted(table.to_pylist(), key=lambda record: (record["id"], record["sample"]))
    for record in records:
        record["error"] = (record["error"] or "").replace(str(store.parent), "")
    return images, records
