"""Longrope's angles: positions -> cos and sin, in the short or the long regime. Knows no sequences.

Source: microsoft/LongRoPE as Phi-3 has it; diffusers models/transformers/transformer_omnigen.py.
"""

from __future__ import annotations

import math
from typing import Protocol

import torch
from torch import Tensor


class RotaryConfig(Protocol):
    """What the angles depend on."""

    @property
    def head_size(self) -> int: ...
    @property
    def max_position_embeddings(self) -> int: ...
    @property
    def original_max_position_embeddings(self) -> int: ...
    @property
    def rope_base(self) -> float: ...
    @property
    def short_factor(self) -> tuple[float, ...]: ...
    @property
    def long_factor(self) -> tuple[float, ...]: ...


def rotary_table(config: RotaryConfig, positions: Tensor, *, long: bool) -> tuple[Tensor, Tensor]:
    """fp32 cos and sin, each (*positions.shape, head size / 2), scaled as longrope scales attention."""
    angles = positions.float()[..., None] * _frequencies(config, positions.device, long=long)
    scale = _attention_scale(config)
    return angles.cos() * scale, angles.sin() * scale


def _frequencies(config: RotaryConfig, device: torch.device, *, long: bool) -> Tensor:
    dim = config.head_size
    exponents = torch.arange(0, dim, 2, dtype=torch.float32, device=device) / dim
    factors = torch.tensor(config.long_factor if long else config.short_factor, dtype=torch.float32, device=device)
    return 1.0 / (factors * config.rope_base**exponents)


def _attention_scale(config: RotaryConfig) -> float:
    original = config.original_max_position_embeddings
    scale = config.max_position_embeddings / original
    return 1.0 if scale <= 1.0 else math.sqrt(1 + math.log(scale) / math.log(original))
