"""WaveReport: what a batch's waves took, told to the log, the store and whoever listens. Knows no rows.

Metrics are worth less than rows: what goes wrong here is logged, and never raised.
"""

from __future__ import annotations

import logging
import socket
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime

from omnigen_actor import metrics, store, uri
from omnigen_actor.types import Engine, Wave

OnWaves = Callable[[Sequence[Wave]], None]

_log = logging.getLogger(__name__)

_WRITE_TIMEOUT_S = 10.0
"""An engine waits while metrics are written."""


class WaveReport:
    """Takes the waves of an engine after each batch and tells of them."""

    def __init__(self, store_root: str, run_id: str, on_waves: OnWaves | None = None) -> None:
        self._store_root = store_root
        self._run_id = run_id
        self._on_waves = on_waves

    def __call__(self, engine: Engine, started_at: datetime) -> None:
        """Tell of the waves since the last call, if there are any. Raises nothing."""
        waves: Sequence[Wave] = ()
        with _logged("the engine gave no account of its waves"):
            waves = _take(engine)
        if not waves:
            return
        with _logged("the waves of a batch don't add up"):
            _log.info("engine: %d waves: %s", len(waves), metrics.add_up(waves))
        with _logged("the metrics of a batch are lost"):
            self._write(waves, started_at)
        with _logged("whoever listens to waves failed"):
            if self._on_waves:
                self._on_waves(waves)

    def _write(self, waves: Sequence[Wave], started_at: datetime) -> None:
        lines = metrics.to_jsonl(waves, node=socket.gethostname(), started_at=started_at, finished_at=datetime.now(UTC))
        where = uri.join(self._store_root, store.metrics_key(self._run_id))
        uri.write_bytes(where, lines, timeout_s=_WRITE_TIMEOUT_S, retries=1)


def _take(engine: Engine) -> Sequence[Wave]:
    """None from an engine that keeps no account of its waves: someone else's may have no such method."""
    take = getattr(engine, "take_waves", None)
    return list(take()) if take else ()


@contextmanager
def _logged(problem: str) -> Iterator[None]:
    try:
        yield
    except Exception:  # an engine, a store and a listener raise what they like
        _log.warning("%s", problem, exc_info=True)
