"""One driver at a time: a file in the store that says which run writes there, beaten while it does. Knows no rows.

An object store has no atomic creation that all of them share, so who wants the lease writes it, waits a moment and
reads who won. The holder reads before each beat, and one that finds another's lease ends itself: two that both thought
that they won are one again after a beat. A beat is one small read and one small write.

Clocks of two hosts may differ, so a clock alone takes nobody's lease away: one whose last beat looks old is watched for
longer than a beat, and is only taken when it did not beat. A process that is gone from this very host is known at once.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import platform
import random
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

from omnigen_actor import store, uri
from omnigen_actor.errors import OutputError, RunStopped

BEAT_S = 20.0
STALE_S = 90.0
WATCH_S = 30.0
"""For how long a lease whose last beat looks old is watched: longer than a beat."""

_MAX_BYTES = 2**16
_TIMEOUT_S, _RETRIES = 20.0, 5
_log = logging.getLogger(__name__)
_chance = random.SystemRandom()


@dataclass(frozen=True, slots=True, kw_only=True)
class Holder:
    """The content of ``lease.json``: which process of which run holds it.

    ``host`` is for people. Two processes share a ``machine`` where one can see by ``pid`` whether the other is there;
    ``process_started`` tells it from a later process of the same number, and is empty where nobody knows. ``beat_at``
    is in seconds since 1970 by the holder's clock, ``num_beats`` grows with each beat.
    """

    run_id: str
    host: str
    machine: str
    pid: int
    process_started: str
    since: str
    beat_at: float
    num_beats: int = 0

    def __str__(self) -> str:
        return f"run {self.run_id} on {self.host} (process {self.pid}), since {self.since}"


class Lease:
    """A lease that this process holds, from ``hold``. Its thread beats until the end."""

    def __init__(self, place: str, holder: Holder, *, beat_s: float) -> None:
        self._place = place
        self._holder = holder
        self._beat_s = beat_s
        self._lost_to: str | None = None
        self._is_over = threading.Event()
        self._thread = threading.Thread(target=self._keep, name="lease", daemon=True)
        self.lost = threading.Event()
        """Set once another run holds the store."""

    def check(self) -> None:
        """Raises RunStopped once a beat has found another run's lease."""
        if self.lost.is_set():
            raise RunStopped(f"this run has lost its output to {self._lost_to}; run the same command later")

    def look(self) -> None:
        """Find out whether the lease is still this run's. Whether the store can be read shows elsewhere."""
        with contextlib.suppress(OSError):
            self._look()

    def start(self) -> None:
        """Begin to beat."""
        self._thread.start()

    def end(self) -> None:
        """Stop beating, and remove the lease if it is still this run's. What a store raises is logged."""
        self._is_over.set()
        self._thread.join()
        try:
            if not self.lost.is_set() and _is_of(_read(self._place), self._holder):
                uri.remove(self._place)
        except OSError as error:
            _log.warning("the lease of this run stays in the store: %s", error)

    def _keep(self) -> None:
        while not self._is_over.wait(self._beat_s):
            try:
                self._beat()
            except OSError as error:  # the next beat may be luckier; until then nothing else reaches the store either
                _log.warning("a beat of the lease failed: %s", error)
            if self.lost.is_set():
                return

    def _beat(self) -> None:
        self._look()
        if not self.lost.is_set():
            self._holder = replace(self._holder, beat_at=time.time(), num_beats=self._holder.num_beats + 1)
            _write(self._place, self._holder)

    def _look(self) -> None:
        found = _read(self._place)
        if found and not _is_of(found, self._holder):  # one that was removed is nobody's: the beat writes it anew
            self._lost_to = str(found)
            self.lost.set()


