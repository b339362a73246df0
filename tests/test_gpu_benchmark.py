"""The GPU benchmark's dry mode runs every section on a CPU, and its floors are those of the published table."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from benchmarks import gpu
from benchmarks.floors import Branches, Flops, table
from benchmarks.full_size import FULL, Tokenizer

NOT_ON_A_CPU = ("varlen", "cudnn", "efficient")

ENGINE = (15.7, 72.9, 24.4, 122.4, 26.1, 148.8)
DIFFUSERS = (17.6, 75.1, 51.2, 259.9, 111.0, 677.0)
"""TFLOP a step of the floor table in docs/engine.md: text, one image, three images, each at 512² and 1024²."""


@pytest.mark.parametrize(("shape", "ours", "theirs"), zip(table(512, 1024), ENGINE, DIFFUSERS, strict=True))
def test_the_counted_products_are_those_of_the_floor_table(shape, ours, theirs):
    flops = Flops.of(FULL)
    branches = Branches.of(shape, Tokenizer(FULL["vocab_size"]))
    assert flops.step(branches) / 1e12 == pytest.approx(ours, rel=0.03)
    assert flops.diffusers_step(branches) / 1e12 == pytest.approx(theirs, rel=0.03)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::DeprecationWarning:torch")  # torch's own, while it compiles
def test_the_dry_mode_measures_every_section(tmp_path: Path, monkeypatch):
    output = tmp_path / "result.json"
    assert gpu.main(["--dry", "--rows", "text-64,1x64,1x96,text-96", "--output", str(output)]) == 0
    result = json.loads(output.read_text())
    assert set(result["sections"]) == set(gpu.ORDER)
    for section, lines in result["sections"].items():
        assert lines, section
        for name, values in lines.items():
            expected = section == "attention" and name in NOT_ON_A_CPU
            assert ("error" in values) == expected, (section, name, values)
    shapes = result["sections"]["shapes"]
    assert all(values["seconds_per_image"] > 0 for values in shapes.values())
    assert all(values["speedup"] > 0 for name, values in shapes.items() if "diffusers" in name)
    assert result["sections"]["waves"]["a row of them alone, rows_per_wave=1"]["equal"]
    assert result["sections"]["parity"]["1 × 64² → 64²"]["relative_error"] < 1e-4
    assert result["date"]
    assert result["command"]
