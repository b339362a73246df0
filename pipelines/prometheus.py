"""What waves took, as metrics of Ray, which Prometheus reads from every node. Knows no rows and no store.

Ray puts ``ray_`` before each name and ``_total`` after that of a counter, and adds the node and the worker as labels.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import TYPE_CHECKING

from omnigen_actor.metrics import PHASES
from omnigen_actor.types import Wave

if TYPE_CHECKING:
    from ray.util.metrics import Counter, Histogram

COUNTERS = {
    "omnigen_waves": "waves: stretches of steps with the same rows",
    "omnigen_steps": "denoising steps of waves",
    "omnigen_tokens": "tokens, by phase: prefill, or step (image tokens of all branches, once for each step)",
    "omnigen_capacity": "image tokens that the steps of waves had room for",
    "omnigen_seconds": "engine seconds, by phase: encode, prefill, step, decode",
}
BY_PHASE = ("omnigen_tokens", "omnigen_seconds")
OCCUPANCY = "omnigen_wave_occupancy"
OCCUPANCY_BUCKETS = [0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0]


def observe(waves: Sequence[Wave]) -> None:
    """Count these waves in. Called inside an actor, whose worker then reports them."""
    for wave in waves:
        _occupancy().observe(wave.occupancy)
        _add("omnigen_waves", 1)
        _add("omnigen_steps", wave.num_steps)
        _add("omnigen_tokens", wave.num_prefill_tokens, phase="prefill")
        _add("omnigen_tokens", wave.num_tokens * wave.num_steps, phase="step")
        _add("omnigen_capacity", wave.capacity * wave.num_steps)
        for phase in PHASES:
            _add("omnigen_seconds", getattr(wave, f"{phase}_seconds"), phase=phase)


def _add(name: str, value: float, **tags: str) -> None:
    if value > 0:  # Ray refuses to add nothing
        _counter(name).inc(value, tags=tags)


@cache
def _counter(name: str) -> Counter:
    from ray.util.metrics import Counter

    return Counter(name, description=COUNTERS[name], tag_keys=("phase",) if name in BY_PHASE else ())


@cache
def _occupancy() -> Histogram:
    from ray.util.metrics import Histogram

    return Histogram(OCCUPANCY, description="share of a wave's capacity that was used", boundaries=OCCUPANCY_BUCKETS)
