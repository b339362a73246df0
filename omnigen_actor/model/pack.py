"""One denoising step of several rows as one packed pass. Knows no queue, no memory and no pixels.

Everything that a step needs and that does not change from step to step is laid out once: which token belongs to which
branch, rotary tables, positions, where keys and values lie. A step then neither waits for the device nor builds masks.

Tensor suffixes: M packed tokens of all branches, S packed keys, C hidden, H heads, G key/value heads, D head size.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate

import torch
from torch import Tensor

from omnigen_actor.model.attention import Kernel, Layout
from omnigen_actor.model.sampler import Branch, Row, guide
from omnigen_actor.model.step_cache import StepCache
from omnigen_actor.model.transformer import Transformer


@dataclass(frozen=True, slots=True)
class _Slot:
    """One branch of one row, and where its tokens and keys lie in the pack."""

    row: int
    branch: Branch
    tokens: slice
    keys: slice


class Pack:
    """Rows that step together. It holds for as long as their branches stay the same."""

    def __init__(
        self, transformer: Transformer, rows: Sequence[Row], kernel: Kernel, cache: StepCache | None = None
    ) -> None:
        self._transformer = transformer
        self._rows = rows
        self._kernel = kernel
        self._cache = cache
        self._slots = _slots(rows)
        device = transformer.device
        self._layout = Layout.of(
            [_length(slot.tokens) for slot in self._slots], [_length(slot.keys) for slot in self._slots], device
        )
        tables = [slot.branch.condition.image_rotary(transformer, _length(slot.tokens)) for slot in self._slots]
        self._rotary = (torch.cat([cos for cos, _ in tables]), torch.cat([sin for _, sin in tables]))
        self._positions = torch.cat([_positions(transformer, row) for row in rows])
        self._row_of_token, self._patch_of_token = self._indices(device)
        config = transformer.config
        num_keys = self._slots[-1].keys.stop
        self._key, self._value = torch.empty(
            2, num_keys, config.num_kv_heads, config.head_size, device=device, dtype=transformer.dtype
        ).unbind()
        homes = [_homes(slot, packed) for packed in (self._key, self._value) for slot in self._slots]
        self._given_homes = [home for one in homes for home in one[:-1]]
        self._own_homes = [one[-1] for one in homes]
        self._own_keys = self._key_of_token(device) if device.type == "cuda" else None

    @property
    def num_tokens(self) -> int:
        """Packed image tokens of a step."""
        return int(self._slots[-1].tokens.stop)

    @property
    def num_branches(self) -> int:
        """Branches of all rows."""
        return len(self._slots)

    def step(self) -> None:
        """One Euler step of every row. The rows change only once every velocity is there."""
        for row, velocity in zip(self._rows, self._velocities(), strict=True):
            row.advance(velocity)

    def _velocities(self) -> list[Tensor]:
        """One guided velocity (N, patch² · channels) per row."""
        hidden = self._run_blocks(self._embed())
        shift = torch.stack([row.shift[row.step] for row in self._rows])[self._row_of_token]
        scale = torch.stack([row.scale[row.step] for row in self._rows])[self._row_of_token]
        patches = self._transformer.project_out(hidden, shift, scale)
        own: list[list[_Slot]] = [[] for _ in self._rows]
        for slot in self._slots:
            own[slot.row].append(slot)
        return [guide([s.branch.weight for s in slots], [patches[s.tokens] for s in slots]) for slots in own]

    def _embed(self) -> Tensor:
        """The noisy images' tokens, once for each branch: the branches differ only in what they attend to."""
        patches = torch.cat([row.patches for row in self._rows])
        return self._transformer.embed_patches(patches, self._positions)[self._patch_of_token]

    def _run_blocks(self, hidden: Tensor) -> Tensor:
        if self._cache is None:
            return self._blocks(hidden, 0)
        first = self._block(0, hidden.clone())
        spans = [(slot.row, slot.tokens) for slot in self._slots]
        return self._cache.finish(self._rows, spans, hidden, first, self._later_blocks)

    def _later_blocks(self, first: Tensor, rows: Sequence[Row]) -> Tensor:
        """The blocks after the first, for some of the rows; ``first`` holds their tokens alone, in the pack's order."""
        if len(rows) == len(self._rows):
            return self._blocks(first, 1)
        return Pack(self._transformer, rows, self._kernel)._blocks(first, 1)

    def _blocks(self, hidden: Tensor, start: int) -> Tensor:
        for layer in range(start, self._transformer.config.num_layers):
            hidden = self._block(layer, hidden)
        return hidden

    def _block(self, layer: int, hidden: Tensor) -> Tensor:
        blocks = self._transformer.blocks
        query, key, value = blocks.project(layer, hidden, self._rotary)
        self._lay_out(layer, key, value)
        return blocks.finish(layer, hidden, self._kernel(query, self._key, self._value, self._layout))

    def _lay_out(self, layer: int, key_MGD: Tensor, value_MGD: Tensor) -> None:
        """What the branches attend to in one layer: prefix, this step's time token, their own tokens.

        On a GPU this takes three kernels, however many branches there are.
        """
        given: list[Tensor] = []
        for kind in (0, 1):
            for slot in self._slots:
                condition, step = slot.branch.condition, self._rows[slot.row].step
                given += [part[layer, kind] for part in condition.parts]
                given.append(condition.times[layer, kind, step : step + 1])
        torch._foreach_copy_(self._given_homes, given)
        if self._own_keys is not None:
            self._key.index_copy_(0, self._own_keys, key_MGD)
            self._value.index_copy_(0, self._own_keys, value_MGD)
        else:
            own = [packed[slot.tokens] for packed in (key_MGD, value_MGD) for slot in self._slots]
            torch._foreach_copy_(self._own_homes, own)

    def _key_of_token(self, device: torch.device) -> Tensor:
        """Where each packed token's own key lies."""
        own = [torch.arange(slot.keys.stop - _length(slot.tokens), slot.keys.stop) for slot in self._slots]
        return torch.cat(own).to(device)

    def _indices(self, device: torch.device) -> tuple[Tensor, Tensor]:
        """For each packed token its row, and its place among the patches of all rows."""
        firsts = [0, *accumulate(row.num_tokens for row in self._rows)]
        rows = [torch.full((_length(slot.tokens),), slot.row) for slot in self._slots]
        patches = [torch.arange(firsts[slot.row], firsts[slot.row + 1]) for slot in self._slots]
        return torch.cat(rows).to(device), torch.cat(patches).to(device)


