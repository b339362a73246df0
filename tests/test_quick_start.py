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

from examples import contact_sheet
from omnigen_actor import images
from omnigen_actor.tasks import DEFAULT_TASKS

pytestmark = [pytest.mark.ray, pytest.mark.slow]

ROOT = Path(__file__).parents[1]
EXAMPLES = ROOT / "examples"
SIDE = 256
"""What ``make demo`` sets the run's width and height and the largest input side to."""


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
    command = [*quick_start()[0].split(), f"DEMO={folder / 'demo'}", f"TINY_MODEL={folder / 'model'}"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=600)
    assert done.returncode == 0, done.stderr
    rows = map(json.loads, (EXAMPLES / "manifest.jsonl").read_text(encoding="utf-8").splitlines())
    records = pq.read_table(folder / "demo" / "records").to_pylist()
    return Demo(
        output=done.stdout,
        store=folder / "demo",
        rows={row["id"]: row for row in rows},
        records={record["id"]: record for record in records},
    )


def result(demo: Demo, row_id: str) -> Image.Image:
    """The image that was made of a row."""
    return images.decode((demo.store / demo.records[row_id]["output_key"]).read_bytes(), max_pixels=SIDE**2)


def expected_size(demo: Demo, row: dict[str, Any]) -> tuple[int, int]:
    """The row's own; else, where the task takes its input's, that one's, as fitted to the model; else the run's."""
    if row["width"]:
        return row["width"], row["height"]
    if not DEFAULT_TASKS.find(row["task"]).sized_by_input:
        return SIDE, SIDE
    first = row["images"][0]
    if first.startswith("row:"):
        return result(demo, first.removeprefix("row:")).size
    photo = images.decode((EXAMPLES / first).read_bytes(), max_pixels=10**6)
    width, height = (round(side * min(1, SIDE / max(photo.size))) // 16 * 16 for side in photo.size)
    return width, height


def test_the_quick_start_is_two_commands() -> None:
    assert quick_start() == ["make demo", "make test"]


def test_make_demo_makes_an_image_of_every_example_row(demo: Demo) -> None:
    num_rows = len(demo.rows)
    assert f"in {num_rows} = ok {num_rows} + failed 0 + skipped 0" in demo.output
    places = dict(re.findall(r"^(images|records|summary)\s+(\S+)$", demo.output, re.MULTILINE))
    assert len(list(Path(places["images"]).rglob("*.png"))) == num_rows
    assert pq.read_table(places["records"]).num_rows == num_rows
    assert Path(places["summary"]).is_file()


def test_every_task_of_the_table_is_among_the_finished_rows(demo: Demo) -> None:
    assert demo.records.keys() == demo.rows.keys()
    finished = {record["task"] for record in demo.records.values() if record["status"] == "ok"}
    assert finished == {spec.name for spec in DEFAULT_TASKS}


def test_every_image_decodes_and_has_the_size_of_the_rule(demo: Demo) -> None:
    found = {row_id: result(demo, row_id).size for row_id in demo.rows}
    assert found == {row_id: expected_size(demo, row) for row_id, row in demo.rows.items()}
    assert found == {row_id: (record["width"], record["height"]) for row_id, record in demo.records.items()}


def test_the_parents_of_a_record_are_the_rows_that_the_manifest_names(demo: Demo) -> None:
    named = {
        row_id: [f"{image.removeprefix('row:')}#0" for image in row["images"] if image.startswith("row:")]
        for row_id, row in demo.rows.items()
    }
    assert max(map(len, named.values())) == 1
    assert {row_id: record["parents"] for row_id, record in demo.records.items()} == named


def test_the_contact_sheet_of_the_chain_shows_a_parents_image_as_its_childs_input(demo: Demo) -> None:
    chain = contact_sheet.named(contact_sheet.read(demo.store), ["chain-1-photo", "chain-2-edited"])
    sheet = np.asarray(contact_sheet.draw(chain, demo.store, EXAMPLES))
    cell, margin = contact_sheet.CELL, contact_sheet.MARGIN
    second = 2 * margin + cell
    parent = sheet[margin : margin + cell, -margin - cell : -margin]
    shown = sheet[second : second + cell, margin : margin + cell]
    assert np.ptp(parent) > 0
    assert np.array_equal(shown, parent)


def test_a_row_that_the_store_has_not_is_named(demo: Demo) -> None:
    with pytest.raises(SystemExit, match="no finished row nobody; the store has canny-coffee,"):
        contact_sheet.named(contact_sheet.read(demo.store), ["edit-cat-hat", "nobody"])
