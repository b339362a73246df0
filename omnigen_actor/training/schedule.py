"""The learning rate over a training run. Knows no optimizers."""

from __future__ import annotations

WARM_UP_STEPS = 20
LAST_SHARE = 0.03


def share_of_rate(step: int, num_steps: int, decay_share: float) -> float:
    """What part of the highest rate step ``step`` has, counted from 0: a short warm-up, constant, then linear decay.

    The decay takes the last ``decay_share`` of all steps and ends at LAST_SHARE.
    """
    warm = min(1.0, (step + 1) / WARM_UP_STEPS)
    left = (num_steps - step) / max(1.0, decay_share * num_steps)
    return warm * max(LAST_SHARE, min(1.0, left))
