"""What waves took: their sum, one line of it for people, and JSON lines for the store. Knows no engine and no files."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, fields
from datetime import datetime

from omnigen_actor.types import Wave

PHASES = ("encode", "prefill", "step", "decode")
"""What an engine's seconds are spent on; a Wave has ``<phase>_seconds`` for each."""

_WAVE_FIELDS = [entry.name for entry in fields(Wave)]
_LEAST_WEIGHT = 1e-9  # of waves that took no time at all the occupancy is the plain mean


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineUse:
    """The sum of waves, of one engine or several.

    ``occupancy`` is their mean, weighted by ``step_seconds``. ``token_steps_per_second`` is packed image tokens × steps
    over ``step_seconds``: the rate of one engine, however many there were.
    """

    num_waves: int
    occupancy: float
    encode_seconds: float
    prefill_seconds: float
    step_seconds: float
    decode_seconds: float
    token_steps_per_second: float

    def __str__(self) -> str:
        """``steps 93 %, prefill 3 %, decode 3 %, encode 1 %; waves 88 % full``: shares of the engine's seconds."""
        seconds = {
            "steps": self.step_seconds,
            "prefill": self.prefill_seconds,
            "decode": self.decode_seconds,
            "encode": self.encode_seconds,
        }
        whole = sum(seconds.values()) or 1.0
        shares = ", ".join(f"{name} {100 * share / whole:.0f} %" for name, share in seconds.items())
        return f"{shares}; waves {100 * self.occupancy:.0f} % full"


def add_up(waves: Iterable[Wave]) -> EngineUse | None:
    """The sum of these waves, held one at a time; None of none."""
    num_waves = token_steps = 0
    weights = occupied = 0.0
    seconds: Counter[str] = Counter()
    for wave in waves:
        num_waves += 1
        token_steps += wave.num_tokens * wave.num_steps
        weight = max(wave.step_seconds, _LEAST_WEIGHT)
        weights += weight
        occupied += weight * wave.occupancy
        seconds.update({f"{phase}_seconds": getattr(wave, f"{phase}_seconds") for phase in PHASES})
    if not num_waves:
        return None
    return EngineUse(
        num_waves=num_waves,
        occupancy=occupied / weights,
        token_steps_per_second=token_steps / weights,
        **{f"{phase}_seconds": float(seconds[f"{phase}_seconds"]) for phase in PHASES},
    )


def to_jsonl(waves: Sequence[Wave], *, node: str, started_at: datetime, finished_at: datetime) -> bytes:
    """One line for each wave of a batch that ``node`` worked on between these times. Raises ValueError for a NaN."""
    batch = {"node": node, "started_at": started_at.isoformat(), "finished_at": finished_at.isoformat()}
    lines = [json.dumps({**asdict(wave), "occupancy": wave.occupancy, **batch}, allow_nan=False) for wave in waves]
    return "".join(line + "\n" for line in lines).encode()


def from_jsonl(data: bytes) -> list[Wave]:
    """The waves of ``to_jsonl``. Raises ValueError for anything else."""
    try:
        rows = [json.loads(line) for line in data.splitlines()]
        return [Wave(**{name: row[name] for name in _WAVE_FIELDS}) for row in rows]
    except (KeyError, TypeError) as error:
        raise ValueError(f"not a wave: {error}") from None