def _slots(rows: Sequence[Row]) -> list[_Slot]:
    """All branches of all rows, those of equal shape side by side, so that one call of a kernel can take them."""
    branches = [(index, branch) for index, row in enumerate(rows) for branch in row.branches_at(row.step)]
    sized = [(rows[index].num_tokens, branch.condition.num_prefix, index, branch) for index, branch in branches]
    found: list[_Slot] = []
    token = key = 0
    for num_tokens, num_prefix, index, branch in sorted(sized, key=lambda one: one[:2]):
        last_token, last_key = token + num_tokens, key + num_prefix + 1 + num_tokens
        found.append(_Slot(index, branch, slice(token, last_token), slice(key, last_key)))
        token, key = last_token, last_key
    return found


def _homes(slot: _Slot, packed_SGD: Tensor) -> tuple[Tensor, ...]:
    """Views of one branch's packed keys or values: the stretches of its prefix, the time token, its own tokens."""
    prefix = [part.shape[2] for part in slot.branch.condition.parts]
    return torch.split(packed_SGD[slot.keys], [*prefix, 1, _length(slot.tokens)])


def _positions(transformer: Transformer, row: Row) -> Tensor:
    patch = transformer.config.patch_size
    return transformer.crop_positions(row.height // patch, row.width // patch)


def _length(part: slice) -> int:
    return int(part.stop - part.start)
