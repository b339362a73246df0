"""Flow matching: noise, times, guidance and the Euler steps of a wave of rows. Knows no prompts and no pixels.

t = 0 is noise, t = 1 is data, and the model predicts v = data − noise. Noise, guidance and integration are fp32
whatever the dtype of the model.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from omnigen_actor.model.condition import Condition
from omnigen_actor.model.transformer import Transformer, attention


@dataclass(frozen=True, slots=True)
class Branch:
    """One guidance branch: its condition, the rotary tables of the image tokens, its weight in the guided velocity."""

    condition: Condition
    rotary: tuple[Tensor, Tensor]
    weight: float


@dataclass(slots=True, kw_only=True)
class Row:
    """One image on its way: what changes is ``latent`` and ``step``."""

    latent: Tensor
    times: Tensor
    shift: Tensor
    scale: Tensor
    branches: tuple[Branch, ...]
    step: int = 0

    @property
    def is_finished(self) -> bool:
        """Whether all steps are done."""
        return self.step == len(self.times) - 1

    @property
    def num_tokens(self) -> int:
        """Image tokens of one branch."""
        return len(self.branches[0].rotary[0])


def euler_times(num_steps: int, shift: float = 1.0) -> Tensor:
    """Times 0 … 1 of ``num_steps`` steps, (num_steps + 1), fp32: FlowMatchEulerDiscreteScheduler with invert_sigmas."""
    sigmas = torch.linspace(1, 0, num_steps + 1, dtype=torch.float64).float()
    return 1.0 - shift * sigmas / (1 + (shift - 1) * sigmas)


def branch_weights(guidance_scale: float, img_guidance_scale: float, *, has_images: bool) -> tuple[float, float, float]:
    """Weights of the (full, images-only, negative) branches; a branch of weight 0 needs no computing.

    Text: v = u + s (c − u). Images: v = u + s_img (i − u) + s (c − i). Both written as a weighted sum.
    """
    s, s_img = guidance_scale, img_guidance_scale
    return (s, s_img - s, 1 - s_img) if has_images else (s, 0.0, 1 - s)


def noise(seed: int, channels: int, height: int, width: int) -> Tensor:
    """Standard normal (channels, height, width) in fp32, drawn on the CPU: the same on every device."""
    generator = torch.Generator("cpu").manual_seed(seed)
    return torch.randn(channels, height, width, generator=generator, dtype=torch.float32)


def denoise(transformer: Transformer, rows: Sequence[Row]) -> None:
    """Integrate every row of a wave to the end, in place; a finished row leaves the wave."""
    active = [row for row in rows if not row.is_finished]
    while active:
        for row, velocity in zip(active, _velocities(transformer, active), strict=True):
            row.latent += velocity * (row.times[row.step + 1] - row.times[row.step])
            row.step += 1
        active = [row for row in active if not row.is_finished]


def _velocities(transformer: Transformer, rows: Sequence[Row]) -> list[Tensor]:
    """One guided velocity (channels, h, w) per row, from one packed pass over all rows and branches."""
    slots = [(row, branch) for row in rows for branch in row.branches]
    sizes = [row.num_tokens for row, _ in slots]
    hidden = torch.cat([_embed_once(transformer, row) for row in rows])
    rotary = (
        torch.cat([branch.rotary[0] for _, branch in slots]),
        torch.cat([branch.rotary[1] for _, branch in slots]),
    )

    def attend(layer: int, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        parts = zip(slots, *(torch.split(part, sizes) for part in (query, key, value)), strict=True)
        return torch.cat(
            [attention(q, *branch.condition.keys_and_values(layer, row.step, k, v)) for (row, branch), q, k, v in parts]
        )

    hidden = transformer.run_layers(hidden, rotary, attend)
    shift = torch.cat([row.shift[row.step].expand(size, -1) for (row, _), size in zip(slots, sizes, strict=True)])
    scale = torch.cat([row.scale[row.step].expand(size, -1) for (row, _), size in zip(slots, sizes, strict=True)])
    patches = iter(torch.split(transformer.project_out(hidden, shift, scale), sizes))
    return [_guide(transformer, row, [next(patches) for _ in row.branches]) for row in rows]


def _embed_once(transformer: Transformer, row: Row) -> Tensor:
    """The noisy image's tokens, once for each branch: the branches differ only in what they attend to."""
    return transformer.embed_latent(row.latent, is_input=False).repeat(len(row.branches), 1)


def _guide(transformer: Transformer, row: Row, patches: Sequence[Tensor]) -> Tensor:
    guided = sum(
        (patch * branch.weight for patch, branch in zip(patches, row.branches, strict=True)),
        start=torch.zeros_like(patches[0]),
    )
    return transformer.unpatch(guided, *row.latent.shape[-2:])
