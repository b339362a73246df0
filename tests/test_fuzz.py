"""Hostile rows and damaged files, a few hundred of each, the same every time: benchmarks/fuzz.py runs ten thousand."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from random import Random

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from benchmarks import fuzz
from omnigen_actor.errors import ErrorKind

FEW = settings(
    max_examples=300, derandomize=True, database=None, deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
RANDOM = st.randoms(use_true_random=False)


@FEW
@given(RANDOM)
def test_a_hostile_row_is_good_or_has_an_error_of_a_known_kind(rng: Random) -> None:
    assert fuzz.check_one(rng) in {"ok", *ErrorKind}


@FEW
@given(RANDOM)
def test_a_damaged_file_is_an_image_or_has_an_error_of_a_known_kind(rng: Random) -> None:
    assert fuzz.decode_one(rng) in {"ok", *ErrorKind}


def test_the_files_that_are_damaged_are_whole_before() -> None:
    assert len(fuzz.originals()) > 25
    for data in fuzz.originals():
        assert fuzz.images.decode(data, max_pixels=1000).mode == "RGB"


@pytest.mark.parametrize(("what", "least"), [("rows", 8), ("images", 3)])
def test_the_fuzz_meets_rules_of_many_kinds(what: str, least: int) -> None:
    judge = fuzz.check_one if what == "rows" else fuzz.decode_one
    found = {judge(Random(f"{what} 0 {number}")) for number in range(200)}
    assert "ok" in found
    assert len(found) >= least


def test_the_benchmark_counts_every_outcome(tmp_path: Path) -> None:
    output = tmp_path / "fuzz.json"
    command = [sys.executable, fuzz.__file__, "--rows", "20", "--images", "20", "--output", str(output)]
    subprocess.run(command, check=True, capture_output=True)
    found = json.loads(output.read_text())
    for what in ("rows", "images"):
        assert sum(found[what]["outcomes"].values()) == found[what]["number"] == 20
        assert 0 < found[what]["longest_s"] <= found[what]["seconds"]
        assert found[what]["peak_bytes"] < found["memory_cap_bytes"]
