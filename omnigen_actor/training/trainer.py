"""A network in training: optimizers, average, schedule; a step; all of its state. Knows no data set and no Ray."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from omnigen_actor import seeding
from omnigen_actor.model.prompt import Tokenize
from omnigen_actor.training.average import WeightAverage
from omnigen_actor.training.flow import Dropout, Example, Noiser, flow_loss
from omnigen_actor.training.low_rank import is_factor
from omnigen_actor.training.muon import Muon, split_parameters
from omnigen_actor.training.network import Network, trainable
from omnigen_actor.training.schedule import share_of_rate

Reduce = Callable[[Sequence[Tensor]], None]
"""Averages gradients over all workers, in place."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FlowRecipe:
    """How a network is trained. A step takes ``num_rows`` examples with ``targets_per_row`` noisy targets each.

    ``muon_rate`` is for the blocks' matrices; 0 gives them to AdamW too, which always has low-rank factors.
    ``decay_share``: the part of all steps over which rates fall.
    """

    num_steps: int
    num_rows: int = 16
    targets_per_row: int = 4
    muon_rate: float = 3e-3
    adam_rate: float = 3e-3
    weight_decay: float = 0.0
    decay_share: float = 0.5
    average: float = 0.998
    clip: float = 1.0
    seed: int = 0
    dropout: Dropout = field(default_factory=Dropout)


class FlowTrainer:
    """``step`` counts the steps that are done. The same examples and recipe give the same weights, however often the
    training is cut off and restored.
    """

    def __init__(
        self,
        network: Network,
        tokenize: Tokenize,
        recipe: FlowRecipe,
        *,
        worker: int = 0,
        reduce: Reduce | None = None,
    ) -> None:
        """``worker``: which of several this is, each with noise of its own; ``reduce`` makes their gradients one."""
        self.network, self.recipe, self.step = network, recipe, 0
        self.average = WeightAverage(network, recipe.average)
        self._worker, self._reduce = worker, reduce
        self._noiser = Noiser(tokenize, recipe.dropout, torch.Generator())
        matrices, others = split_parameters(network, lambda name: recipe.muon_rate > 0 and _is_matrix(name))
        adam = torch.optim.AdamW(others, recipe.adam_rate, betas=(0.9, 0.98), weight_decay=recipe.weight_decay)
        self._optimizers: list[tuple[torch.optim.Optimizer, float]] = [(adam, recipe.adam_rate)]
        if matrices:
            muon = Muon(matrices, recipe.muon_rate, weight_decay=recipe.weight_decay)
            self._optimizers.append((muon, recipe.muon_rate))

    def train(self, examples: Sequence[Example]) -> float:
        """One step; its loss."""
        recipe = self.recipe
        # Noise and times follow from the step: there is no other state of chance to save.
        self._noiser.generator.manual_seed(seeding.row_seed(recipe.seed, f"training worker {self._worker}", self.step))
        rows, velocities = self._noiser.rows(examples, recipe.targets_per_row)
        share = share_of_rate(self.step, recipe.num_steps, recipe.decay_share)
        for optimizer, rate in self._optimizers:
            for group in optimizer.param_groups:
                group["lr"] = rate * share
            optimizer.zero_grad(set_to_none=True)
        loss = flow_loss(self.network, rows, velocities)
        loss.backward()  # type: ignore[no-untyped-call]
        if self._reduce:
            self._reduce([one.grad for one in trainable(self.network) if one.grad is not None])
        nn.utils.clip_grad_norm_(trainable(self.network), recipe.clip)
        for optimizer, _ in self._optimizers:
            optimizer.step()
        self.average.update(self.network)
        self.step += 1
        return loss.item()

    @torch.no_grad()
    def validate(self, examples: Sequence[Example], *, seed: int = 0) -> float:
        """The loss of the averaged weights, with the same noise and times at every call, and nothing left out."""
        none = Dropout(negative=0.0, images_only=0.0, words=0.0)
        noiser = Noiser(lambda _: (), none, torch.Generator().manual_seed(seed))
        parts = [examples[start : start + 32] for start in range(0, len(examples), 32)]
        with self.average.in_place(self.network):
            losses = [float(flow_loss(self.network, *noiser.rows(part, 1))) * len(part) for part in parts]
        return sum(losses) / len(examples)

    def state(self) -> dict[str, Any]:
        """All that goes on from here: live tensors, to be saved or copied before the next step."""
        return {
            "weights": {name: one.detach() for name, one in self._trainable()},
            "average": dict(self.average.tensors),
            "optimizers": [optimizer.state_dict() for optimizer, _ in self._optimizers],
            "step": self.step,
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Go on from ``state``."""
        with torch.no_grad():
            for name, parameter in self._trainable():
                parameter.copy_(state["weights"][name])
        self.average.load(state["average"], state["step"])
        for (optimizer, _), saved in zip(self._optimizers, state["optimizers"], strict=True):
            optimizer.load_state_dict(saved)
        self.step = state["step"]

    def _trainable(self) -> Iterator[tuple[str, nn.Parameter]]:
        return ((name, one) for name, one in self.network.named_parameters() if one.requires_grad)


def _is_matrix(name: str) -> bool:
    """Whether Muon may turn it. A factor is none: what counts is B A, and turning one of them is not turning that."""
    return name.startswith("layers.") and not is_factor(name)
