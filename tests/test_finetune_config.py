"""The settings of a training: limits, options, and the committed file of the mini model."""

from __future__ import annotations

from pathlib import Path

import pytest

from jobs.finetune import PLACES, SURFACE
from jobs.options import parse
from omnigen_actor.errors import ConfigError
from pipelines.finetune.config import FinetuneConfig
from pipelines.world.samples import TASKS_OF_THE_WORLD

MINI = Path(__file__).parent.parent / "examples" / "mini"


def read(*argv: str) -> FinetuneConfig:
    return parse(["data", "out", *argv], SURFACE, PLACES, prog="finetune").config


def test_options_and_files_give_the_same_settings(tmp_path: Path) -> None:
    path = tmp_path / "training.yaml"
    path.write_text("training:\n  steps: 7\n  lora_rank: 4\nmachine:\n  num_workers: 2\n")
    assert read("--config", str(path)) == read("--steps", "7", "--lora-rank", "4", "--num-workers", "2")
    assert read() == FinetuneConfig()


@pytest.mark.parametrize("argv", [["--steps", "0"], ["--average", "2"], ["--learning-rate", "0"], ["--dtype", "int8"]])
def test_a_value_outside_its_limits_is_refused(argv: list[str]) -> None:
    with pytest.raises(ConfigError, match=argv[1]):
        read(*argv)


def test_no_two_settings_have_one_option() -> None:
    names = [setting.name for setting in SURFACE.settings.values()]
    assert len(set(names)) == len(names)


@pytest.mark.parametrize("stage", ["first", "second", "third"])
def test_the_mini_models_settings_can_be_read(stage: str) -> None:
    config = read("--config", str(MINI / f"{stage}.yaml"))
    assert (config.data.max_image_size, config.training.lora_rank) == (64, None)
    named = [entry.partition("=")[0] for entry in (MINI / f"{stage}-tasks.txt").read_text().split(",")]
    assert sorted(named) == sorted(TASKS_OF_THE_WORLD)
