"""Step caching: an approximation, off by default. Leaves out all blocks but the first where that one hardly changed.

The first block's residual tells how much a step differs from the last one that was computed in full. If it changed by
less than the threshold, in the mean over a row's tokens and relative to its size, the residual of all other blocks is
taken from that step (first-block caching, as ParaAttention has it). Each row decides for itself, whatever rows are
beside it. Knows no attention and no guidance.

Tensor suffixes: M packed tokens, C hidden.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from omnigen_actor.model.sampler import Row, StepMemory

Span = tuple[int, slice]
"""A row's index, and where the tokens of one of its branches lie."""

RunLater = Callable[[Tensor, Sequence[Row]], Tensor]
"""(output of the first block, rows) -> output of the last block, for the tokens of these rows alone."""


@dataclass(frozen=True, slots=True)
class StepCache:
    """``threshold``: the relative change of the first block's residual under which a step is not computed in full."""

    threshold: float

    def finish(
        self, rows: Sequence[Row], spans: Sequence[Span], hidden_MC: Tensor, first_MC: Tensor, run_later: RunLater
    ) -> Tensor:
        """The last block's output, from the first block's input and output; computed for the rows that need it.

        Waits for the device once, to learn which rows these are.
        """
        residual = first_MC - hidden_MC
        changed = self._changed(rows, spans, residual)
        if changed:
            tokens = _of(spans, changed, first_MC)
            later = run_later(tokens.clone(), [rows[index] for index in changed]) - tokens
            _remember(rows, spans, changed, residual, later)
        out = torch.empty_like(first_MC)
        for index, row in enumerate(rows):
            assert row.memory is not None
            _put(out, spans, index, _of(spans, [index], first_MC) + row.memory.later)
        return out

    def _changed(self, rows: Sequence[Row], spans: Sequence[Span], residual: Tensor) -> list[int]:
        """The rows that must be computed in full."""
        changes = []
        for index, row in enumerate(rows):
            own = _of(spans, [index], residual).float()
            if row.memory is None or row.memory.first.shape != own.shape:
                changes.append(own.new_tensor(torch.inf))
            else:
                before = row.memory.first.float()
                changes.append((own - before).abs().mean() / before.abs().mean())
        # A change that is not a number counts as one: the result then shows it.
        return [index for index, change in enumerate(torch.stack(changes).tolist()) if not change < self.threshold]


def _remember(
    rows: Sequence[Row], spans: Sequence[Span], changed: Sequence[int], residual: Tensor, later: Tensor
) -> None:
    """``later`` holds the tokens of the changed rows alone, in the order of the pack."""
    kept = [(index, part) for index, part in spans if index in changed]
    pieces = list(
        zip((index for index, _ in kept), torch.split(later, [part.stop - part.start for _, part in kept]), strict=True)
    )
    for index in changed:
        own = torch.cat([piece for owner, piece in pieces if owner == index])
        rows[index].memory = StepMemory(_of(spans, [index], residual), own)


def _of(spans: Sequence[Span], indices: Sequence[int], packed: Tensor) -> Tensor:
    """The tokens of some rows, in the order of the pack."""
    return torch.cat([packed[part] for index, part in spans if index in indices])


def _put(packed: Tensor, spans: Sequence[Span], index: int, tokens: Tensor) -> None:
    parts = [packed[part] for owner, part in spans if owner == index]
    torch._foreach_copy_(parts, list(torch.split(tokens, [len(part) for part in parts])))
