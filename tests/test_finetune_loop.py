"""The loop of a worker, with a session that only counts: when it draws, and which examples."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

import pyarrow as pa
import pytest
from PIL import Image

from omnigen_actor.schema import PREPARED
from pipelines.finetune.loop import LoopSpec, train
from pipelines.finetune.prepared import Order, Prepared, write_part
from pipelines.finetune.progress import TrainingFolder

TASKS = ("edit", "edit", "edit", "canny", "canny", "pose")


class Counter:
    """What the loop uses of a session. ``drawn``: step and ids of each drawing."""

    def __init__(self, step: int = 0) -> None:
        self.step = step
        self.drawn: list[tuple[int, list[str]]] = []

    def train(self, rows: Sequence[dict[str, Any]]) -> float:
        self.step += 1
        return 1.0

    def validate(self, rows: Sequence[dict[str, Any]]) -> float:
        return float(len(rows))

    def draw(self, rows: Sequence[dict[str, Any]]) -> list[tuple[Image.Image, ...]]:
        self.drawn.append((self.step, [row["id"] for row in rows]))
        return [(Image.new("RGB", (16, 16), "red"),) for _ in rows]

    def state(self) -> bytes:
        return b"state"

    def write_result(self, folder: Path) -> None:
        (folder / "weights").write_bytes(b"result")


def written(folder: Path, name: str, tasks: Sequence[str] = TASKS) -> Prepared:
    rows = [
        {
            "id": f"{name}{number}", "sample": 0, "row_hash": f"{name}{number}", "task": task,
            "prompt": f"prompt {number}", "latents": [], "latent_sizes": [],
        }
        for number, task in enumerate(tasks)
    ]  # fmt: skip
    key, num_rows = write_part(str(folder / name), pa.Table.from_pylist(rows, schema=PREPARED))
    return Prepared(parts=((str(folder / name / key), num_rows),))


def run(
    tmp_path: Path, *, held_out: bool = True, max_validation: int = 256, sample_every: int = 4, num_samples: int = 4,
    worker: int = 0, first: int = 0,
) -> Counter:  # fmt: skip
    """Ten steps, or what is left of them after the first ones."""
    train_set = written(tmp_path, "t")
    spec = LoopSpec(
        session=cast("Any", None),
        root=str(tmp_path / "out"),
        train=train_set,
        held_out=written(tmp_path, "h") if held_out else Prepared(parts=()),
        max_validation=max_validation,
        num_steps=10,
        num_rows=1,
        seed=0,
        save_every=5,
        validate_every=5,
        sample_every=sample_every,
        num_samples=num_samples,
        told={},
    )
    session = Counter(first)
    order = Order(prepared=train_set, num_rows=1, seed=0)
    folder = TrainingFolder(spec.root)
    train(spec, cast("Any", session), folder, order, report=lambda _: None, is_first=worker == 0)
    return session


def files(tmp_path: Path) -> list[str]:
    return sorted(path.name for path in (tmp_path / "out").glob("samples/*"))


def test_it_draws_at_its_steps_and_at_the_end_the_same_examples(tmp_path: Path) -> None:
    drawn = run(tmp_path).drawn
    assert [step for step, _ in drawn] == [4, 8, 10]
    assert files(tmp_path) == ["rows.json", "step-00000004.png", "step-00000008.png", "step-00000010.png"]
    rows = json.loads((tmp_path / "out" / "samples" / "rows.json").read_text())
    assert all([row["id"] for row in rows] == ids for _, ids in drawn)
    assert rows[1] == {"id": "h3", "sample": 0, "task": "canny", "prompt": "prompt 3"}
    with Image.open(tmp_path / "out" / "samples" / "step-00000008.png") as sheet:
        assert sheet.size == (32, 4 * 24 + 8)


def test_tasks_come_in_turn(tmp_path: Path) -> None:
    assert run(tmp_path / "four").drawn[0][1] == ["h0", "h3", "h5", "h1"]
    assert run(tmp_path / "all", num_samples=100).drawn[0][1] == ["h0", "h3", "h5", "h1", "h4", "h2"]


@pytest.mark.parametrize("max_validation", [0, 2, 256])
def test_how_many_are_measured_does_not_bound_how_many_are_drawn(tmp_path: Path, max_validation: int) -> None:
    assert len(run(tmp_path, max_validation=max_validation).drawn[0][1]) == 4
    log = [json.loads(line) for line in (tmp_path / "out" / "log.jsonl").read_text().splitlines()]
    assert [entry.get("held_out_loss", 0) for entry in log if entry["step"]] == [min(max_validation, 6)] * 2


def test_where_nothing_is_held_out_training_examples_are_drawn(tmp_path: Path) -> None:
    assert run(tmp_path, held_out=False).drawn[0][1] == ["t0", "t3", "t5", "t1"]


def test_it_never_draws_where_it_is_told_so_or_is_not_the_first_worker(tmp_path: Path) -> None:
    assert run(tmp_path / "never", sample_every=0).drawn == []
    assert run(tmp_path / "second", worker=1).drawn == []
    assert files(tmp_path / "never") == files(tmp_path / "second") == []


def test_a_training_that_goes_on_draws_what_is_left(tmp_path: Path) -> None:
    assert [step for step, _ in run(tmp_path, first=5).drawn] == [8, 10]


def logged(tmp_path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (tmp_path / "out" / "log.jsonl").read_text().splitlines()]


def test_the_model_is_measured_before_the_first_step(tmp_path: Path) -> None:
    run(tmp_path)
    assert [entry["step"] for entry in logged(tmp_path)] == [0, 5, 10]
    assert logged(tmp_path)[0] == {"step": 0, "held_out_loss": len(TASKS)}


def test_a_training_that_goes_on_or_has_nothing_held_out_is_not_measured_before(tmp_path: Path) -> None:
    run(tmp_path / "resumed", first=5)
    assert [entry["step"] for entry in logged(tmp_path / "resumed")] == [10]
    run(tmp_path / "all", held_out=False)
    assert [entry["step"] for entry in logged(tmp_path / "all")] == [5, 10]
