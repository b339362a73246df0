"""Training of a small AutoencoderKL: the loss, the schedule, a step, and latents whitened at the end.

Knows no data set: pictures come as tensors. Mean squared error first: with absolute errors alone a small decoder on
pictures of flat colours stays at the mean colour. Small crops first: they are cheaper, and teach the same.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn

from omnigen_actor.training.muon import Muon, split_parameters
from omnigen_actor.training.schedule import share_of_rate


@dataclass(frozen=True, slots=True, kw_only=True)
class AutoencoderRecipe:
    """How an autoencoder is trained. Shares are of ``num_steps``; ``crop_px`` is the side of the first crops."""

    num_steps: int
    batch_size: int = 8
    crop_batch_size: int = 24
    crop_px: int = 32
    crop_share: float = 0.6
    mse_share: float = 0.35
    decay_share: float = 0.4
    muon_rate: float = 3e-3
    adam_rate: float = 2e-3
    kl_weight: float = 1e-4
    seed: int = 0

    def is_cropped(self, step: int) -> bool:
        """Whether this step takes crops instead of whole pictures."""
        return step < self.crop_share * self.num_steps

    def pictures(self, step: int) -> int:
        """How many pictures this step takes."""
        return self.crop_batch_size if self.is_cropped(step) else self.batch_size


_NOT_INSIDE = ("conv_in", "conv_out", "quant_conv")
"""Where pixels and latents come in and go out: their channels mean something, and are no directions to turn."""


class AutoencoderTrainer:
    """An autoencoder in training. ``step`` counts the steps that are done; the same pictures give the same weights."""

    def __init__(self, model: Any, recipe: AutoencoderRecipe) -> None:
        """``model``: a diffusers AutoencoderKL."""
        self.model, self.recipe, self.step = model, recipe, 0
        matrices, others = split_parameters(model, lambda name: not any(part in name for part in _NOT_INSIDE))
        self._optimizers: list[torch.optim.Optimizer] = [
            Muon(matrices, recipe.muon_rate),
            torch.optim.AdamW(others, recipe.adam_rate, betas=(0.9, 0.98), weight_decay=0.0),
        ]
        self._rates = [recipe.muon_rate, recipe.adam_rate]
        self._generator = torch.Generator().manual_seed(recipe.seed)

    def train(self, pixels: Tensor) -> dict[str, float]:
        """One step on pictures (batch, 3, height, width) in [-1, 1]; what it found, by name."""
        recipe = self.recipe
        if recipe.is_cropped(self.step):
            pixels = self._crops(pixels)
        share = share_of_rate(self.step, recipe.num_steps, recipe.decay_share)
        for optimizer, rate in zip(self._optimizers, self._rates, strict=True):
            for group in optimizer.param_groups:
                group["lr"] = rate * share
            optimizer.zero_grad(set_to_none=True)
        posterior = self.model.encode(pixels).latent_dist
        noise = torch.randn(posterior.mean.shape, generator=self._generator).to(pixels.device)
        decoded = self.model.decode(posterior.mean + posterior.std * noise, return_dict=False)[0]
        mse = F.mse_loss(decoded, pixels)
        loss = 4 * mse
        if self.step >= recipe.mse_share * recipe.num_steps:
            loss = loss + 0.5 * F.l1_loss(decoded, pixels) + 0.25 * _gradient_loss(decoded, pixels)
        loss = loss + recipe.kl_weight * posterior.kl().mean() / posterior.mean[0].numel()
        loss.backward()
        nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
        for optimizer in self._optimizers:
            optimizer.step()
        self.step += 1
        return {"loss": loss.item(), "mse": mse.item()}

    def state(self) -> dict[str, Any]:
        """All that goes on from here: weights, optimizers, noise, the step."""
        return {
            "model": self.model.state_dict(),
            "optimizers": [optimizer.state_dict() for optimizer in self._optimizers],
            "generator": self._generator.get_state(),
            "step": self.step,
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Go on from ``state``."""
        self.model.load_state_dict(state["model"])
        for optimizer, saved in zip(self._optimizers, state["optimizers"], strict=True):
            optimizer.load_state_dict(saved)
        self._generator.set_state(state["generator"])
        self.step = state["step"]

    def _crops(self, pixels: Tensor) -> Tensor:
        """One crop of each picture, at a random place."""
        side = self.recipe.crop_px
        room = torch.tensor(pixels.shape[-2:]) - side + 1
        places = (torch.rand(len(pixels), 2, generator=self._generator) * room).long().tolist()
        crops = [one[:, y : y + side, x : x + side] for one, (y, x) in zip(pixels, places, strict=True)]
        return torch.stack(crops)


def _gradient_loss(found: Tensor, expected: Tensor) -> Tensor:
    """Mean absolute error of the differences between neighbouring pixels: edges stay sharp."""
    error = found - expected
    return error.diff(dim=-1).abs().mean() + error.diff(dim=-2).abs().mean()


@torch.no_grad()
def whiten(model: Any, pixels: Tensor) -> None:
    """Give the latents of these pictures mean 0 and deviation 1 in each channel, by the convolutions beside them.

    Pictures decode as before, and the pipeline needs neither a scale nor a shift.
    """
    latents = torch.cat([model.encode(part).latent_dist.mode() for part in torch.split(pixels, 64)])
    mean, deviation = latents.mean((0, 2, 3)), latents.std((0, 2, 3))
    into, out = model.quant_conv, model.post_quant_conv
    channels = len(mean)
    into.bias[:channels].sub_(mean)
    into.weight[:channels].div_(deviation[:, None, None, None])
    into.bias[:channels].div_(deviation)
    into.bias[channels:].sub_(2 * deviation.log())
    out.bias.add_(out.weight[:, :, 0, 0] @ mean)
    out.weight.mul_(deviation[None, :, None, None])


def psnr_db(found: Tensor, expected: Tensor) -> float:
    """Of pictures in [-1, 1], all together."""
    return float(10 * torch.log10(4 / F.mse_loss(found.clamp(-1, 1), expected)))
