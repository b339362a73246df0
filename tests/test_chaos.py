"""What the campaign of kills looks for is found where it is planted; and short campaigns: kills at random, and of a
driver at half of its rows.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from benchmarks import chaos, chaos_audit, chaos_engine

ROOT = Path(__file__).parents[1]


def planted(folder: Path, rows: list[dict[str, object]]) -> Path:
    """A store with these records, and one image of three bytes."""
    (folder / "records").mkdir()
    (folder / "images").mkdir()
    (folder / "images" / "a.png").write_bytes(b"abc")
    base = {"sample": 0, "attempt": 1, "status": "ok", "error_kind": None, "error": None, "output_key": "images/a.png"}
    pq.write_table(pa.Table.from_pylist([base | row for row in rows]), folder / "records" / "r.parquet")
    return folder


SHA = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"


def test_a_good_store_has_no_faults(tmp_path: Path) -> None:
    found = chaos_audit.look(planted(tmp_path, [{"id": "a", "sha256": SHA}]), {"a#0"})
    assert (found.faults, found.num_orphans, found.images) == ((), 0, {"a#0": SHA})
    assert chaos_audit.differing(found.images, {"a#0": SHA, "b#0": SHA}) == ["b#0"]


@pytest.mark.parametrize(
    ("rows", "fault"),
    [
        ([{"id": "b", "sha256": SHA}], "a#0 has no record"),
        ([{"id": "a", "sha256": SHA}, {"id": "b", "sha256": SHA}], "b#0 was not asked for"),
        ([{"id": "a", "sha256": SHA}, {"id": "a", "sha256": SHA}], "a#0 has 2 current records"),
        ([{"id": "a", "sha256": "0"}], "not that of its record"),
        ([{"id": "a", "sha256": SHA, "output_key": "images/none.png"}], "not there"),
        ([{"id": "a", "sha256": SHA, "status": "failed"}], "a#0 is failed"),
    ],
)
def test_what_must_not_be_is_a_fault(tmp_path: Path, rows: list[dict[str, object]], fault: str) -> None:
    assert any(fault in one for one in chaos_audit.look(planted(tmp_path, rows), {"a#0"}).faults)


@pytest.mark.ray
@pytest.mark.slow
def test_a_driver_that_is_killed_at_half_costs_no_more_than_what_was_in_flight(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in (chaos_engine.MODEL, chaos_engine.DIARY, "PYTHONPATH"):  # which the campaign sets for its drivers
        monkeypatch.setenv(name, "")
    half = chaos.kill_at_half(tmp_path, 300)
    assert half.faults == ()
    assert half.num_recorded >= 150
    assert half.num_repeated <= half.num_explained


@pytest.mark.ray
@pytest.mark.slow
def test_a_short_campaign_of_random_kills_loses_and_doubles_nothing(tmp_path: Path) -> None:
    """In a process of its own: its cluster of several nodes would stay in this one."""
    command = [sys.executable, "benchmarks/chaos.py", "--kills", "4", "--rows", "80", "--no-half", "--seed", "7"]
    command += ["--output", str(tmp_path / "chaos.json")]
    done = subprocess.run(command, check=False, cwd=ROOT, capture_output=True, text=True, timeout=900)
    assert done.returncode == 0, done.stdout + done.stderr[-2000:]
    found = json.loads((tmp_path / "chaos.json").read_text())
    assert sum(found["kills"].values()) == 4
    assert found["num_faults"] == 0
    assert all(one["num_started"] >= 80 for one in found["rounds"])
