"""A run that is asked to stop: no batch begins any more, those that run may end, and then the run is over.

Knows neither signals, which belong to the job, nor rows. A mark in the store tells readers and actors on all nodes.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from threading import Event, Thread
from typing import ClassVar

from omnigen_actor import uri
from omnigen_actor.errors import RunStopped

_log = logging.getLogger(__name__)

_MARK_TIMEOUT_S = 10.0


class GraceOver(Exception):  # noqa: N818
    """What still ran had the time that it was given."""


class Stopping:
    """Whether and since when a run is to stop.

    ``asked`` is set by whoever ends the run, at any time; None: nobody does. ``mark`` is the URI of the mark.
    """

    def __init__(
        self, asked: Event | None, mark: str, grace_s: float, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._asked = asked
        self._mark = mark
        self._grace_s = grace_s
        self._clock = clock
        self._since: float | None = None

    @property
    def is_asked(self) -> bool:
        """Whether the run is to stop."""
        return self._asked is not None and self._asked.is_set()

    def check(self) -> None:
        """To be called often. Writes the mark when the run is first seen to stop; raises GraceOver at its end."""
        if not self.is_asked:
            return
        if self._since is None:
            self._since = self._clock()
            Thread(target=self._write_mark, name="write-stop-mark", daemon=True).start()
        elif self._clock() - self._since >= self._grace_s:
            raise GraceOver(f"batches ran on for {self._grace_s:g} s")

    @contextmanager
    def ending(self) -> Iterator[None]:
        """Once the run is to stop, what goes wrong only ends it: the cluster may have been told to go, too."""
        try:
            yield
        except GraceOver:
            pass
        except Exception:  # Ray raises what it likes when parts of it are gone
            if not self.is_asked:
                raise
            _log.warning("a run that was asked to stop broke off", exc_info=True)

    def _write_mark(self) -> None:
        try:
            uri.write_bytes(self._mark, b"", timeout_s=_MARK_TIMEOUT_S, retries=1)
        except OSError:  # then the grace ends it
            _log.warning("the mark that ends a run can't be written", exc_info=True)


def stopped(reason: str) -> RunStopped:
    """What is said of a run that the same command continues."""
    return RunStopped(f"{reason}: run the same command to go on")


@contextmanager
def store_failures(make: Callable[[str], Exception] = stopped) -> Iterator[None]:
    """Raise RunStopped, or what ``make`` makes of the message, where the driver could not read or write the store."""
    try:
        yield
    except uri.UriFailed as error:
        raise make(str(error)) from None


class EachStep:
    """A callback of Ray Data's executor, which makes one for each execution, and names the class to its workers.

    So what is called is kept here, for the one run of this process. What it raises ends the execution. As Ray's own
    ExecutionCallback, which is not subclassed: that would load Ray here.
    """

    call: ClassVar[Callable[[], None] | None] = None

    def before_execution_starts(self, executor: object) -> None:
        """Nothing."""

    def on_execution_step(self, executor: object) -> None:  # noqa: ARG002
        """About ten times a second."""
        if EachStep.call:
            EachStep.call()

    def after_execution_succeeds(self, executor: object) -> None:
        """Nothing."""

    def after_execution_fails(self, executor: object, error: Exception) -> None:
        """Nothing."""


@contextmanager
def at_each_step(call: Callable[[], None]) -> Iterator[None]:
    """Have Ray Data's executor call this, many times a second, for executions that begin inside."""
    from ray.data import DataContext

    context = DataContext.get_current()
    before = context.custom_execution_callback_classes
    context.custom_execution_callback_classes = [*before, EachStep]
    EachStep.call = call
    try:
        yield
    finally:
        EachStep.call = None
        context.custom_execution_callback_classes = before
