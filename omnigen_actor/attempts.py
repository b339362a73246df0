"""Attempts: the diary of a batch in the store, by which the next process knows that the last one died.

Whoever runs batches runs one again, without end, whose process died; so a row that kills its process each time would
stop the run. A diary is there from before a batch begins until it ends. Who finds one runs the rows one by one, and
writes which one is next before it begins: if the process dies again, that row was alone when it did. A row that was
alone too often is not run again.

One by one, and not in halves: each step of a search by halves costs one more death and one more load of the model,
while rows alone cost only what they would have shared.

Knows no engine and no rows but by name. A diary is worth less than rows: without the store there is none, and the batch
runs all the same.
"""

from __future__ import annotations

import json
import logging
from collections import Counter
from collections.abc import Sequence

from omnigen_actor import store, uri

_log = logging.getLogger(__name__)

_MAX_BYTES = 2**26
_TIMEOUT_S = 10.0
"""An engine waits for its diary."""

RowKey = tuple[str, int, int]
"""(id, sample, attempt)."""


class Diary:
    """The diary of one batch. Raises nothing: a store that can't be read or written is a line in the log."""

    def __init__(self, store_root: str, run_id: str, rows: Sequence[RowKey]) -> None:
        """Begin a batch: read what the process before has left, and say that this one has begun."""
        self._uri = uri.join(store_root, store.attempts_key(run_id, rows))
        self._num_crashes: Counter[str] = Counter()
        self._starts = 0
        self._read()
        self.is_careful = self._starts > 0
        """Whether a process died with this batch: its rows are to run one by one."""
        self._starts += 1
        if not self.is_careful:  # else the first row that begins is written with it
            self._write(None)

    def num_crashes(self, row: str) -> int:
        """How often a process died while this row ran alone in it."""
        return self._num_crashes[row]

    def begin(self, row: str) -> None:
        """This row runs alone from now on."""
        self._write(row)

    def end(self) -> None:
        """The batch is done. What is known of rows that kill is kept until the run ends: the batch may be run again."""
        try:
            if self._num_crashes:
                self._write(None)
            else:
                uri.remove(self._uri)
        except OSError:
            _log.warning("the diary of a batch stays", exc_info=True)

    def _read(self) -> None:
        try:
            data = uri.read_bytes(self._uri, max_bytes=_MAX_BYTES, timeout_s=_TIMEOUT_S, retries=1)
        except uri.UriNotFound:
            return
        except (OSError, ValueError):
            _log.warning("the diary of a batch can't be read: it runs without", exc_info=True)
            return
        self._starts = 1
        try:
            found = json.loads(data)
            self._starts = int(found["starts"])
            self._num_crashes.update({str(row): int(count) for row, count in found["crashes"].items()})
            if found["running"] is not None:
                self._num_crashes[found["running"]] += 1
        except (ValueError, TypeError, KeyError, AttributeError):
            _log.warning("the diary of a batch is damaged: it begins anew", exc_info=True)

    def _write(self, running: str | None) -> None:
        content = {"starts": self._starts, "running": running, "crashes": self._num_crashes}
        try:
            uri.write_bytes(self._uri, json.dumps(content).encode(), timeout_s=_TIMEOUT_S, retries=1)
        except OSError:
            _log.warning("the diary of a batch can't be written: it runs without", exc_info=True)


def row_name(row_id: str, sample: int) -> str:
    """How a row is named in diaries and logs."""
    return f"{row_id}#{sample}"


def forget(store_root: str) -> None:
    """Remove the diaries of all runs. Raises nothing: what stays is in nobody's way."""
    try:
        uri.remove_folder(uri.join(store_root, store.ATTEMPTS))
    except OSError:
        _log.warning("diaries of batches stay in the store", exc_info=True)
