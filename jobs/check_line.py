"""What a person sees of a check while it goes on: one line. Knows nothing of what is checked."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable
from types import TracebackType
from typing import Self, TextIO

from jobs.progress import PLAIN_LINES_ARE_RARER, format_rate, format_seconds
from pipelines.verify.report import Report

EVERY_S = 1.0


class CheckLine:
    """Shows a report as it grows: on a terminal one line redrawn every second, elsewhere a line each half minute.

    A check that is over before the first line is due shows none. The line is gone at the end: the account follows.
    """

    def __init__(self, stream: TextIO, clock: Callable[[], float] = time.monotonic) -> None:
        self._stream = stream
        self._clock = clock
        self._redraws = stream.isatty()
        self._every_s = EVERY_S if self._redraws else EVERY_S * PLAIN_LINES_ARE_RARER
        self._started_at = self._shown_at = clock()
        self._num_drawn = 0

    def update(self, report: Report) -> None:
        """Take the report as it is; show it if it is time."""
        now = self._clock()
        if now - self._shown_at < self._every_s:
            return
        self._shown_at = now
        line = format_report(report, now - self._started_at)
        if self._redraws:
            line = line[: shutil.get_terminal_size().columns - 1]
            self._stream.write(f"\r{line}{' ' * (self._num_drawn - len(line))}")
            self._num_drawn = len(line)
        else:
            self._stream.write(f"{line}\n")
        self._stream.flush()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        if self._num_drawn:
            self._stream.write(f"\r{' ' * self._num_drawn}\r")
            self._stream.flush()


def format_report(report: Report, seconds: float) -> str:
    """One line: done, found, and where known the speed in rows/s, the time left and the most frequent finding."""
    of = "" if report.num_to_do is None else f"/{report.num_to_do}"
    parts = [f"{report.num_done}{of} rows", f"findings {report.counts.total()}"]
    if report.num_done and seconds > 0:
        rate = report.num_done / seconds
        parts.append(f"{format_rate(rate)} rows/s")
        if report.num_to_do is not None:
            parts.append(f"ETA {format_seconds(max(0, report.num_to_do - report.num_done) / rate)}")
    if report.counts:
        kind = max(report.counts, key=lambda kind: (report.counts[kind], kind))
        parts.append(f"most are {kind} ({report.counts[kind]})")
    return "  ".join(parts)
