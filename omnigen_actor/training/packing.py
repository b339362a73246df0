"""Rows with several noisy targets -> one padded batch, in which the targets of a row share its prefix.

Exact: prefix tokens do not see what is noisy, so one prefix serves all targets (see docs/engine.md). Knows no weights.

Tensor suffixes: B rows, L places of the padded sequence, M tokens, T targets.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor

from omnigen_actor.model.prompt import ImageSpan, Segment, Text


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainingRow:
    """A prompt in segments, the latents (channels, h, w) of its input images, and noisy latents with their times."""

    segments: tuple[Segment, ...]
    inputs: tuple[Tensor, ...]
    noisy: Tensor
    """(targets, channels, h, w)"""

    times: Tensor
    """(targets,), 0 noise … 1 image"""


@dataclass(frozen=True, slots=True, kw_only=True)
class PackedBatch:
    """What the network reads. Places count through the flattened (B · L); cells through the 2-D position table.

    ``noisy_targets`` is the number of the target that a noisy token is of; ``num_positions`` the length of one branch.
    """

    ids: Tensor
    is_text: Tensor
    positions: Tensor
    num_positions: Tensor
    mask: Tensor
    input_patches: Tensor
    input_cells: Tensor
    input_places: Tensor
    noisy_patches: Tensor
    noisy_cells: Tensor
    noisy_places: Tensor
    noisy_targets: Tensor
    times: Tensor
    time_places: Tensor

    def to(self, device: torch.device) -> PackedBatch:
        """The same on a device."""
        return PackedBatch(**{one.name: getattr(self, one.name).to(device) for one in fields(self)})


def patchify(latents: Tensor, patch: int) -> Tensor:
    """Latents (T, channels, h, w) -> (T, tokens, patch² · channels); in a patch: row, column, channel."""
    num, channels, height, width = latents.shape
    grid = latents.reshape(num, channels, height // patch, patch, width // patch, patch)
    return grid.permute(0, 2, 4, 3, 5, 1).reshape(num, -1, patch * patch * channels)


def unpatchify(patches: Tensor, patch: int, height: int, width: int) -> Tensor:
    """Patches (T, tokens, patch² · channels) -> latents (T, channels, height, width): ``patchify`` undone."""
    grid = patches.reshape(len(patches), height // patch, width // patch, patch, patch, -1)
    return grid.permute(0, 5, 1, 3, 2, 4).reshape(len(patches), -1, height, width)


def pack(rows: Sequence[TrainingRow], patch: int, table_side: int) -> PackedBatch:
    """The rows padded on the right to the longest. ``table_side``: sides of the 2-D position table."""
    laid_out = [_lay_out(row, patch) for row in rows]
    length = max(len(one.ids) for one in laid_out)
    column = {name: torch.stack([_padded(getattr(one, name), length) for one in laid_out]) for name in _COLUMNS}
    firsts = torch.tensor([0, *(len(row.times) for row in rows)]).cumsum(0).tolist()
    targets = [tokens.copy[tokens.is_noisy] - 1 + first for tokens, first in zip(laid_out, firsts, strict=False)]
    inputs = [row.inputs[one.index] for row in rows for one in row.segments if isinstance(one, ImageSpan)]
    num_values = rows[0].noisy.shape[1] * patch**2
    return PackedBatch(
        ids=column["ids"],
        is_text=column["is_text"],
        positions=column["positions"],
        num_positions=torch.tensor([one.num_positions for one in laid_out]),
        mask=_mask(column),
        input_patches=torch.cat([torch.zeros(0, num_values), *(patchify(one[None], patch)[0] for one in inputs)]),
        input_cells=torch.cat([_NO_CELLS, *(_cells(one, patch, table_side) for one in inputs)]),
        input_places=_places(column["group"] > 0),
        noisy_patches=torch.cat([patchify(row.noisy, patch).flatten(0, 1) for row in rows]),
        noisy_cells=torch.cat([_cells(row.noisy[0], patch, table_side).repeat(len(row.times)) for row in rows]),
        noisy_places=_places(column["is_noisy"]),
        noisy_targets=torch.cat(targets),
        times=torch.cat([row.times for row in rows]),
        time_places=_places(column["is_time"]),
    )


_COLUMNS = ("ids", "is_text", "positions", "copy", "group", "is_noisy", "is_time", "is_there")


@dataclass(frozen=True, slots=True, kw_only=True)
class _Layout:
    """One row's tokens, each a tensor over its places. ``copy``: 0 for the prefix, else the target's number from 1.
    ``group``: the number of the input image from 1, 0 for none.
    """

    ids: Tensor
    is_text: Tensor
    positions: Tensor
    copy: Tensor
    group: Tensor
    is_noisy: Tensor
    is_time: Tensor
    is_there: Tensor
    num_positions: int


def _lay_out(row: TrainingRow, patch: int) -> _Layout:
    ids: list[int] = []
    group: list[int] = []
    for number, segment in enumerate(row.segments, 1):
        if isinstance(segment, Text):
            ids += segment.ids
            group += [0] * len(segment.ids)
        else:
            num_tokens = _num_tokens(row.inputs[segment.index], patch)
            ids += [0] * num_tokens
            group += [number] * num_tokens
    num_prefix, num_targets = len(ids), len(row.times)
    num_noisy = _num_tokens(row.noisy[0], patch)
    one = 1 + num_noisy
    prefix_copy = torch.zeros(num_prefix, dtype=torch.long)
    copy = torch.cat((prefix_copy, torch.arange(1, num_targets + 1).repeat_interleave(one)))
    place_in_copy = torch.arange(one).repeat(num_targets)
    groups = F.pad(torch.tensor(group, dtype=torch.long), (0, one * num_targets))
    is_prefix = copy == 0
    return _Layout(
        ids=F.pad(torch.tensor(ids, dtype=torch.long), (0, one * num_targets)),
        is_text=is_prefix & (groups == 0),
        positions=torch.cat((torch.arange(num_prefix), num_prefix + place_in_copy)),
        copy=copy,
        group=groups,
        is_noisy=torch.cat((prefix_copy.bool(), place_in_copy > 0)),
        is_time=torch.cat((prefix_copy.bool(), place_in_copy == 0)),
        is_there=torch.ones(len(copy), dtype=torch.bool),
        num_positions=num_prefix + one,
    )


def _mask(column: dict[str, Tensor]) -> Tensor:
    """What may see what, (B, 1, L, L): the prefix is causal and two-sided within an image; a target sees the prefix and
    itself; its time token sees the prefix and itself alone. Padding sees itself, so that it stays finite.
    """
    copy, group, there = column["copy"], column["group"], column["is_there"]
    length = copy.shape[1]
    places = torch.arange(length)
    is_self = places[:, None] == places[None]
    before = places[:, None] >= places[None]
    same_image = (group[:, :, None] == group[:, None]) & (group > 0)[:, :, None]
    is_prefix = (copy == 0) & there
    sees_prefix = is_prefix[:, None] & (~is_prefix[:, :, None] | before | same_image)
    same_target = (copy[:, :, None] == copy[:, None]) & (copy > 0)[:, :, None] & column["is_noisy"][:, :, None]
    seen = (sees_prefix | same_target) & there[:, None] & there[:, :, None]
    return (seen | is_self)[:, None]


def _padded(values: Tensor, length: int) -> Tensor:
    return F.pad(values, (0, length - len(values)))


def _num_tokens(latent: Tensor, patch: int) -> int:
    return (latent.shape[-2] // patch) * (latent.shape[-1] // patch)


def _cells(latent: Tensor, patch: int, table_side: int) -> Tensor:
    """The places of an image's tokens in the middle of the 2-D table."""
    height, width = latent.shape[-2] // patch, latent.shape[-1] // patch
    top, left = (table_side - height) // 2, (table_side - width) // 2
    rows = torch.arange(top, top + height)[:, None] * table_side
    return (rows + torch.arange(left, left + width)).flatten()


def _places(chosen: Tensor) -> Tensor:
    return chosen.flatten().nonzero()[:, 0]


_NO_CELLS = torch.zeros(0, dtype=torch.long)
