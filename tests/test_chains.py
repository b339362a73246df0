"""Rows that refer to rows, through the whole pipeline on a local Ray: chains, failures, resuming."""

from __future__ import annotations

import hashlib
import io
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from PIL import Image

from omnigen_actor.fake import draw
from omnigen_actor.images import decode
from omnigen_actor.schema import TIMING_COLUMNS
from omnigen_actor.types import Request
from pipelines.config import GenerationConfig, RunConfig, WorkerConfig
from pipelines.generate import run
from pipelines.levels import Level, Progress
from pipelines.summary import Summary

pytestmark = [pytest.mark.ray, pytest.mark.slow, pytest.mark.usefixtures("local_ray")]

CONFIG = RunConfig(
    model="fake",
    generation=GenerationConfig(width=48, height=32, steps=2, max_input_image_size=64),
    workers=WorkerConfig(batch_size=4, num_actors=1),
)

DEMO: list[dict[str, Any]] = [
    {"id": "merged", "task": "compose", "instruction": "<|image_1|> beside <|image_2|>",
     "images": ["row:redrawn", "row:photo#1"]},
    {"id": "redrawn", "task": "condition", "instruction": "a dancer", "images": ["row:pose"]},
    {"id": "pose", "task": "pose", "images": ["row:edited"]},
    {"id": "edited", "task": "edit", "instruction": "make it blue", "images": ["row:photo"]},
    {"id": "photo", "task": "text_to_image", "instruction": "a woman", "num_samples": 2},
    {"id": "other", "task": "text_to_image", "instruction": "a tree"},
]  # fmt: skip


def generate(folder: Path, rows: list[dict[str, Any]], config: RunConfig = CONFIG) -> Summary:
    manifest = folder / "rows.jsonl"
    manifest.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return run(str(manifest), str(folder / "store"), config)


def records(folder: Path) -> dict[str, dict[str, Any]]:
    """The current record of each ``id#sample``, without its times."""
    table = pq.read_table(folder / "store" / "records").drop_columns(list(TIMING_COLUMNS))
    rows = sorted(table.to_pylist(), key=lambda row: row["attempt"])
    return {f"{row['id']}#{row['sample']}": row for row in rows}


def cut_before_level(monkeypatch: pytest.MonkeyPatch, depth: int) -> None:
    """Interrupt the driver when it is about to open the level of this depth."""
    open_level = Progress._open

    def cut(progress: Progress, level: Level) -> None:
        if level.depth == depth:
            raise KeyboardInterrupt
        open_level(progress, level)

    monkeypatch.setattr(Progress, "_open", cut)


def images(folder: Path) -> dict[str, bytes]:
    store = folder / "store"
    return {path.relative_to(store).as_posix(): path.read_bytes() for path in (store / "images").rglob("*.*")}


def test_a_chain_is_made_in_order_and_its_graph_can_be_read_from_the_records(tmp_path: Path):
    summary = generate(tmp_path, DEMO)
    assert (summary.num_in, summary.num_ok, summary.adds_up) == (7, 7, True)
    found = records(tmp_path)
    assert {name: (row["depth"], row["parents"]) for name, row in found.items()} == {
        "photo#0": (0, []),
        "photo#1": (0, []),
        "other#0": (0, []),
        "edited#0": (1, ["photo#0"]),
        "pose#0": (2, ["edited#0"]),
        "redrawn#0": (3, ["pose#0"]),
        "merged#0": (4, ["redrawn#0", "photo#1"]),
    }
    for row in found.values():
        assert row["image_sha256"] == [found[parent]["sha256"] for parent in row["parents"]]
    assert len({row["seed"] for row in found.values()}) == 7


def test_a_child_is_made_from_the_image_of_its_parent(tmp_path: Path):
    generate(tmp_path, DEMO[3:5])
    row = records(tmp_path)["edited#0"]
    parent = Image.open(io.BytesIO(images(tmp_path)[records(tmp_path)["photo#0"]["output_key"]]))
    request = Request(id="edited", prompt=row["prompt"], images=(parent.convert("RGB"),), seed=row["seed"])
    data = images(tmp_path)[row["output_key"]]
    assert decode(data, max_pixels=10**6).tobytes() == draw(request).tobytes()


def test_a_failed_root_skips_all_that_comes_from_it_and_a_retry_completes_it(tmp_path: Path):
    """50 descendants of several depths."""
    root = {"id": "root", "task": "edit", "instruction": "mend it", "images": ["photo.png"]}
    children = [
        {"id": f"d{n}", "task": "edit", "instruction": "on", "images": [f"row:{'root' if n < 10 else f'd{n - 10}'}"]}
        for n in range(50)
    ]
    summary = generate(tmp_path, [*children, root, DEMO[5]])
    assert (summary.num_in, summary.num_ok, summary.num_failed, summary.num_skipped) == (52, 1, 1, 50)
    skipped = [row for row in records(tmp_path).values() if row["status"] == "skipped"]
    assert len(skipped) == 50
    assert all("'root#0'" in row["error"] and row["error_kind"] == "parent_failed" for row in skipped)
    assert generate(tmp_path, [*children, root, DEMO[5]]).num_generated == 0
    Image.new("RGB", (40, 40), "red").save(tmp_path / "photo.png")
    again = generate(tmp_path, [*children, root, DEMO[5]], replace(CONFIG, retry_failed=("all",)))
    assert (again.num_ok, again.num_generated, again.adds_up) == (52, 51, True)


def test_a_run_cut_between_levels_and_resumed_gives_the_bytes_of_an_undisturbed_one(tmp_path: Path, monkeypatch):
    (tmp_path / "whole").mkdir()
    (tmp_path / "cut").mkdir()
    generate(tmp_path / "whole", DEMO)
    with monkeypatch.context() as patched:
        cut_before_level(patched, 2)
        with pytest.raises(KeyboardInterrupt):
            generate(tmp_path / "cut", DEMO)
    assert len(records(tmp_path / "cut")) == 4
    assert generate(tmp_path / "cut", DEMO).num_generated == 3
    assert images(tmp_path / "cut") == images(tmp_path / "whole")
    assert records(tmp_path / "cut") == records(tmp_path / "whole")


def test_the_image_of_a_skipped_row_is_not_there(tmp_path: Path):
    rows = [{"id": "root", "task": "text_to_image", "instruction": "please [fail]"},
            {"id": "child", "task": "edit", "instruction": "x", "images": ["row:root"]}]  # fmt: skip
    generate(tmp_path, rows)
    assert images(tmp_path) == {}
    assert hashlib.sha256(b"").hexdigest() not in {row["sha256"] for row in records(tmp_path).values()}
