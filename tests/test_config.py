from __future__ import annotations

import math
import pickle
from collections.abc import Callable

import pytest

from omnigen_actor.errors import ConfigError
from pipelines.config import GenerationConfig, ImageConfig, InputConfig, RunConfig, WorkerConfig


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: GenerationConfig(steps=0), "steps=0: must be between 1 and 1000"),
        (lambda: GenerationConfig(width=3073), "width=3073: must be between 1 and 3072"),
        (lambda: GenerationConfig(guidance_scale=math.nan), "guidance_scale=nan: must be finite and 0 or greater"),
        (lambda: GenerationConfig(guidance_scale=math.inf), "guidance_scale=inf: must be finite and 0 or greater"),
        (lambda: GenerationConfig(seed=-1), "seed=-1: must be between 0 and"),
        (lambda: InputConfig(fetch_timeout_s=0.0), "fetch_timeout_s=0.0: must be finite and greater than 0"),
        (lambda: ImageConfig(image_format="gif"), "image_format='gif': must be one of png, webp, jpeg"),
        (lambda: WorkerConfig(batch_size=0), "batch_size=0: must be finite and 1 or greater"),
        (lambda: WorkerConfig(device="tpu"), "device='tpu': must be one of auto, cuda, cpu"),
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
