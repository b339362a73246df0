"""Questions to a model, their controls, and the gates that their scores must pass."""

from __future__ import annotations

import json
from pathlib import Path

import pyarrow as pa
import pytest

from jobs import evaluate, exit_codes
from pipelines.check import check_table
from pipelines.config import GenerationConfig
from pipelines.world.evaluation import GENERATED, RIGHT, UNGUIDED, WRONG, Gate, Questions, lines, read_gates
from pipelines.world.presets import SMALL
from pipelines.world.samples import TASKS_OF_THE_WORLD
from pipelines.world.scores import Mean

ALL = Questions(world=SMALL, tasks=tuple(TASKS_OF_THE_WORLD), num_samples=3, seed=9)


def test_every_variant_of_every_sample_is_a_row_that_passes_the_check() -> None:
    rows = list(ALL.manifest())
    assert len(rows) == len({row["id"] for row in rows}) == 3 * len(TASKS_OF_THE_WORLD) * len(GENERATED)
    columns = {name: [row.get(name) for row in rows] for name in {key for row in rows for key in row}}
    planned = check_table(pa.table(columns), GenerationConfig(), "/data")
    assert planned["error"].null_count == len(rows)
    assert {row["guidance_scale"] for row in rows if row["id"].endswith(UNGUIDED)} == {1.0}


def test_the_wrong_prompt_has_the_same_inputs_and_asks_for_something_else() -> None:
    rows = {row["id"]: row for row in ALL.manifest()}
    prompts = {row.id: row.sample.prompt() for row in ALL.rows()}
    for row_id, prompt in prompts.items():
        if row_id.startswith("in_context"):
            continue
        wrong = rows[f"{row_id}-wrong-prompt"]
        assert wrong["images"] == rows[f"{row_id}-{RIGHT}"]["images"]
        assert wrong["instruction"] != prompt
        assert wrong["task"] == "custom"
    assert rows["canny-000000-wrong-prompt"]["instruction"] != rows["canny-000000-wrong-prompt"]["task"]


def test_in_context_the_wrong_prompt_is_an_example_of_another_relation_before_the_same_picture() -> None:
    questions = Questions(world=SMALL, tasks=("in_context",), num_samples=30, seed=9)
    relations = {row.images[:2]: row.sample.facts["relation"] for row in questions.rows()}
    rows = {row["id"]: row for row in questions.manifest()}
    for asked in questions.rows():
        wrong, right = (rows[f"{asked.id}-{variant}"] for variant in ("wrong-prompt", RIGHT))
        assert wrong["images"][2:] == right["images"][2:]
        assert relations[tuple(wrong["images"][:2])] != asked.sample.facts["relation"]
        assert wrong["task"] == "in_context"


def test_in_context_without_another_relation_the_prompt_is_wrong() -> None:
    questions = Questions(world=SMALL, tasks=("in_context",), num_samples=1, seed=9)
    right, wrong, _ = questions.manifest()
    assert wrong["images"] == right["images"]
    assert (right["task"], wrong["task"]) == ("in_context", "custom")


def test_the_same_questions_are_asked_every_time() -> None:
    assert list(ALL.manifest()) == list(ALL.manifest())


def mean(value: float) -> Mean:
    return Mean(mean=value, low95=value, high95=value, num=3)


def gates(**told: object) -> str:
    """A file with gates for canny and depth."""
    return json.dumps(
        {
            "gates": [
                {"task": "canny", "metric": "edges_f1", "bound": 0.9},
                {"task": "canny", "metric": "edges_f1", "bound": 0.91},
                {"task": "depth", "metric": "depth_error", "bound": 0.03},
                {"task": "depth", "metric": "depth_error", "bound": 0.02},
            ],
            **told,
        }
    )


def test_a_gate_is_a_least_or_for_an_error_a_most() -> None:
    table = {"canny": {RIGHT: {"edges_f1": mean(0.9)}}, "depth": {RIGHT: {"depth_error": mean(0.03)}}}
    assert [gate.is_met(table) for gate in read_gates(gates()).gates] == [True, False, True, False]
    gate = Gate(task="canny", metric="edges_f1", bound=0.95)
    assert gate.complaint(table) == "canny edges_f1 is 0.900, and must be at least 0.95"


def test_a_gate_of_a_control_is_what_it_must_not_beat() -> None:
    table = {"canny": {WRONG: {"edges_f1": mean(0.1)}}, "depth": {WRONG: {"depth_error": mean(0.3)}}}
    assert Gate(task="canny", metric="edges_f1", bound=0.2, variant=WRONG).is_met(table)
    assert not Gate(task="canny", metric="edges_f1", bound=0.05, variant=WRONG).is_met(table)
    assert Gate(task="depth", metric="depth_error", bound=0.2, variant=WRONG).is_met(table)
    assert not Gate(task="depth", metric="depth_error", bound=0.4, variant=WRONG).is_met(table)


def test_what_was_not_measured_meets_no_gate() -> None:
    assert not Gate(task="canny", metric="edges_f1", bound=0.0).is_met({})
    assert not Gate(task="depth", metric="depth_error", bound=1.0).is_met({"depth": {RIGHT: {}}})


def test_gates_that_are_for_another_model_are_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "gates.json"
    path.write_text(gates(model_sha256="0" * 64))
    argv = ["fake", str(tmp_path / "out"), "--samples", "1", "--gates", str(path)]
    assert evaluate.main(argv) == exit_codes.NOT_STARTED
    assert "are for the model of sha256 000" in capsys.readouterr().err


def test_the_table_shows_a_column_for_each_variant() -> None:
    found = lines({"canny": {RIGHT: {"edges_f1": mean(0.9)}, WRONG: {"edges_f1": mean(0.1)}}}, ["edges_f1", "psnr_db"])
    assert len(found) == 2
    assert found[1].split() == ["canny", "edges_f1", "0.900", "0.100"]


def test_what_can_not_work_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    argv = ["fake", str(tmp_path / "out"), "--samples", "1"]
    assert evaluate.main([*argv, "--tasks", "paint"]) == exit_codes.NOT_STARTED
    assert "no task 'paint'" in capsys.readouterr().err
    assert evaluate.main([*argv, "--gates", str(tmp_path / "none.json")]) == exit_codes.NOT_STARTED
    assert "none.json" in capsys.readouterr().err


@pytest.mark.ray
@pytest.mark.slow
@pytest.mark.usefixtures("local_ray")
def test_a_random_model_is_measured_and_misses_a_gate(
    tmp_path: Path, tiny_model: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "gates.json"
    path.write_text(gates())
    argv = [str(tiny_model), str(tmp_path / "out"), "--samples", "2", "--tasks", "canny,edit", "--steps", "1"]
    assert evaluate.main([*argv, "--num-actors", "1", "--gates", str(path)]) == exit_codes.ROWS_FAILED
    assert "missed: canny edges_f1" in capsys.readouterr().out
    found = json.loads((tmp_path / "out" / "evaluation.json").read_text())
    assert set(found["tasks"]["edit"]) == {RIGHT, WRONG, UNGUIDED, "copy", "ceiling"}
    assert found["tasks"]["edit"]["copy"]["changed_gain_db"]["mean"] == 0
    assert found["tasks"]["canny"][RIGHT]["psnr_db"]["num"] == 2
