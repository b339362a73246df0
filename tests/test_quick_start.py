"""The README's quick start, run as it is written."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pyarrow.parquet as pq
import pytest

pytestmark = [pytest.mark.ray, pytest.mark.slow]

ROOT = Path(__file__).parents[1]


def quick_start() -> list[str]:
    """The commands of README's first block."""
    block = re.search(
        r"## Quick start\n.*?```\w*\n(.*?)```", (ROOT / "README.md").read_text(encoding="utf-8"), re.DOTALL
    )
    assert block
    return [line.split("#")[0].strip() for line in block[1].splitlines()]


def test_the_quick_start_is_two_commands():
    assert quick_start() == ["make demo", "make test"]


@pytest.mark.skipif(Path(sys.prefix) != ROOT / ".venv", reason="make would install a second environment")
def test_make_demo_makes_an_image_of_every_example_row(tmp_path: Path):
    command = [*quick_start()[0].split(), f"DEMO={tmp_path / 'demo'}", f"TINY_MODEL={tmp_path / 'model'}"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=600)
    assert done.returncode == 0, done.stderr
    rows = (ROOT / "examples" / "manifest.jsonl").read_text(encoding="utf-8").splitlines()
    assert f"in {len(rows)} = ok {len(rows)} + failed 0 + skipped 0" in done.stdout
    places = dict(re.findall(r"^(images|records|summary)\s+(\S+)$", done.stdout, re.MULTILINE))
    assert len(list(Path(places["images"]).rglob("*.png"))) == len(rows)
    assert pq.read_table(places["records"]).num_rows == len(rows)
    assert Path(places["summary"]).is_file()
