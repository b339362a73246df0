"""The README's quick start, run as it is written, once; and what it left in the store."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image

from examples import contact_sheet, draw_demo
from omnigen_actor import images
from pipelines.world.presets import SMALL
from pipelines.world.scores import score
from pipelines.world.source import rows

pytestmark = [pytest.mark.ray, pytest.mark.slow]

ROOT = Path(__file__).parents[1]
ROWS = ROOT / "examples" / "demo"
SIDE = 64
"""The size of everything in the demo: what the mini model draws."""


class Demo(NamedTuple):
    """What ``make demo`` said and made; rows and records by their ids."""

    output: str
    store: Path
    rows: dict[str, dict[str, Any]]
    records: dict[str, dict[str, Any]]


def quick_start() -> list[str]:
    """The commands of README's first block."""
    block = re.search(
        r"## Quick start\n.*?```\w*\n(.*?)```", (ROOT / "README.md").read_text(encoding="utf-8"), re.DOTALL
    )
    assert block
    return [line.split("#")[0].strip() for line in block[1].splitlines()]


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Demo:
    if Path(sys.prefix) != ROOT / ".venv":
        pytest.skip("make would install a second environment")
    folder = tmp_path_factory.mktemp("quick-start")
    command = [*quick_start()[0].split(), f"DEMO={folder / 'demo'}"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=600)
    assert done.returncode == 0, done.stderr
    lines = map(json.loads, (ROWS / "manifest.jsonl").read_text(encoding="utf-8").splitlines())
    records = pq.read_table(folder / "demo" / "records").to_pylist()
    return Demo(
        output=done.stdout,
        store=folder / "demo",
        rows={row["id"]: row for row in lines},
        records={record["id"]: record for record in records},
    )


def result(demo: Demo, row_id: str) -> Image.Image:
    """The image that was made of a row."""
    return images.decode((demo.store / demo.records[row_id]["output_key"]).read_bytes(), max_pixels=SIDE**2)


def test_the_quick_start_is_two_commands() -> None:
    assert quick_start() == ["make demo", "make test"]


def test_make_demo_makes_an_image_of_every_row_and_a_sheet_of_them(demo: Demo) -> None:
    num_rows = len(demo.rows)
    assert f"in {num_rows} = ok {num_rows} + failed 0 + skipped 0" in demo.output
    places = dict(re.findall(r"^(images|records|summary)\s+(\S+)$", demo.output, re.MULTILINE))
    assert len(list(Path(places["images"]).rglob("*.png"))) == num_rows
    assert pq.read_table(places["records"]).num_rows == num_rows
    assert Path(places["summary"]).is_file()
    with Image.open(demo.store / "sheet.png") as sheet:
        assert sheet.height > num_rows * contact_sheet.CELL


def test_at_least_eight_tasks_are_among_the_finished_rows(demo: Demo) -> None:
    assert demo.records.keys() == demo.rows.keys()
    assert len({record["task"] for record in demo.records.values() if record["status"] == "ok"}) >= 8


def test_every_image_is_drawn_by_the_mini_model_at_its_size(demo: Demo) -> None:
    assert {result(demo, row_id).size for row_id in demo.rows} == {(SIDE, SIDE)}
    assert {(record["width"], record["height"]) for record in demo.records.values()} == {(SIDE, SIDE)}
    assert {record["model"] for record in demo.records.values()} == {"mini"}


def test_edges_of_a_drawn_scene_are_its_edges(demo: Demo) -> None:
    (row,) = rows(SMALL, ["canny"], 1, draw_demo.SEED)
    found = np.asarray(result(demo, row.id))
    assert score(SMALL, row.sample, found)["edges_f1"] >= 0.8


def test_the_parents_of_a_record_are_the_rows_that_the_manifest_names(demo: Demo) -> None:
    named = {
        row_id: [f"{image.removeprefix('row:')}#0" for image in row["images"] if image.startswith("row:")]
        for row_id, row in demo.rows.items()
    }
    assert max(map(len, named.values())) == 1
    assert {row_id: record["parents"] for row_id, record in demo.records.items()} == named


def test_the_contact_sheet_of_the_chain_shows_a_parents_image_as_its_childs_input(demo: Demo) -> None:
    chain = contact_sheet.named(contact_sheet.read(demo.store), ["chain-1-text", "chain-2-edges"])
    sheet = np.asarray(contact_sheet.draw(chain, demo.store, ROWS))
    cell, margin = contact_sheet.CELL, contact_sheet.MARGIN
    second = 2 * margin + cell
    parent = sheet[margin : margin + cell, -margin - cell : -margin]
    shown = sheet[second : second + cell, margin : margin + cell]
    assert np.ptp(parent) > 0
    assert np.array_equal(shown, parent)


def test_a_row_that_the_store_has_not_is_named(demo: Demo) -> None:
    with pytest.raises(SystemExit, match="no finished row nobody; the store has canny-000000,"):
        contact_sheet.named(contact_sheet.read(demo.store), ["chain-1-text", "nobody"])
