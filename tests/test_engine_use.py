from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import pytest

from omnigen_actor.fake import FakeEngine
from omnigen_actor.types import Request
from omnigen_actor.wave_report import WaveReport
from pipelines.engine_use import read_engine_use


def work(tmp_path: Path, run_id: str, num_batches: int) -> None:
    engine, report = FakeEngine(), WaveReport(str(tmp_path), run_id)
    for _ in range(num_batches):
        list(engine.generate([Request(id="a", prompt="p", seed=1, width=32, height=32)] * 2))
        report(engine, datetime.now(UTC))


def test_the_files_of_this_run_are_summed_and_no_others(tmp_path: Path) -> None:
    work(tmp_path, "r1", 2)
    work(tmp_path, "r2", 70)
    first, second = (read_engine_use(str(tmp_path), run_id) for run_id in ("r1", "r2"))
    assert first is not None
    assert second is not None
    assert (first.num_waves, second.num_waves) == (4, 140)
    assert first.occupancy == pytest.approx(1.0)


def test_a_run_without_metrics_has_none(tmp_path: Path) -> None:
    assert read_engine_use(str(tmp_path), "r1") is None


def test_a_damaged_file_is_named_and_left_out(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    work(tmp_path, "r1", 2)
    damaged = min((tmp_path / "metrics" / "r1").iterdir())
    damaged.write_bytes(damaged.read_bytes()[:100])
    use = read_engine_use(str(tmp_path), "r1")
    assert use is not None
    assert use.num_waves == 2
    assert str(damaged) in caplog.text


def test_a_store_that_cannot_be_listed_is_logged(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    assert read_engine_use(f"nosuch://{tmp_path.name}", "r1") is None
    assert "the metrics of run r1 are left out" in caplog.text
