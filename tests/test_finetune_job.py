"""``python -m jobs.finetune`` on a training file and on a store, on a local Ray: learning, resuming, LoRA."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image, ImageChops
from safetensors.torch import load_file

from jobs import exit_codes, finetune
from omnigen_actor.engine import OmniGenEngine
from omnigen_actor.types import Request, Result
from pipelines.config import EngineConfig, GenerationConfig, RunConfig, WorkerConfig
from pipelines.generate import run
from pipelines.world.presets import SMALL
from pipelines.world.source import write_world

pytestmark = [pytest.mark.ray, pytest.mark.slow, pytest.mark.usefixtures("local_ray")]

OPTIONS = {
    "rows-per-step": 2,
    "targets-per-row": 2,
    "learning-rate": 1e-3,
    "average": 0.5,
    "validation-share": 0.2,
    "validate-every": 4,
    "save-every": 4,
    "max-image-size": 64,
    "sample-every": 0,
}
DRAWS = ("--sample-every", "8", "--num-samples", "2")
STEPS = 12


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("world")
    write_world(str(folder), SMALL, ["text_to_image", "edit", "canny"], 30, 5)
    return folder


@pytest.fixture(scope="module")
def data(world: Path) -> Path:
    """The world's training file, with one row whose picture is not there."""
    rows = [json.loads(line) for line in (world / "x2i.jsonl").read_text().splitlines()]
    rows[0]["output_image"] = "images/nowhere.png"
    (world / "one-bad.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return world / "one-bad.jsonl"


def train(data: Path, output: Path, model: Path, *more: str) -> int:
    options = [word for name, value in OPTIONS.items() for word in (f"--{name}", str(value))]
    return finetune.main([str(data), str(output), "--model", str(model), *options, *more])


@pytest.fixture(scope="module")
def trained(data: Path, tmp_path_factory: pytest.TempPathFactory, tiny_model: Path) -> Path:
    """A training that nothing disturbed, and that draws."""
    output = tmp_path_factory.mktemp("trained")
    assert train(data, output, tiny_model, "--steps", str(STEPS), "--max-failed", "5", *DRAWS) == exit_codes.OK
    return output


def log(output: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (output / "log.jsonl").read_text().splitlines()]


def weights(output: Path) -> dict[str, torch.Tensor]:
    (file,) = (output / "result").rglob("transformer/*.safetensors")
    return load_file(file)


def pictures(model: Path, *adapters: str) -> bytes:
    from omnigen_actor.engine_settings import EngineSettings

    engine = OmniGenEngine.from_pretrained(str(model), EngineSettings(device="cpu", adapters=adapters))
    request = Request(id="a", prompt="a large red circle", seed=3, width=64, height=64, steps=2)
    (outcome,) = engine.generate([request])
    assert isinstance(outcome, Result)
    return outcome.image.tobytes()


def test_a_training_lowers_the_loss_on_rows_it_never_saw_and_its_result_loads(
    trained: Path, data: Path, tiny_model: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    losses = [entry["held_out_loss"] for entry in log(trained)]
    assert len(losses) == 4  # the first before training
    assert losses[-1] < 0.9 * losses[0]
    assert pictures(trained / "result") != pictures(tiny_model)
    assert train(data, trained, tiny_model, "--steps", str(STEPS), "--max-failed", "5") == exit_codes.OK
    printed = capsys.readouterr().out
    assert "held out; not_found 1" in printed
    assert str(trained / "result") in printed
    assert train(data, trained, tiny_model, "--steps", "13", "--max-failed", "5") == exit_codes.NOT_STARTED
    assert "another training" in capsys.readouterr().err


def test_a_training_draws_held_out_examples_as_it_goes(trained: Path) -> None:
    rows = json.loads((trained / "samples" / "rows.json").read_text())
    assert len({row["task"] for row in rows}) == len(rows) == 2
    sheets = {path.name: Image.open(path) for path in (trained / "samples").glob("*.png")}
    assert sorted(sheets) == ["step-00000008.png", "step-00000012.png"]
    first, last = (sheets[name].convert("RGB") for name in sorted(sheets))
    assert first.size == last.size == (3 * 72 + 8, 2 * 72 + 8)  # of two tasks one has an input image
    differs = ImageChops.difference(first, last).getbbox()
    assert differs
    assert differs[0] >= 2 * 72, "what is given differs, and not what is drawn alone"


def test_a_training_that_was_cut_off_ends_in_the_same_weights(
    trained: Path, data: Path, tmp_path: Path, tiny_model: Path
) -> None:
    cut = tmp_path / "cut"
    shutil.copytree(trained, cut)
    # As if it had been killed after its tenth step: the state of the eighth is the newest. From here it draws nothing.
    (cut / "state" / f"step-{STEPS:08d}.pt").unlink()
    shutil.rmtree(cut / "result")
    (cut / "log.jsonl").write_text("".join((cut / "log.jsonl").read_text().splitlines(keepends=True)[:3]))
    assert train(data, cut, tiny_model, "--steps", str(STEPS), "--max-failed", "5") == exit_codes.OK
    first, second = weights(trained), weights(cut)
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert [entry["held_out_loss"] for entry in log(trained)] == [entry["held_out_loss"] for entry in log(cut)]


def test_a_store_teaches_an_adapter_that_changes_what_is_drawn(world: Path, tmp_path: Path, tiny_model: Path) -> None:
    config = RunConfig(
        model=str(tiny_model),
        generation=GenerationConfig(width=64, height=64, steps=2, max_input_image_size=64),
        workers=WorkerConfig(num_actors=1),
    )
    store = tmp_path / "store"
    assert run(str(world / "manifest.jsonl"), str(store), config).num_ok == 30
    output = tmp_path / "lora"
    more = ("--steps", "8", "--lora-rank", "2", "--image-root", str(world))
    assert train(store, output, tiny_model, *more) == exit_codes.OK
    assert sorted(path.name for path in (output / "result").iterdir()) == [
        "adapter_config.json",
        "adapter_model.safetensors",
        "finetune.json",
    ]
    assert log(output)[-1]["held_out_loss"] < log(output)[0]["held_out_loss"]
    assert pictures(tiny_model, str(output / "result")) != pictures(tiny_model)
    with_adapter = RunConfig(
        model=str(tiny_model), generation=config.generation, workers=config.workers,
        engine=EngineConfig(adapters=(str(output / "result"),)),
    )  # fmt: skip
    assert run(str(world / "manifest.jsonl"), str(tmp_path / "after"), with_adapter).num_ok == 30


def test_examples_that_can_not_be_read_stop_a_training_unless_they_are_allowed(
    data: Path, tmp_path: Path, tiny_model: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert train(data, tmp_path / "out", tiny_model, "--steps", "1") == exit_codes.NOT_STARTED
    assert "1 of 30 examples can't be read, 3.3 %: not_found 1" in capsys.readouterr().err
    assert not (tmp_path / "out" / "state").exists()
