"""A training's folder: states, the log, the result, and whose training it is."""

from __future__ import annotations

from pathlib import Path

import pytest

from omnigen_actor.errors import OutputError
from pipelines.finetune.progress import TrainingFolder


@pytest.fixture
def folder(tmp_path: Path) -> TrainingFolder:
    return TrainingFolder(str(tmp_path / "training"))


def test_the_newest_state_counts_and_two_are_kept(folder: TrainingFolder) -> None:
    assert folder.latest() is None
    for step in (500, 1000, 90_000):
        folder.save(step, f"state {step}".encode())
    assert [step for step, _ in folder.states()] == [1000, 90_000]
    assert folder.latest() == b"state 90000"


def test_a_state_that_is_not_whole_does_not_count(folder: TrainingFolder) -> None:
    folder.save(500, b"good")
    (Path(folder.root) / "state" / ".0123456789abcdef.tmp").write_bytes(b"half")
    assert folder.latest() == b"good"


def test_the_log_goes_on_and_forgets_what_is_measured_anew(folder: TrainingFolder) -> None:
    for step in (100, 200, 300):
        folder.add_to_log({"step": step, "loss": 1.0})
    folder.add_to_log({"step": 200, "loss": 2.0})
    assert folder.log() == [{"step": 100, "loss": 1.0}, {"step": 200, "loss": 2.0}]


def test_a_result_is_there_when_all_of_it_is(folder: TrainingFolder) -> None:
    def write(place: Path) -> None:
        (place / "vae").mkdir()
        (place / "vae" / "config.json").write_text("{}")
        assert not folder.is_finished()

    folder.write_result(write, {"steps": 3})
    assert folder.is_finished()
    assert (Path(folder.result) / "vae" / "config.json").read_text() == "{}"


def test_a_folder_belongs_to_one_training(folder: TrainingFolder) -> None:
    folder.bind({"model": "a", "steps": 3})
    folder.bind({"model": "a", "steps": 3})
    with pytest.raises(OutputError, match=r"another training \(steps: 3, now 4\)"):
        folder.bind({"model": "a", "steps": 4})
