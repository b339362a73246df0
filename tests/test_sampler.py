"""Times, noise and guidance are those of the scheduler and of the authors' formula."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from omnigen_actor.model.sampler import branch_weights, euler_times, noise
from omnigen_actor.types import Request
from tests.reference import guide

scales = st.floats(0, 10)


@pytest.mark.parametrize("num_steps", [1, 4, 50])
@pytest.mark.parametrize("shift", [1.0, 3.0])
def test_times_are_those_of_the_scheduler(num_steps: int, shift: float):
    import numpy as np
    from diffusers import FlowMatchEulerDiscreteScheduler

    scheduler = FlowMatchEulerDiscreteScheduler(num_train_timesteps=1, invert_sigmas=True, shift=shift)
    scheduler.set_timesteps(sigmas=np.linspace(1, 0, num_steps + 1)[:num_steps])
    assert torch.equal(euler_times(num_steps, shift), scheduler.sigmas)


def test_times_run_from_noise_to_data():
    times = euler_times(10)
    assert times[0] == 0
    assert times[-1] == 1
    assert (times.diff() > 0).all()


@given(scales, scales, st.booleans())
def test_weighted_branches_are_the_guidance_formula(scale: float, img_scale: float, has_images: bool):
    request = Request(
        id="r", prompt="p", width=16, height=16, seed=0, guidance_scale=scale, img_guidance_scale=img_scale
    )
    full, images, negative = torch.randn(3, 8, dtype=torch.float64)
    v = [full, negative, images] if has_images else [full, negative]
    weights = branch_weights(scale, img_scale, has_images=has_images)
    found = weights[0] * full + weights[1] * images + weights[2] * negative
    assert torch.allclose(found, guide(request, v))


def test_guidance_of_1_needs_no_negative_branch():
    assert branch_weights(1.0, 1.6, has_images=False) == (1.0, 0.0, 0.0)
    assert branch_weights(1.0, 1.0, has_images=True) == (1.0, 0.0, 0.0)


def test_noise_is_the_seeds_alone():
    assert torch.equal(noise(5, 4, 8, 6), noise(5, 4, 8, 6))
    assert not torch.equal(noise(5, 4, 8, 6), noise(6, 4, 8, 6))


def test_noise_leaves_the_global_generator_alone():
    before = torch.get_rng_state()
    noise(5, 4, 8, 6)
    assert torch.equal(torch.get_rng_state(), before)
