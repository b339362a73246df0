from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from omnigen_actor.errors import OutputError
from pipelines import run_info
from pipelines.config import GenerationConfig, RunConfig, WorkerConfig

CONFIG = RunConfig(model="fake", generation=GenerationConfig(steps=4))


def start(tmp_path: Path, config: RunConfig, run_id: str, model_sha256: str = "m1") -> None:
    made_with = run_info.fingerprint(config, model_sha256)
    runs = run_info.read_history(str(tmp_path), made_with)
    run_info.write(str(tmp_path), made_with, runs, run_id, config)


def test_history_grows_by_one_run_with_settings_and_versions(tmp_path: Path) -> None:
    start(tmp_path, CONFIG, "r1")
    start(tmp_path, replace(CONFIG, workers=WorkerConfig(batch_size=3)), "r2")
    runs = json.loads((tmp_path / "run.json").read_text())["runs"]
    assert [run["run_id"] for run in runs] == ["r1", "r2"]
    assert runs[1]["config"]["workers"]["batch_size"] == 3
    assert runs[0]["versions"]["numpy"]


@pytest.mark.parametrize("same", [GenerationConfig(steps=4, num_samples=3)])
def test_more_samples_are_the_same_store(tmp_path: Path, same: GenerationConfig) -> None:
    start(tmp_path, CONFIG, "r1")
    start(tmp_path, replace(CONFIG, generation=same), "r2")


def test_other_parameters_are_refused_naming_both_values_and_the_remedy(tmp_path: Path) -> None:
    start(tmp_path, CONFIG, "r1")
    before = (tmp_path / "run.json").read_bytes()
    with pytest.raises(OutputError, match=r"steps=4 \(now 5\): choose another output") as caught:
        start(tmp_path, replace(CONFIG, generation=GenerationConfig(steps=5)), "r2")
    assert str(tmp_path) in str(caught.value)
    assert (tmp_path / "run.json").read_bytes() == before


def test_other_weights_are_refused(tmp_path: Path) -> None:
    start(tmp_path, CONFIG, "r1")
    with pytest.raises(OutputError, match="model_sha256='m1'"):
        start(tmp_path, CONFIG, "r2", model_sha256="m2")


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"fingerprint": 1, "runs": []}', "\x00"])
def test_a_broken_file_is_an_output_error_of_one_line(tmp_path: Path, text: str) -> None:
    (tmp_path / "run.json").write_text(text)
    with pytest.raises(OutputError, match=r"run\.json of") as caught:
        start(tmp_path, CONFIG, "r1")
    assert "\n" not in str(caught.value)


def test_no_credential_of_a_model_uri_is_kept(tmp_path: Path) -> None:
    start(tmp_path, replace(CONFIG, model="https://user:secret@example.com/model?token=secret"), "r1")
    assert "secret" not in (tmp_path / "run.json").read_text()


def test_run_ids_differ() -> None:
    assert len({run_info.new_run_id() for _ in range(100)}) == 100
