"""What the engines of a run took, read from the metrics files that they left. Knows no engine, no rows and no Ray.

Metrics are worth less than the account of the rows: what can't be read is logged and left out.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

from omnigen_actor import metrics, store, uri
from omnigen_actor.metrics import EngineUse
from omnigen_actor.types import Wave

_log = logging.getLogger(__name__)

_READERS = 16
_MAX_FILE_BYTES = 64 * 2**20


def read_engine_use(store_root: str, run_id: str) -> EngineUse | None:
    """The sum over ``metrics/<run_id>/*.jsonl``; None where there are no waves. Raises nothing."""
    try:
        files = uri.list_files(uri.join(store_root, store.METRICS, run_id), suffix=".jsonl")
        return metrics.add_up(_read_all(files))
    except (OSError, ArithmeticError) as error:
        _log.warning("the metrics of run %s are left out: %s", run_id, error)
        return None


def _read_all(files: list[str]) -> Iterator[Wave]:
    """A run leaves a small file for each batch: several are read at a time."""
    with ThreadPoolExecutor(_READERS) as readers:
        for start in range(0, len(files), 4 * _READERS):
            for waves in readers.map(_read, files[start : start + 4 * _READERS]):
                yield from waves


def _read(file: str) -> list[Wave]:
    try:
        return metrics.from_jsonl(uri.read_bytes(file, max_bytes=_MAX_FILE_BYTES))
    except (OSError, ValueError) as error:
        _log.warning("metrics file %s is left out: %s", uri.redact(file), error)
        return []
