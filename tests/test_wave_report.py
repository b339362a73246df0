from __future__ import annotations

import logging
from datetime import UTC, datetime
from pathlib import Path

import pytest

from omnigen_actor.fake import FakeEngine
from omnigen_actor.types import Request, Wave
from omnigen_actor.wave_report import WaveReport

NOW = datetime.now(UTC)


def worked(num_images: int = 2) -> FakeEngine:
    engine = FakeEngine()
    list(engine.generate([Request(id="a", prompt="p", seed=1, width=32, height=32)] * num_images))
    return engine


def test_a_batch_is_one_line_of_the_log(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    engine = worked()
    report = WaveReport(str(tmp_path), "r1")
    report(engine, NOW)
    report(engine, NOW)
    (line,) = caplog.messages
    assert line.startswith("engine: 2 waves: steps ")
    assert line.endswith("; waves 100 % full")


def test_without_waves_nothing_is_told(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    heard: list[object] = []
    caplog.set_level(logging.INFO)
    WaveReport(str(tmp_path), "r1", heard.append)(FakeEngine(), NOW)
    assert (caplog.messages, heard, list(tmp_path.iterdir())) == ([], [], [])


def test_an_engine_whose_account_is_broken_and_a_listener_that_raises_are_logged(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    class Broken(FakeEngine):
        def take_waves(self) -> list[Wave]:
            raise ZeroDivisionError

    def raising(_: object) -> None:
        raise ZeroDivisionError

    report = WaveReport(str(tmp_path), "r1", raising)
    report(Broken(), NOW)
    report(worked(), NOW)
    assert caplog.messages == ["the engine gave no account of its waves", "whoever listens to waves failed"]
    assert len(list((tmp_path / "metrics" / "r1").iterdir())) == 1
