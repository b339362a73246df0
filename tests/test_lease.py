"""One driver at a time: who holds a store, who may take it, and who notices that it was taken."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from omnigen_actor.errors import OutputError, RunStopped
from pipelines import lease
from pipelines.lease import STALE_S, WATCH_S, hold, machine, process_started

if TYPE_CHECKING:
    from tests.conftest import Bucket

SHORT_S = 0.02


def content(store: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((store / "lease.json").read_text())
    return found


def put(store: Path, **other: object) -> dict[str, Any]:
    """Write a lease of a run of another host, which has just beaten."""
    holder = {
        "run_id": "theirs",
        "host": "elsewhere",
        "machine": "elsewhere 1",
        "pid": 7,
        "process_started": "1",
        "since": "2026-01-01T12:00:00+00:00",
        "beat_at": time.time(),
        "num_beats": 3,
    }
    store.mkdir(exist_ok=True)
    (store / "lease.json").write_text(json.dumps(holder | other))
    return holder | other


def ended_process() -> int:
    """The number of a process that is gone."""
    command = [sys.executable, "-c", "import os; print(os.getpid())"]
    return int(subprocess.run(command, check=True, capture_output=True).stdout)


class Sleep:
    """Notes how long it should sleep, and does ``meanwhile`` instead when that is long."""

    def __init__(self, meanwhile: Callable[[], object] = lambda: None) -> None:
        self.meanwhile = meanwhile
        self.total_s = 0.0

    def __call__(self, seconds: float) -> None:
        self.total_s += seconds
        if seconds >= 1:
            self.meanwhile()


def wait_for(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(SHORT_S)


def test_a_lease_says_who_holds_it_and_is_gone_afterwards(tmp_path: Path) -> None:
    with hold(str(tmp_path / "store"), "mine"):
        found = content(tmp_path / "store")
        assert (found["run_id"], found["pid"], found["machine"]) == ("mine", os.getpid(), machine())
        assert found["process_started"] == process_started(os.getpid())
    assert not (tmp_path / "store" / "lease.json").exists()


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt, SystemExit])
def test_a_lease_ends_with_its_run_however_that_ends(tmp_path: Path, error: type[BaseException]) -> None:
    with pytest.raises(error), hold(str(tmp_path), "mine"):
        raise error
    assert not (tmp_path / "lease.json").exists()


def test_a_second_run_is_refused_with_who_holds_the_store_and_since_when(tmp_path: Path) -> None:
    with hold(str(tmp_path), "first"):
        since = content(tmp_path)["since"]
        with pytest.raises(OutputError, match=f"run first on .*process {os.getpid()}.*--take-over") as caught:
            hold(str(tmp_path), "second").__enter__()
        assert str(tmp_path) in str(caught.value)
        assert since in str(caught.value)
        assert content(tmp_path)["run_id"] == "first"


def test_a_run_on_another_host_holds_the_store_as_long_as_it_beats(tmp_path: Path) -> None:
    holder = put(tmp_path, machine=machine() + " another container", pid=ended_process())
    with pytest.raises(OutputError, match="run theirs on elsewhere"):
        hold(str(tmp_path), "mine").__enter__()
    assert content(tmp_path) == holder


@pytest.mark.parametrize("number", ["ended", "used again"])
def test_the_lease_of_a_process_of_this_host_that_is_gone_is_free_at_once(tmp_path: Path, number: str) -> None:
    pid = ended_process() if number == "ended" else os.getpid()
    put(tmp_path, machine=machine(), pid=pid, process_started="1")
    sleep = Sleep()
    with hold(str(tmp_path), "mine", sleep=sleep):
        assert content(tmp_path)["run_id"] == "mine"
    assert sleep.total_s < 1


def test_a_process_that_has_ended_and_was_not_collected_is_gone(tmp_path: Path) -> None:
    child = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    started = process_started(child.pid)
    put(tmp_path, machine=machine(), pid=child.pid, process_started=started)
    with pytest.raises(OutputError, match="theirs"):
        hold(str(tmp_path), "mine").__enter__()
    child.kill()
    while process_started(child.pid) == started:
        time.sleep(0.01)
    with hold(str(tmp_path), "mine"):
        assert content(tmp_path)["run_id"] == "mine"
    child.communicate()


def test_without_proc_a_process_is_there_as_long_as_it_can_be_signalled(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lease, "process_started", lambda _: None)
    put(tmp_path, machine=machine(), pid=os.getpid())
    with pytest.raises(OutputError, match="theirs"):
        hold(str(tmp_path), "mine").__enter__()
    put(tmp_path, machine=machine(), pid=ended_process())
    with hold(str(tmp_path), "mine"):
        assert content(tmp_path)["process_started"] == ""


def test_a_lease_that_did_not_beat_for_long_is_taken_after_watching_it(tmp_path: Path) -> None:
    put(tmp_path, beat_at=time.time() - STALE_S - 1)
    sleep = Sleep()
    with hold(str(tmp_path), "mine", sleep=sleep):
        assert content(tmp_path)["run_id"] == "mine"
    assert WATCH_S <= sleep.total_s < WATCH_S + 1


def test_a_clock_that_is_wrong_takes_nobodys_lease(tmp_path: Path) -> None:
    put(tmp_path, beat_at=time.time() - 1000)
    sleep = Sleep(lambda: put(tmp_path, beat_at=time.time() - 1000, num_beats=4))
    with pytest.raises(OutputError, match="run theirs"):
        hold(str(tmp_path), "mine", sleep=sleep).__enter__()
    assert content(tmp_path)["num_beats"] == 4


def test_take_over_takes_it_from_whoever_holds_it(tmp_path: Path) -> None:
    put(tmp_path)
    with hold(str(tmp_path), "mine", take_over=True):
        assert content(tmp_path)["run_id"] == "mine"


def test_of_two_that_write_at_once_the_last_one_wins(tmp_path: Path) -> None:
    def sleep(_: float) -> None:
        put(tmp_path)

    with pytest.raises(OutputError, match="run theirs"):
        hold(str(tmp_path), "mine", sleep=sleep).__enter__()
    assert content(tmp_path)["run_id"] == "theirs"


def test_a_lease_beats(tmp_path: Path) -> None:
    with hold(str(tmp_path), "mine", beat_s=SHORT_S) as held:
        before = content(tmp_path)
        wait_for(lambda: content(tmp_path)["num_beats"] >= 3)
        after = content(tmp_path)
        held.check()
    assert after["beat_at"] > before["beat_at"]
    assert after["since"] == before["since"]


def test_a_run_whose_lease_was_taken_notices_at_its_next_beat_and_leaves_the_others_alone(tmp_path: Path) -> None:
    with hold(str(tmp_path), "mine", beat_s=SHORT_S) as held:
        held.check()
        deadline = time.monotonic() + 20
        while not held.lost.is_set() and time.monotonic() < deadline:  # a beat that has read already writes once more
            theirs = put(tmp_path)
            held.lost.wait(5 * SHORT_S)
        with pytest.raises(RunStopped, match="lost its output to run theirs on elsewhere"):
            held.check()
    assert content(tmp_path) == theirs


def test_a_lease_that_was_removed_is_written_anew(tmp_path: Path) -> None:
    with hold(str(tmp_path), "mine", beat_s=SHORT_S) as held:
        (tmp_path / "lease.json").unlink()
        wait_for((tmp_path / "lease.json").exists)
        held.check()


def break_down_as_another_takes_over(store: Path) -> None:
    with hold(str(store), "mine"):
        put(store)
        raise FileNotFoundError("the plan")


def test_what_breaks_because_another_run_took_over_is_told_as_that(tmp_path: Path) -> None:
    with pytest.raises(RunStopped, match="lost its output to run theirs") as caught:
        break_down_as_another_takes_over(tmp_path)
    assert isinstance(caught.value.__context__, FileNotFoundError)


def test_a_lease_that_can_not_be_read_for_a_while_costs_no_run(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    place = tmp_path / "lease.json"
    with hold(str(tmp_path), "mine", beat_s=SHORT_S) as held:
        while not place.is_dir():
            place.unlink(missing_ok=True)
            with contextlib.suppress(FileExistsError):  # a beat was quicker
                place.mkdir()
        wait_for(lambda: "a beat of the lease failed" in caplog.text)
        place.rmdir()
        wait_for(place.is_file)
        held.check()


@pytest.mark.parametrize("text", ["", "[]", "{}", "\x00"])
def test_a_file_that_is_no_lease_stops_nobody(tmp_path: Path, text: str) -> None:
    (tmp_path / "lease.json").write_text(text)
    with hold(str(tmp_path), "mine"):
        assert content(tmp_path)["run_id"] == "mine"


def test_a_store_that_can_not_be_written_is_an_output_error(tmp_path: Path) -> None:
    (tmp_path / "store").write_text("a file")
    with pytest.raises(OutputError, match="the lease of output") as caught:
        hold(str(tmp_path / "store"), "mine").__enter__()
    assert "\n" not in str(caught.value)


@pytest.mark.s3
def test_an_object_store_holds_a_lease_as_a_folder_does(s3: Bucket) -> None:
    with hold(f"{s3.uri}/out", "mine") as held:
        with pytest.raises(OutputError, match="run mine on"):
            hold(f"{s3.uri}/out", "second").__enter__()
        with hold(f"{s3.uri}/out", "third", take_over=True):
            held.look()
            with pytest.raises(RunStopped, match="lost its output to run third"):
                held.check()
    assert s3.keys() == []
