"""What a person sees of a run: one line while it goes on, and the closing account. Knows nothing of rows or files."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable
from types import TracebackType
from typing import Self, TextIO

from pipelines.summary import Summary, Tally

PLAIN_LINES_ARE_RARER = 30
"""Elsewhere than on a terminal every line stays, so there are fewer."""

EXAMPLE_LENGTH = 160


class Progress:
    """Shows tallies on ``stream``: on a terminal one line redrawn at most every ``every_s`` seconds, else plain lines.

    ``start`` says how many rows there are to do and starts the clock; ``close`` shows the last tally and ends the line.
    """

    def __init__(self, stream: TextIO, every_s: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._stream = stream
        self._clock = clock
        self._redraws = stream.isatty()
        self._every_s = every_s if self._redraws else every_s * PLAIN_LINES_ARE_RARER
        self._num_to_do = 0
        self._shown_at = 0.0
        self._num_drawn = 0
        self._first: tuple[float, int] | None = None
        self._pending: Tally | None = None

    def start(self, num_to_do: int) -> None:
        """Begin: ``num_to_do`` rows."""
        self._num_to_do = num_to_do
        # A terminal shows the first tally at once; elsewhere a short run is its last line alone.
        self._shown_at = self._clock() - (self._every_s if self._redraws else 0.0)

    def update(self, tally: Tally) -> None:
        """Take the newest tally; show it if it is time."""
        now = self._clock()
        self._first = self._first or (now, tally.num_done)
        self._pending = tally
        if now - self._shown_at >= self._every_s:
            self._show(tally, now)

    def close(self) -> None:
        """Show what was not shown yet and end the line. A second call does nothing."""
        if self._pending is not None:
            self._show(self._pending, self._clock())
        if self._num_drawn:
            self._stream.write("\n")
            self._stream.flush()
            self._num_drawn = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def _show(self, tally: Tally, now: float) -> None:
        line = format_tally(tally, self._num_to_do, self._rate(tally, now))
        self._stream.write(self._redrawn(line) if self._redraws else line + "\n")
        self._stream.flush()
        self._shown_at, self._pending = now, None

    def _redrawn(self, line: str) -> str:
        # A line as wide as the terminal would wrap, and \r returns to the start of its second half only.
        line = line[: shutil.get_terminal_size().columns - 1]
        padding = " " * (self._num_drawn - len(line))
        self._num_drawn = len(line)
        return f"\r{line}{padding}"

    def _rate(self, tally: Tally, now: float) -> float | None:
        """Rows per second since the first tally: before it, models were loading."""
        started_at, num_before = self._first or (now, 0)
        num_since, seconds = tally.num_done - num_before, now - started_at
        return num_since / seconds if num_since > 0 and seconds > 0 else None


def format_tally(tally: Tally, num_to_do: int, rate: float | None) -> str:
    """One line: done, ok, failed, and where known the speed in rows/s, the time left and the most frequent error."""
    parts = [f"{tally.num_done}/{num_to_do} rows", f"ok {tally.num_ok}", f"failed {tally.num_failed}"]
    if tally.num_skipped:
        parts.append(f"skipped {tally.num_skipped}")
    if rate:
        left_s = max(0, num_to_do - tally.num_done) / rate
        parts += [f"{format_rate(rate)} rows/s", f"ETA {format_seconds(left_s)}"]
    if tally.errors:
        kind = max(tally.errors, key=lambda kind: (tally.errors[kind], kind))
        parts.append(f"top error {kind} ({tally.errors[kind]})")
    return "  ".join(parts)


def format_rate(rate: float) -> str:
    """Three significant digits."""
    return f"{rate:,.0f}" if rate >= 1000 else f"{rate:.3g}"


def format_seconds(seconds: float) -> str:
    """``m:ss``, or ``h:mm:ss``."""
    minutes, second = divmod(round(seconds), 60)
    hours, minute = divmod(minutes, 60)
    return f"{hours}:{minute:02}:{second:02}" if hours else f"{minute}:{second:02}"


def format_summary(summary: Summary) -> str:
    """The closing account, several lines: the sum, the errors by count, the speed, and where everything is."""
    rate = summary.num_generated / summary.seconds if summary.seconds > 0 else 0.0
    lines = [
        _sum(summary),
        f"this run: {summary.num_generated} rows in {summary.seconds:.1f} s ({format_rate(rate)} rows/s)"
        f"; already done: {summary.num_already_done}",
        *([f"engine: {summary.engine}"] if summary.engine else []),
        *(f"error {kind}: {count} x, for example: {_one_line(example)}" for kind, count, example in summary.errors),
        f"images   {summary.images_uri}",
        f"records  {summary.records_uri}",
        f"summary  {summary.summary_uri}",
    ]
    return "\n".join(lines)


def _sum(summary: Summary) -> str:
    equals = "=" if summary.adds_up else "!="
    account = (
        f"in {summary.num_in} {equals} ok {summary.num_ok} + failed {summary.num_failed}"
        f" + skipped {summary.num_skipped}"
    )
    if summary.num_left_out:
        account += f" + left out {summary.num_left_out}"
    if summary.adds_up:
        return account
    doubled = f", {summary.num_doubled} have two" if summary.num_doubled else ""
    return f"{account}: IT DOES NOT ADD UP, {summary.num_recorded} of {summary.num_in} rows have a record{doubled}"


def _one_line(text: str) -> str:
    line = " ".join(text.split())
    return line if len(line) <= EXAMPLE_LENGTH else line[: EXAMPLE_LENGTH - 3] + "..."
