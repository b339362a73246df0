"""Draws from a stream whose seed is content: what a sample is depends on its seed, task and index alone.

Only the stream's uniform and normal numbers are used: choices and orders made of them here stay the same when numpy
changes how it makes them.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import TypeVar

import numpy as np

T = TypeVar("T")

Rng = np.random.Generator


def stream(seed: int, task: str, index: int) -> Rng:
    """The stream of one sample: PCG64 seeded with sha256 over (seed, task, index)."""
    digest = hashlib.sha256(f"world\0{seed}\0{task}\0{index}".encode()).digest()
    return np.random.Generator(np.random.PCG64(int.from_bytes(digest[:16], "little")))


def pick(rng: Rng, items: Sequence[T]) -> T:
    """One of ``items``, all equally likely. There must be one."""
    return items[int(rng.random() * len(items))]


def shuffled(rng: Rng, items: Sequence[T]) -> list[T]:
    """``items`` in any order."""
    keys = rng.random(len(items))
    return [items[position] for position in np.argsort(keys, kind="stable")]


def between(rng: Rng, low: float, high: float) -> float:
    """A number from ``low`` to ``high``."""
    return low + (high - low) * rng.random()


def around(rng: Rng, most: float) -> float:
    """A number from -``most`` to ``most``."""
    return between(rng, -most, most)


def happens(rng: Rng, chance: float) -> bool:
    """True with that chance."""
    return rng.random() < chance
