"""Flow matching: noise, times, guidance, and a row on its way from one to the other. Knows no prompts and no pixels.

t = 0 is noise, t = 1 is data, and the model predicts v = data − noise. Noise, guidance and integration are fp32
whatever the dtype of the model.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from omnigen_actor.engine_settings import EXACT_INTERVAL
from omnigen_actor.model.condition import Condition


@dataclass(frozen=True, slots=True)
class Branch:
    """One guidance branch: its condition and its weight in the guided velocity. ``is_full`` is that of the prompt."""

    condition: Condition
    weight: float
    is_full: bool = False


@dataclass(frozen=True, slots=True)
class StepMemory:
    """What step caching keeps of the last step that was computed in full: residuals of the first and later blocks."""

    first: Tensor
    later: Tensor


@dataclass(slots=True, kw_only=True)
class Row:
    """One image on its way: what changes is ``patches``, in place, and ``step``.

    ``patches``: (N, patch² · channels), fp32. ``height`` and ``width`` are latent cells. ``shift`` and ``scale``: the
    output norm's, (T, C). ``guided``: the times between which all branches count; elsewhere the full branch alone does,
    where the row has one, which is an approximation unless the times are all.
    """

    patches: Tensor
    height: int
    width: int
    times: tuple[float, ...]
    shift: Tensor
    scale: Tensor
    branches: tuple[Branch, ...]
    guided: tuple[float, float] = EXACT_INTERVAL
    step: int = 0
    memory: StepMemory | None = None

    @property
    def num_tokens(self) -> int:
        """Image tokens of one branch."""
        return len(self.patches)

    @property
    def is_finished(self) -> bool:
        """Whether all steps are done."""
        return self.step == len(self.times) - 1

    def branches_at(self, step: int) -> tuple[Branch, ...]:
        """The branches that count in that step; outside the guided interval the full one alone, with weight 1."""
        if self.guided[0] <= self.times[step] <= self.guided[1]:
            return self.branches
        return tuple(Branch(b.condition, 1.0, is_full=True) for b in self.branches if b.is_full) or self.branches

    @property
    def stretch(self) -> int:
        """Steps from here for which the same branches count."""
        num_branches = len(self.branches_at(self.step))
        last = self.step
        while last < len(self.times) - 1 and len(self.branches_at(last)) == num_branches:
            last += 1
        return last - self.step

    def advance(self, velocity: Tensor) -> None:
        """One Euler step along a guided velocity, (N, patch² · channels)."""
        self.patches.add_(velocity, alpha=self.times[self.step + 1] - self.times[self.step])
        self.step += 1


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


def guide(weights: Sequence[float], velocities: Sequence[Tensor]) -> Tensor:
    """The guided velocity: a weighted sum in fp32."""
    guided = velocities[0] * weights[0]
    for weight, velocity in zip(weights[1:], velocities[1:], strict=True):
        guided.add_(velocity, alpha=weight)
    return guided


def noise(seed: int, channels: int, height: int, width: int) -> Tensor:
    """Standard normal (channels, height, width) in fp32, drawn on the CPU: the same on every device."""
    generator = torch.Generator("cpu").manual_seed(seed)
    return torch.randn(channels, height, width, generator=generator, dtype=torch.float32)
