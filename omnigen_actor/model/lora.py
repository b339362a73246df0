"""LoRA adapters merged into weights while these are loaded. Knows the low-rank sum, not where adapters come from.

A weight with adapters is W + Σ weight · scale · B A, summed in fp32 on the device and rounded once.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch
from torch import Tensor

from omnigen_actor.checkpoint.adapters import Adapter
from omnigen_actor.checkpoint.tensors import Place
from omnigen_actor.model.weights import Edit, read_weights


@dataclass(frozen=True, slots=True)
class _Delta:
    """``scale`` · b a, for the rows of one part. a is (rank, columns), b is (rows, rank), both fp32."""

    place: Place
    a: Tensor
    b: Tensor
    scale: float


@dataclass(frozen=True, slots=True)
class Merging:
    """The edits of all adapters, by canonical name, and the sha256 of the files that were read for them."""

    edits: dict[str, Edit]
    sha256: dict[Path, str]


def read_adapters(adapters: Sequence[Adapter], device: torch.device) -> Merging:
    """Read all adapters to the device. Raises ModelError for a damaged file."""
    deltas: dict[str, list[_Delta]] = {}
    sha256: dict[Path, str] = {}
    for adapter in adapters:
        read = read_weights(adapter.label, [adapter.weights], device, torch.float32)
        sha256 |= read.sha256
        for part in adapter.parts:
            a, b = read.tensors[part.name_a].flatten(1), read.tensors[part.name_b].flatten(1)
            deltas.setdefault(part.place.name, []).append(_Delta(part.place, a, b, adapter.weight * part.scale))
    return Merging({name: partial(_add, found) for name, found in deltas.items()}, sha256)


def _add(deltas: Sequence[_Delta], tensor: Tensor) -> None:
    for delta in deltas:
        rows = tensor.narrow(0, delta.place.first_row, delta.place.shape[0])
        rows.view(len(rows), -1).addmm_(delta.b, delta.a, alpha=delta.scale)
