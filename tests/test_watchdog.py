"""The watchdog: a batch without a sign of life ends its process, and nothing else does."""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from omnigen_actor.watchdog import Watchdog

TIMEOUT_S = 0.2


class Exits:
    """Takes the place of the process's end."""

    def __init__(self) -> None:
        self.codes: list[int] = []
        self.happened = threading.Event()

    def __call__(self, code: int) -> None:
        self.codes.append(code)
        self.happened.set()


@contextmanager
def watchdog(exits: Exits, stall_timeout_s: float = TIMEOUT_S) -> Iterator[Watchdog]:
    dog = Watchdog(stall_timeout_s, exits)
    try:
        yield dog
    finally:
        dog.close()


def test_a_batch_that_is_quiet_too_long_ends_the_process_once_and_says_which_rows_ran(
    caplog: pytest.LogCaptureFixture,
) -> None:
    exits = Exits()
    with watchdog(exits) as dog, dog.watching(["a#0", "b#1"]):
        assert exits.happened.wait(30)
        time.sleep(2 * TIMEOUT_S)
    assert exits.codes == [1]
    (line,) = [record.getMessage() for record in caplog.records]
    assert "0.2 s" in line
    assert line.endswith("rows that ran: a#0, b#1")


def test_a_sign_of_life_puts_the_end_off() -> None:
    exits = Exits()
    with watchdog(exits, stall_timeout_s=2.0) as dog, dog.watching(["a#0"]):
        until = time.monotonic() + 3.0
        while time.monotonic() < until:
            dog.hear()
            time.sleep(0.05)
    assert exits.codes == []


def test_between_batches_nothing_happens_and_a_batch_begins_with_a_sign_of_life() -> None:
    exits = Exits()
    with watchdog(exits) as dog:
        with dog.watching(["a#0"]):
            pass
        dog.hear()  # an engine may speak late
        time.sleep(3 * TIMEOUT_S)
        with pytest.raises(ZeroDivisionError), dog.watching(["b#0"]):
            raise ZeroDivisionError
        time.sleep(3 * TIMEOUT_S)
    assert exits.codes == []


def test_of_many_rows_some_are_named(caplog: pytest.LogCaptureFixture) -> None:
    exits = Exits()
    with watchdog(exits) as dog, dog.watching([f"r{n}#0" for n in range(25)]):
        assert exits.happened.wait(30)
    assert "r19#0 and 5 more" in caplog.text
    assert "r20#0" not in caplog.text


def test_a_hung_process_is_left_with_its_code_and_one_line() -> None:
    code = (
        "import os, threading; from omnigen_actor.watchdog import Watchdog;"
        "dog = Watchdog(0.2, os._exit);\nwith dog.watching(['a#0']): threading.Event().wait()"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 1
    assert done.stderr == "no step and no outcome for 0.2 s: the process ends; rows that ran: a#0\n"
