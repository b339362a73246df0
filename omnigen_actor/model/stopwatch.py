"""What the phases of a wave take, on the device's own clock. Never waits for the device while it runs."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import torch


@dataclass(slots=True)
class Lap:
    """One stretch of work: on a GPU between two events of the current stream, elsewhere by the wall clock."""

    device: torch.device
    _seconds: float = 0.0
    _events: tuple[torch.cuda.Event, torch.cuda.Event] | None = None

    def seconds(self) -> float:
        """What it took. On a GPU this waits until the work is done."""
        if self._events is not None:
            started, stopped = self._events
            stopped.synchronize()
            self._seconds, self._events = started.elapsed_time(stopped) / 1000, None
        return self._seconds

    @contextmanager
    def running(self) -> Iterator[None]:
        """Measure the block."""
        if self.device.type != "cuda":
            started = time.perf_counter()
            yield
            self._seconds = time.perf_counter() - started
            return
        events = _event(), _event()
        events[0].record()
        yield
        events[1].record()
        self._events = events


@dataclass(slots=True)
class Stopwatch:
    """The laps of each phase since they were last taken."""

    device: torch.device
    _laps: dict[str, list[Lap]] = field(default_factory=dict)

    @contextmanager
    def lap(self, phase: str) -> Iterator[None]:
        """Measure the block as part of ``phase``; nothing is counted for one that raises."""
        lap = Lap(self.device)
        with lap.running():
            yield
        self._laps.setdefault(phase, []).append(lap)

    def take(self, phase: str) -> list[Lap]:
        """The laps of a phase, which are forgotten here."""
        return self._laps.pop(phase, [])


def _event() -> torch.cuda.Event:
    event: torch.cuda.Event = torch.cuda.Event(enable_timing=True)  # type: ignore[no-untyped-call]
    return event
