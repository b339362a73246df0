"""Watchdog: ends a process whose batch shows no sign of life any more. Knows neither rows nor engines but by name.

A hung device never raises: its process would hold the GPU for ever. Whoever started the process starts it again. What
holds the interpreter's lock for ever also holds the watchdog: nothing in Python can help there.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

_log = logging.getLogger(__name__)

_LONGEST_POLL_S = 10.0
_MAX_NAMES = 20


class Watchdog:
    """A thread that calls ``leave(1)`` when a batch is running and was quiet for ``stall_timeout_s`` seconds.

    It sees that up to a tenth of the time later, at most 10 s. Between batches it never does anything.
    """

    def __init__(self, stall_timeout_s: float, leave: Callable[[int], object]) -> None:
        self._stall_timeout_s = stall_timeout_s
        self._leave = leave
        self._rows: Sequence[str] = ()
        self._is_running = False
        self._heard_at = 0.0  # monotonic
        self._closed = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="watchdog", daemon=True)
        self._thread.start()

    @contextmanager
    def watching(self, rows: Sequence[str]) -> Iterator[None]:
        """A batch of these rows, by name, runs."""
        self._rows = rows
        self.hear()
        self._is_running = True
        try:
            yield
        finally:
            self._is_running = False

    def hear(self) -> None:
        """A sign of life. Cheap: engines give one for each step."""
        self._heard_at = time.monotonic()

    def close(self) -> None:
        """Stop watching."""
        self._closed.set()
        self._thread.join()

    def _watch(self) -> None:
        while not self._closed.wait(min(self._stall_timeout_s / 10, _LONGEST_POLL_S)):
            if self._is_running and time.monotonic() - self._heard_at > self._stall_timeout_s:
                _log.error("%s", self._complaint())
                self._leave(1)
                return

    def _complaint(self) -> str:
        more = len(self._rows) - _MAX_NAMES
        names = ", ".join(self._rows[:_MAX_NAMES]) + (f" and {more} more" if more > 0 else "")
        return f"no step and no outcome for {self._stall_timeout_s:g} s: the process ends; rows that ran: {names}"
