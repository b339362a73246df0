"""Where every seed comes from: content, never position. Knows nothing of torch and keeps no state."""

from __future__ import annotations

import hashlib

_MASK_63 = 2**63 - 1


def row_seed(run_seed: int, row_id: str, sample: int) -> int:
    """The seed of a row that names none: 63 bits of sha256 over (run seed, id, sample)."""
    return _digest(f"row\0{run_seed}\0{row_id}\0{sample}")


def sample_seed(seed: int, sample: int) -> int:
    """The seed of one sample of a row that names a seed: the seed itself for sample 0, derived from it for others."""
    return seed if sample == 0 else _digest(f"sample\0{seed}\0{sample}")


def _digest(text: str) -> int:
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "little") & _MASK_63
