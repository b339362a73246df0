"""Rectified flow: samples -> noisy targets at random times -> the loss of the network's velocities.

Source: OmniGen (arXiv 2409.11340) and Stable Diffusion 3 (arXiv 2403.03206): z = t · image + (1 - t) · noise, the
velocity is image - noise, t is logit-normal. Both guidance branches are trained with the prompts that sampling gives
them: the negative prompt, and the images alone. Knows no optimizer and no data set.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor

from omnigen_actor.model.prompt import (
    DEFAULT_NEGATIVE_PROMPT,
    ImageSpan,
    Segment,
    Text,
    Tokenize,
    images_only_prompt,
    segments,
)
from omnigen_actor.training.network import Network
from omnigen_actor.training.packing import TrainingRow, pack, patchify


@dataclass(frozen=True, slots=True, kw_only=True)
class Example:
    """One pair to learn: a prompt in segments, the latents of its input images, and the latent of its image."""

    segments: tuple[Segment, ...]
    inputs: tuple[Tensor, ...]
    target: Tensor


@dataclass(frozen=True, slots=True, kw_only=True)
class Dropout:
    """How often a condition is left out. ``negative``: share of steps that train the negative prompt, without images;
    ``images_only``: share of rows with images whose prompt is left out; ``words``: share of tokens that become unknown.
    """

    negative: float = 0.08
    images_only: float = 0.1
    words: float = 0.01


_MOST_CELLS = 2**14
"""Latent cells of targets that share one negative prompt: what attends grows with the square of it."""


class Noiser:
    """Makes training rows of examples; all that is random comes from its generator, which can be saved."""

    def __init__(self, tokenize: Tokenize, dropout: Dropout, generator: torch.Generator) -> None:
        self._tokenize, self._dropout, self.generator = tokenize, dropout, generator
        self._negative = segments(DEFAULT_NEGATIVE_PROMPT, tokenize)
        self._images_only: dict[int, tuple[Segment, ...]] = {}

    def rows(self, examples: Sequence[Example], targets_per_row: int) -> tuple[list[TrainingRow], Tensor]:
        """Training rows, and the velocities that are right: (targets, channels, h, w), in the order of the rows.

        In a step of the negative prompt all examples are targets of that prompt.
        """
        if self._chance(self._dropout.negative):
            return self._negative_rows(examples, targets_per_row)
        rows, velocities = [], []
        for example in examples:
            noisy, times, velocity = self._noised(example.target.expand(targets_per_row, -1, -1, -1))
            prompt = self._dropped(example)
            rows.append(TrainingRow(segments=prompt, inputs=example.inputs, noisy=noisy, times=times))
            velocities.append(velocity)
        return rows, torch.cat(velocities)

    def _negative_rows(self, examples: Sequence[Example], targets_per_row: int) -> tuple[list[TrainingRow], Tensor]:
        """The targets of all examples under the negative prompt: as many share one as attention can bear."""
        targets = torch.stack([example.target for example in examples])
        noisy, times, velocity = self._noised(targets.repeat_interleave(targets_per_row, dim=0))
        num_shared = max(targets_per_row, _MOST_CELLS // targets[0, 0].numel())
        parts = zip(torch.split(noisy, num_shared), torch.split(times, num_shared), strict=True)
        return [TrainingRow(segments=self._negative, inputs=(), noisy=z, times=t) for z, t in parts], velocity

    def _noised(self, targets: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        times = torch.randn(len(targets), generator=self.generator).sigmoid()
        noise = torch.randn(targets.shape, generator=self.generator)
        shares = times[:, None, None, None]
        return shares * targets + (1 - shares) * noise, times, targets - noise

    def _dropped(self, example: Example) -> tuple[Segment, ...]:
        if example.inputs and self._chance(self._dropout.images_only):
            num_images = len(example.inputs)
            if num_images not in self._images_only:
                self._images_only[num_images] = segments(images_only_prompt(num_images), self._tokenize)
            return self._images_only[num_images]
        return tuple(one if isinstance(one, ImageSpan) else self._with_unknown(one) for one in example.segments)

    def _with_unknown(self, text: Text) -> Text:
        if not self._dropout.words:
            return text
        chances = torch.rand(len(text.ids), generator=self.generator).tolist()
        ids = (0 if chance < self._dropout.words else one for one, chance in zip(text.ids, chances, strict=True))
        return replace(text, ids=tuple(ids))

    def _chance(self, share: float) -> bool:
        return bool(torch.rand((), generator=self.generator) < share)


def flow_loss(network: Network, rows: Sequence[TrainingRow], velocities: Tensor) -> Tensor:
    """Mean squared error of the velocities of all noisy targets."""
    config = network.config
    device = network.get_parameter("norm.weight").device
    found = network(pack(rows, config.patch_size, config.pos_embed_max_size).to(device))
    return F.mse_loss(found, patchify(velocities, config.patch_size).flatten(0, 1).to(device))
