"""An exponential average of a model's trainable weights. Knows no model.

Not torch's AveragedModel, which copies what does not change too: with LoRA that is the whole model a second time.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor, nn


class WeightAverage:
    """One tensor for each trainable parameter. At first only (1 + n) / (10 + n) of it stays: it forgets fast."""

    def __init__(self, model: nn.Module, decay: float) -> None:
        self._decay = decay
        self.num_updates = 0
        self.tensors = {name: parameter.detach().clone() for name, parameter in _trainable(model)}

    @torch.no_grad()
    def update(self, model: nn.Module) -> None:
        """Take in the weights as they are now."""
        kept = min(self._decay, (1 + self.num_updates) / (10 + self.num_updates))
        self.num_updates += 1
        torch._foreach_lerp_(list(self.tensors.values()), [one for _, one in _trainable(model)], 1 - kept)

    @contextmanager
    def in_place(self, model: nn.Module) -> Iterator[None]:
        """The model with the average as its weights, for a while."""
        self._swap(model)
        try:
            yield
        finally:
            self._swap(model)

    def load(self, tensors: Mapping[str, Tensor], num_updates: int) -> None:
        """Go on from a saved average."""
        for name, tensor in tensors.items():
            self.tensors[name].copy_(tensor)
        self.num_updates = num_updates

    def _swap(self, model: nn.Module) -> None:
        for name, parameter in _trainable(model):
            parameter.data, self.tensors[name] = self.tensors[name], parameter.data


def _trainable(model: nn.Module) -> Iterator[tuple[str, nn.Parameter]]:
    return ((name, parameter) for name, parameter in model.named_parameters() if parameter.requires_grad)