@contextlib.contextmanager
def hold(
    store_root: str,
    run_id: str,
    *,
    take_over: bool = False,
    beat_s: float | None = None,
    sleep: Callable[[float], None] = time.sleep,
) -> Iterator[Lease]:
    """Hold the lease of a store for the time of a ``with`` block, however that ends.

    ``take_over``: whoever holds it. Raises OutputError that says who holds it and since when, and where the store can't
    be read or written.
    """
    place = uri.join(store_root, store.LEASE_KEY)
    own = _this_process(run_id)
    try:
        found = _read(place)
        if found and not take_over and not _is_gone(found, place, sleep):
            raise OutputError(_refusal(store_root, found))
        _write(place, own)
        sleep((0.02 if uri.is_local(place) else 0.3) * _chance.uniform(1, 2))
        winner = _read(place)
    except OSError as error:
        raise OutputError(f"the lease of output {uri.redact(store_root)!r} can't be taken: {error}") from None
    if winner and not _is_of(winner, own):
        raise OutputError(_refusal(store_root, winner))
    lease = Lease(place, own, beat_s=BEAT_S if beat_s is None else beat_s)
    lease.start()
    try:
        yield lease
    except Exception as error:
        if not isinstance(error, RunStopped | OutputError):  # a run whose plan another one removed fails in many ways
            lease.look()
            lease.check()
        raise
    finally:
        lease.end()


def _refusal(store_root: str, holder: Holder) -> str:
    return (
        f"output {uri.redact(store_root)!r} is being written by {holder}: "
        "wait for it, choose another output, or give --take-over if it is gone for sure"
    )


def _is_gone(holder: Holder, place: str, sleep: Callable[[float], None]) -> bool:
    """Whether a holder will not come back: its process is gone, or it did not beat for long and does not now."""
    if holder.machine == machine() and not _is_running(holder):
        return True
    age_s = time.time() - holder.beat_at
    if age_s < STALE_S:
        return False
    _log.warning("%s has not beaten for %.0f s by this clock: watching it for %.0f s", holder, age_s, WATCH_S)
    sleep(WATCH_S)
    found = _read(place)
    return found is None or found == holder


def _is_running(holder: Holder) -> bool:
    """Whether the holder's process, of this machine, is there."""
    started = process_started(holder.pid)
    if started is not None and holder.process_started:
        return started == holder.process_started
    try:
        os.kill(holder.pid, 0)
    except ProcessLookupError:
        return False
    except OSError:  # somebody else's
        return True
    return True


def process_started(pid: int) -> str | None:
    """When a process of this machine began, in the kernel's ticks. None where nothing tells; "" for one that has ended
    and that its parent has not noticed yet.
    """
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except OSError:  # no such process, no such file system, or one that hides other people's processes
        return None
    # Fields 3 to 22; the second is the program's name, in brackets, and may hold anything.
    state, *fields = stat.rpartition(")")[2].split()
    return "" if state in {"Z", "X"} else fields[18]


def machine() -> str:
    """What has its own process numbers: a host since it was started, and a container on it. Else the host's name."""
    parts = [platform.node()]
    with contextlib.suppress(OSError):
        parts.append(Path("/proc/sys/kernel/random/boot_id").read_text().strip())
    with contextlib.suppress(OSError):
        parts.append(str(Path("/proc/self/ns/pid").readlink()))
    return " ".join(parts)


def _this_process(run_id: str) -> Holder:
    return Holder(
        run_id=run_id,
        host=platform.node(),
        machine=machine(),
        pid=os.getpid(),
        process_started=process_started(os.getpid()) or "",
        since=datetime.now(UTC).isoformat(timespec="seconds"),
        beat_at=time.time(),
    )


def _is_of(found: Holder | None, holder: Holder) -> bool:
    return found is not None and (found.run_id, found.machine, found.pid) == (holder.run_id, holder.machine, holder.pid)


def _read(place: str) -> Holder | None:
    """Who holds the lease; nobody where there is none, or no readable one. Raises UriFailed."""
    try:
        return Holder(**json.loads(uri.read_bytes(place, max_bytes=_MAX_BYTES, timeout_s=_TIMEOUT_S, retries=_RETRIES)))
    except uri.UriNotFound:
        return None
    except (ValueError, TypeError):
        _log.warning("%s is no lease, and is replaced", uri.redact(place))
        return None


def _write(place: str, holder: Holder) -> None:
    uri.write_bytes(place, json.dumps(asdict(holder)).encode(), timeout_s=_TIMEOUT_S, retries=_RETRIES)
