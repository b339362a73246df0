"""The main job, ``python -m jobs.generate MANIFEST OUTPUT [options]``: reads argv, shows progress, says what came out.

Knows nothing of how rows become images, and imports neither ray nor torch before the options are right.
"""

from __future__ import annotations

import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from threading import Event

from jobs import exit_codes
from jobs.options import Arguments, parse
from jobs.progress import Progress, format_summary
from pipelines.config import RunConfig
from pipelines.settings import RUN
from pipelines.summary import Summary

DESCRIPTION = "Turn the rows of a manifest into images and records. Run it again to continue a run that was cut off."
PLACES = {
    "manifest": "rows to generate: .parquet, .jsonl or .csv; path or URI",
    "output": "run store: folder or URI; an earlier run there is continued",
}


def main(argv: list[str] | None = None) -> int:
    """Run the job and return its exit code."""
    return exit_codes.exit_code_of(lambda: _generate(sys.argv[1:] if argv is None else argv))


def _generate(argv: list[str]) -> int:
    arguments = parse(
        argv, RUN, PLACES, prog="python -m jobs.generate", description=DESCRIPTION, epilog=exit_codes.MEANING
    )
    with _sigterm() as stop:
        summary = _run(arguments, stop)
    if stop.is_set() and not summary.adds_up:
        exit_codes.say(f"stopped by SIGTERM: {summary.num_generated} rows done, run the same command to go on")
        return exit_codes.TERMINATED
    exit_codes.show(format_summary(summary))
    return verdict(summary, arguments.config.max_failed)


@contextmanager
def _sigterm() -> Iterator[Event]:
    """An event that the first SIGTERM sets; a second one ends the process at once.

    The handler runs in the main thread, between any two of its steps. So that thread may ask whether the event is set,
    and never wait for it: it could hold the event's own lock just then.
    """
    stop = Event()

    def handle(*_: object) -> None:
        stop.set()
        signal.signal(signal.SIGTERM, signal.SIG_DFL)

    if threading.current_thread() is not threading.main_thread():  # Python takes handlers from no other
        yield stop
        return
    before = signal.signal(signal.SIGTERM, handle)
    try:
        yield stop
    finally:
        signal.signal(signal.SIGTERM, before)


def _run(arguments: Arguments[RunConfig], stop: Event) -> Summary:
    from pipelines.generate import run

    with Progress(sys.stderr, arguments.config.progress_every_s) as progress:
        return run(
            arguments.places["manifest"],
            arguments.places["output"],
            arguments.config,
            on_progress=progress.update,
            on_start=progress.start,
            stop=stop,
        )


def verdict(summary: Summary, max_failed: float) -> int:
    """The exit code of a finished run; ``max_failed`` is in percent."""
    good = summary.adds_up and summary.percent_without_image <= max_failed
    return exit_codes.OK if good else exit_codes.ROWS_FAILED


if __name__ == "__main__":
    sys.exit(main())
