"""The layout of a run store: which key holds what. Knows no tables, no schemas and no file contents.

    images/<ab>/<name>-<sample><extension>    ab: the first two hex digits of sha256(id)
    records/<run>-<digest>.parquet            what became of every row
    metrics/<run>/<unique>.jsonl              what the engines' waves took
    plan/                                     what a run set out to do; plan/<run>/stop: that it is to wind down
    attempts/<run>/<digest>.json              batches that have begun and not ended
    run.json                                  model, parameters, versions, history of runs
    summary.json                              the last run's figures
    lease.json                                which run writes here now
    scores/<name>/                            what a scorer says of the images
    selections/<name>/                        which images are in a data set, and why the others are not

A key is a path relative to the store's root, so a store can be moved.
"""

from __future__ import annotations

import hashlib
import re
import uuid
from collections.abc import Iterable

from omnigen_actor import uri
from omnigen_actor.errors import OutputError, first_line

IMAGES = "images"
RECORDS = "records"
METRICS = "metrics"
PLAN = "plan"
ATTEMPTS = "attempts"
SCORES = "scores"
SELECTIONS = "selections"
RUN_KEY = "run.json"
SUMMARY_KEY = "summary.json"
LEASE_KEY = "lease.json"

_PLAIN_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")


def image_key(row_id: str, sample: int, extension: str) -> str:
    """The key of one sample's image; ``extension`` has its dot.

    Different (id, sample) have different keys, and no id can leave the store.
    """
    assert sample >= 0, sample
    shard = hashlib.sha256(row_id.encode()).hexdigest()[:2]
    return f"{IMAGES}/{shard}/{file_name(row_id)}-{sample}{extension}"


def file_name(row_id: str) -> str:
    """The id itself where every file system takes it as a name, else ``~`` and a digest, which no plain name has."""
    if _PLAIN_NAME.fullmatch(row_id):
        return row_id
    return f"~{hashlib.sha256(row_id.encode()).hexdigest()[:32]}"


def records_key(run_id: str, rows: Iterable[tuple[str, int, int]]) -> str:
    """The key of the records of these (id, sample, attempt): a retried task overwrites its own."""
    return f"{RECORDS}/{run_id}-{_digest(rows)}.parquet"


def attempts_key(run_id: str, rows: Iterable[tuple[str, int, int]]) -> str:
    """The key of the diary of the batch of these (id, sample, attempt)."""
    return f"{ATTEMPTS}/{run_id}/{_digest(rows)}.json"


def stop_key(run_id: str) -> str:
    """The key whose presence says that the run winds down: no further batch begins."""
    return f"{PLAN}/{run_id}/stop"


def _digest(rows: Iterable[tuple[str, int, int]]) -> str:
    digest = hashlib.sha256()
    for row_id, sample, attempt in rows:
        digest.update(f"{len(row_id)}:{row_id}\0{sample}\0{attempt}\0".encode())
    return digest.hexdigest()[:24]


def metrics_key(run_id: str) -> str:
    """A new key each time: a batch that is done twice took its time twice."""
    return f"{METRICS}/{run_id}/{uuid.uuid4().hex}.jsonl"


def takes(root: str, data: bytes) -> bool:
    """Whether a probe of these bytes can be written: what tells a fault of the store from one of a single key."""
    try:
        _probe(root, data)
    except OSError:
        return False
    return True


def check_writable(root: str) -> None:
    """Write and remove a probe. Raises OutputError with one line that names the store and the reason."""
    try:
        _probe(root, b"probe")
    except Exception as error:  # fsspec's back ends raise what they like
        reason = first_line(error)
        raise OutputError(f"output {uri.redact(root)!r} can't be written: {reason}") from None


def _probe(root: str, data: bytes) -> None:
    probe = uri.join(root, f".probe-{uuid.uuid4().hex}")
    try:
        uri.write_bytes(probe, data)
    finally:
        uri.remove(probe)
