"""A run that is asked to stop: what happens when, and what an error means by then."""

from __future__ import annotations

import threading
import time
from pathlib import Path

import pytest

from pipelines.stopping import GraceOver, Stopping


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def asked() -> threading.Event:
    event = threading.Event()
    event.set()
    return event


def wait_for(path: Path) -> bool:
    until = time.monotonic() + 30
    while not path.exists() and time.monotonic() < until:
        time.sleep(0.01)
    return path.exists()


def test_nothing_happens_before_a_run_is_asked_to_stop(tmp_path: Path) -> None:
    for event in (None, threading.Event()):
        stopping = Stopping(event, str(tmp_path / "stop"), 0.0)
        stopping.check()
        stopping.check()
        assert not stopping.is_asked
    assert list(tmp_path.iterdir()) == []


def test_the_mark_is_written_at_once_and_the_end_comes_after_the_grace(tmp_path: Path) -> None:
    clock, event = Clock(), threading.Event()
    stopping = Stopping(event, str(tmp_path / "stop"), 30.0, clock)
    stopping.check()
    clock.now += 1000
    event.set()
    stopping.check()
    assert stopping.is_asked
    assert wait_for(tmp_path / "stop")
    clock.now += 29.9
    stopping.check()
    clock.now += 0.1
    with pytest.raises(GraceOver, match="30 s"):
        stopping.check()


def test_a_store_that_takes_no_mark_does_not_put_the_end_off(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    clock = Clock()
    stopping = Stopping(asked(), str(tmp_path / "file" / "stop"), 5.0, clock)
    stopping.check()
    clock.now += 5
    with pytest.raises(GraceOver):
        stopping.check()


def test_the_end_of_the_grace_is_no_error() -> None:
    stopping = Stopping(asked(), "unused", 0.0)
    with stopping.ending():
        raise GraceOver
    assert stopping.is_asked


def test_an_error_ends_a_run_that_stops_and_fails_one_that_does_not(caplog: pytest.LogCaptureFixture) -> None:
    with Stopping(asked(), "unused", 0.0).ending():
        raise ConnectionError("the cluster has gone")
    assert "broke off" in caplog.text
    with pytest.raises(ConnectionError), Stopping(threading.Event(), "unused", 0.0).ending():
        raise ConnectionError("the cluster has gone")


def test_an_interrupt_is_never_held_back() -> None:
    with pytest.raises(KeyboardInterrupt), Stopping(asked(), "unused", 0.0).ending():
        raise KeyboardInterrupt
