"""A small autoencoder learns pictures, goes on from its state to the bit, and gives latents of unit size."""

from __future__ import annotations

import io
import math
from typing import Any

import pytest
import torch
from diffusers import AutoencoderKL
from torch import Tensor

from omnigen_actor.training.autoencoder import AutoencoderRecipe, AutoencoderTrainer, psnr_db, whiten

SIDE = 32
RECIPE = AutoencoderRecipe(num_steps=6, batch_size=2, crop_batch_size=4, crop_px=16, crop_share=0.5, mse_share=0.7)


def autoencoder(seed: int = 0) -> Any:
    """Three levels and 4 channels of latents: a quarter of the pixels' sides."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return AutoencoderKL(
            in_channels=3,
            out_channels=3,
            down_block_types=("DownEncoderBlock2D",) * 3,
            up_block_types=("UpDecoderBlock2D",) * 3,
            block_out_channels=(8, 8, 8),
            layers_per_block=1,
            latent_channels=4,
            norm_num_groups=4,
            sample_size=SIDE,
            mid_block_add_attention=False,
        )


def pictures(num: int, first: int = 0) -> Tensor:
    """A rectangle of one colour on another, (num, 3, SIDE, SIDE) in [-1, 1]."""
    found = []
    for index in range(first, first + num):
        generator = torch.Generator().manual_seed(index)
        ground, figure = 2 * torch.rand(2, 3, 1, 1, generator=generator) - 1
        y, x, height, width = (SIDE * torch.rand(4, generator=generator) / 2).long().tolist()
        picture = ground.repeat(1, SIDE, SIDE)
        picture[:, y : y + height + 4, x : x + width + 4] = figure
        found.append(picture)
    return torch.stack(found)


def train(trainer: AutoencoderTrainer, num_steps: int) -> list[dict[str, float]]:
    """Some steps, each on pictures that no other step had."""
    return [
        trainer.train(pictures(trainer.recipe.pictures(trainer.step), 100 * trainer.step)) for _ in range(num_steps)
    ]


@torch.no_grad()
def latents_of(model: Any, pixels: Tensor) -> Tensor:
    latents: Tensor = model.encode(pixels).latent_dist.mode()
    return latents


@torch.no_grad()
def decoded(model: Any, pixels: Tensor) -> Tensor:
    found: Tensor = model.decode(latents_of(model, pixels), return_dict=False)[0]
    return found


def through_a_file(state: dict[str, Any]) -> dict[str, Any]:
    file = io.BytesIO()
    torch.save(state, file)
    file.seek(0)
    loaded: dict[str, Any] = torch.load(file)
    return loaded


def test_simple_pictures_are_learned() -> None:
    model, pixels = autoencoder(), pictures(8)
    with torch.no_grad():
        model.quant_conv.bias[4:].sub_(5)  # little noise in the latents
    before = psnr_db(decoded(model, pixels), pixels)
    recipe = AutoencoderRecipe(num_steps=60, crop_px=16, crop_batch_size=8, muon_rate=0.01, adam_rate=0.01)
    trainer = AutoencoderTrainer(model, recipe)
    losses = [trainer.train(pixels)["mse"] for _ in range(60)]
    assert sum(losses[-10:]) < 0.5 * sum(losses[:10])
    assert psnr_db(decoded(model, pixels), pixels) > before + 4


def test_a_restored_training_ends_in_the_same_bits() -> None:
    trainer = AutoencoderTrainer(autoencoder(), RECIPE)
    train(trainer, 2)
    state = through_a_file(trainer.state())
    losses = train(trainer, 4)
    restored = AutoencoderTrainer(autoencoder(seed=1), RECIPE)
    restored.restore(state)
    assert restored.step == 2
    assert train(restored, 4) == losses
    weights = restored.model.state_dict()
    assert all(torch.equal(tensor, weights[name]) for name, tensor in trainer.model.state_dict().items())


def test_both_halves_are_trained() -> None:
    model = autoencoder()
    before = {name: parameter.detach().clone() for name, parameter in model.named_parameters()}
    train(AutoencoderTrainer(model, RECIPE), 3)
    assert all(not torch.equal(parameter, before[name]) for name, parameter in model.named_parameters())


def test_a_step_takes_crops_first_and_whole_pictures_later() -> None:
    assert [RECIPE.pictures(step) for step in range(6)] == [4, 4, 4, 2, 2, 2]
    sizes: list[tuple[int, ...]] = []
    model = autoencoder()
    model.encoder.register_forward_pre_hook(lambda _, inputs: sizes.append(tuple(inputs[0].shape)))
    train(AutoencoderTrainer(model, RECIPE), 6)
    assert sizes == [(4, 3, 16, 16)] * 3 + [(2, 3, SIDE, SIDE)] * 3


def test_whitened_latents_have_mean_0_and_deviation_1_and_decode_as_before() -> None:
    model, pixels = autoencoder(), pictures(80)
    train(AutoencoderTrainer(model, RECIPE), 2)
    before = decoded(model, pixels[:16])
    deviations = _posterior(model, pixels).std / latents_of(model, pixels).std((0, 2, 3), keepdim=True)
    whiten(model, pixels)
    latents = latents_of(model, pixels)
    assert torch.allclose(latents.mean((0, 2, 3)), torch.zeros(4), rtol=0, atol=1e-4)
    assert torch.allclose(latents.std((0, 2, 3)), torch.ones(4), rtol=0, atol=1e-4)
    assert torch.allclose(decoded(model, pixels[:16]), before, rtol=0, atol=1e-4)
    assert torch.allclose(_posterior(model, pixels).std, deviations, rtol=1e-3)


@torch.no_grad()
def _posterior(model: Any, pixels: Tensor) -> Any:
    return model.encode(pixels).latent_dist


@pytest.mark.parametrize(("error", "decibels"), [(0.2, 20.0), (0.02, 40.0)])
def test_psnr_is_over_the_range_of_pixels(error: float, decibels: float) -> None:
    expected = torch.zeros(2, 3, 4, 4)
    assert psnr_db(expected + error, expected) == pytest.approx(decibels, abs=1e-3)


def test_psnr_is_of_pixels_as_they_are_written() -> None:
    white = torch.ones(1, 3, 4, 4)
    assert math.isinf(psnr_db(1.5 * white, white))
