"""How many rows may share a wave: a bound on tokens, rows and bytes. Knows how large things are, not what they are.

Matrix products are at their full rate from a few thousand packed tokens on; more only takes memory. The bytes are an
estimate on the safe side, and a wave that does not fit in spite of it is split.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import torch

from omnigen_actor.engine_settings import EngineSettings
from omnigen_actor.model.prepare import Planned
from omnigen_actor.model.transformer import Transformer

WAVE_TOKENS = 8192
KEPT_BYTES = 2 * 2**30
USABLE = 0.92
"""Share of the free memory that is planned with; the rest is for fragments and what libraries take by themselves."""


@dataclass(frozen=True, slots=True)
class Need:
    """What one row takes of a wave."""

    num_tokens: int
    num_bytes: int


@dataclass(slots=True)
class Budget:
    """Bounds of a wave. ``num_bytes`` None: the device's memory is not ours to count."""

    num_tokens: int
    num_rows: int | None = None
    num_bytes: int | None = None

    def fits(self, active: Iterable[Need], new: Need) -> bool:
        """Whether a row may join. The first one always may: if it does not fit, nothing will make it."""
        needs = [*active, new]
        if len(needs) == 1:
            return True
        return (
            sum(need.num_tokens for need in needs) <= self.num_tokens
            and (self.num_rows is None or len(needs) <= self.num_rows)
            and (self.num_bytes is None or sum(need.num_bytes for need in needs) <= self.num_bytes)
        )

    def capacity(self, num_rows: int, num_tokens: int) -> int:
        """How many tokens a wave of so many rows and tokens could have had: no more, where it has all its rows."""
        return num_tokens if self.num_rows is not None and num_rows >= self.num_rows else self.num_tokens

    def shrink(self, num_tokens: int) -> None:
        """A wave of that many tokens did not fit: plan with half of it from now on."""
        self.num_tokens = max(1, min(self.num_tokens, num_tokens // 2))  # every split plans less: it comes to an end


class Sizes:
    """Estimates of what a row takes of one loaded model's device."""

    def __init__(self, transformer: Transformer) -> None:
        config, item = transformer.config, transformer.dtype.itemsize
        self._cached_token = transformer.bytes_per_cached_token
        self._key_token = 2 * config.num_kv_heads * config.head_size * item
        # hidden, normalised, attended, fused q/k/v, fused gate/up and their temporary copies
        self._packed_token = item * (2 * transformer.activations_per_token) + 4 * config.head_size * 2

    def need(self, planned: Planned) -> Need:
        """What a planned row takes while it is in a wave."""
        packed, cached = planned.num_packed_tokens, planned.num_cached_tokens
        num_bytes = cached * (self._cached_token + self._key_token)
        num_bytes += packed * (self._packed_token + self._key_token)
        return Need(packed, num_bytes)


def make_budget(device: torch.device, settings: EngineSettings, largest_decode: int) -> Budget:
    """The budget of an engine whose weights are loaded. ``largest_decode``: bytes to keep free for the autoencoder.

    On a CPU a wave is one row unless the settings say otherwise: packing rows together changes the rounding there.
    """
    if device.type != "cuda":
        return Budget(settings.wave_tokens or WAVE_TOKENS, settings.rows_per_wave or 1)
    free, _ = torch.cuda.mem_get_info(device)
    held = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
    if settings.memory_gib is not None:
        free = min(free, int(settings.memory_gib * 2**30) - torch.cuda.memory_reserved(device))
    usable = int((free + held) * USABLE) - largest_decode - kept_bytes(device)
    return Budget(settings.wave_tokens or WAVE_TOKENS, settings.rows_per_wave, max(usable, 0))


def kept_bytes(device: torch.device) -> int:
    """How much of the conditions of recent prompts is kept, for further samples and further edits of one image."""
    if device.type != "cuda":
        return KEPT_BYTES
    return min(KEPT_BYTES, int(torch.cuda.get_device_properties(device).total_memory) // 32)


def limit_memory(device: torch.device, settings: EngineSettings) -> None:
    """Keep this process below ``memory_gib`` of the device's memory."""
    if device.type == "cuda" and settings.memory_gib is not None:
        total = torch.cuda.get_device_properties(device).total_memory
        fraction = min(1.0, settings.memory_gib * 2**30 / total)
        torch.cuda.set_per_process_memory_fraction(fraction, device.index)  # a device without an index is refused
