"""Engines that leave a line for each image that they begin, so that work done twice can be counted. Know no chaos.

What to be comes from the environment, as an engine of one's own gets nothing but device, dtype and threads.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from omnigen_actor.engine_settings import EngineSettings
from omnigen_actor.engines import open_engine
from omnigen_actor.types import Outcome, Request, Wave, ignore_step

DIARY = "OMNIGEN_CHAOS_DIARY"
"""The file that gets the lines."""

MODEL = "OMNIGEN_CHAOS_MODEL"
"""The model of the engine that does the work."""

NAME = "benchmarks.chaos_engine:CountingEngine"


class CountingEngine:
    """Another engine, one request at a time, each after a line ``id#sample``."""

    def __init__(self, *, device: str, dtype: str, cpu_threads: int) -> None:
        settings = EngineSettings(device=device, dtype=dtype, cpu_threads=cpu_threads)
        self._engine = open_engine(os.environ[MODEL], settings)
        self.info = self._engine.info
        self.on_step: Callable[[], None] = ignore_step

    def generate(self, requests: Sequence[Request]) -> Iterator[Outcome]:
        """Yield exactly one outcome per request, in order."""
        for request in requests:
            note(f"{request.id}#{request.sample}")
            yield from self._engine.generate([request])
            self.on_step()

    def take_waves(self) -> list[Wave]:
        """What the waves of the other engine took."""
        return self._engine.take_waves()

    def close(self) -> None:
        """Free the other engine."""
        self._engine.close()


def note(line: str) -> None:
    """Add a line in one write, which no other process can come between."""
    descriptor = os.open(os.environ[DIARY], os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    try:
        os.write(descriptor, f"{line}\n".encode())
    finally:
        os.close(descriptor)


def counted(diary: Path) -> Counter[str]:
    """How often each image was begun."""
    return Counter(diary.read_text().splitlines()) if diary.exists() else Counter()
