"""How far a piece of work raises the memory of this process. Knows no models."""

from __future__ import annotations

import ctypes
import gc
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_STATUS, _CLEAR = Path("/proc/self/status"), Path("/proc/self/clear_refs")


class Peak:
    """The largest rise over the watched pieces, in MiB. Linux only: elsewhere it stays 0."""

    def __init__(self) -> None:
        self.mib = 0.0

    @contextmanager
    def watched(self) -> Iterator[None]:
        """Watch the block: its peak above what the process held before."""
        gc.collect()
        before = self._begin()
        yield
        self.mib = max(self.mib, _kib("VmHWM") / 1024 - before)

    def _begin(self) -> float:
        if not _CLEAR.exists():
            return 0.0
        ctypes.CDLL(None).malloc_trim(0)  # what an earlier contender freed must not hide what this one takes
        _CLEAR.write_text("5", encoding="ascii")  # begins a new VmHWM: see proc(5)
        return _kib("VmRSS") / 1024


def _kib(name: str) -> int:
    if not _STATUS.exists():
        return 0
    lines = _STATUS.read_text(encoding="ascii").splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(name + ":"))
