from __future__ import annotations

import math
import pickle
from collections.abc import Callable
from dataclasses import fields

import pytest

from omnigen_actor.engine_settings import EngineSettings
from omnigen_actor.errors import ConfigError
from pipelines.config import EngineConfig, GenerationConfig, ImageConfig, InputConfig, RunConfig, WorkerConfig


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: GenerationConfig(steps=0), "steps=0: must be between 1 and 1000"),
        (lambda: GenerationConfig(width=3073), "width=3073: must be between 1 and 3072"),
        (lambda: GenerationConfig(guidance_scale=math.nan), "guidance_scale=nan: must be finite and 0 or greater"),
        (lambda: GenerationConfig(guidance_scale=math.inf), "guidance_scale=inf: must be finite and 0 or greater"),
        (lambda: GenerationConfig(seed=-1), "seed=-1: must be between 0 and"),
        (lambda: InputConfig(fetch_timeout_s=0.0), "fetch_timeout_s=0.0: must be finite and greater than 0"),
        (lambda: InputConfig(image_root=""), "image_root='': must not be empty"),
        (lambda: ImageConfig(image_format="gif"), "image_format='gif': must be one of png, webp, jpeg"),
        (lambda: WorkerConfig(batch_size=0), "batch_size=0: must be finite and 1 or greater"),
        (lambda: WorkerConfig(device="tpu"), "device='tpu': must be one of auto, cuda, cpu"),
        (lambda: EngineConfig(attention="fast"), "attention='fast': must be one of auto, varlen, cudnn, flash,"),
        (lambda: EngineConfig(rows_per_wave=0), "rows_per_wave=0: must be finite and 1 or greater"),
        (lambda: EngineConfig(memory_gib=0.0), "memory_gib=0.0: must be finite and greater than 0"),
        (lambda: EngineConfig(guidance_to=1.1), "guidance_to=1.1: must be between 0 and 1"),
        (lambda: EngineConfig(guidance_from=1.0), "guidance_from=1.0: must be less than guidance_to=1.0"),
        (lambda: EngineConfig(guidance_from=0.5, guidance_to=0.25), "guidance_from=0.5: must be less than"),
        (lambda: EngineConfig(step_cache=-0.1), "step_cache=-0.1: must be finite and 0 or greater"),
        (lambda: EngineConfig(adapters=("a", "")), "adapters=('a', ''): must not be empty"),
        (lambda: RunConfig(max_failed=100.1), "max_failed=100.1: must be between 0 and 100"),
        (lambda: RunConfig(model=""), "model='': must not be empty"),
    ],
)
def test_a_value_outside_its_limits_is_refused_at_construction(build: Callable[[], object], message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        build()
    assert str(caught.value).startswith(message)


def test_values_at_their_limits_are_accepted() -> None:
    assert GenerationConfig(steps=1, width=3072, guidance_scale=0.0).width == 3072
    assert RunConfig(max_failed=100.0, progress_every_s=0.0).max_failed == 100.0


def test_a_config_travels_to_workers_unchanged() -> None:
    config = RunConfig(model="fake", generation=GenerationConfig(steps=3))
    assert pickle.loads(pickle.dumps(config)) == config


def test_the_defaults_are_those_of_an_engine_alone_and_exact() -> None:
    settings = RunConfig().engine_settings()
    assert settings == EngineSettings()
    assert settings.approximations == ()


def test_every_setting_of_an_engine_can_be_set_once() -> None:
    own = [entry.name for config in (EngineConfig, WorkerConfig) for entry in fields(config)]
    assert [entry.name for entry in fields(EngineSettings) if own.count(entry.name) != 1] == []
