"""Mends findings, and loses nothing by it. Knows what is to be done, not how it was found.

A lost image gets a record that says so, with the next attempt: the next run makes the row again. Only then its damaged
file is removed. Records are written, never changed or removed.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import pyarrow as pa

from omnigen_actor import uri
from omnigen_actor.errors import ErrorKind, Stage, first_line
from omnigen_actor.schema import RECORD, Status, table_from_rows
from pipelines.lease import Lease
from pipelines.records import WriteRecords
from pipelines.verify.findings import Finding, FindingKind, Supersede
from pipelines.verify.image_check import image_keys

RECORDS_AT_ONCE = 512
_MAX_MESSAGE = 500
_OF_NO_IMAGE: dict[str, Any] = {
    "output_key": None, "format": None, "num_bytes": None, "sha256": None, "num_tokens": None,
}  # fmt: skip
_EMPTY: dict[pa.DataType, Any] = {pa.string(): "", pa.int32(): 0, pa.float64(): 0.0}
_BLANK = {field.name: None if field.nullable else _EMPTY.get(field.type, []) for field in RECORD}


class Mender:
    """Takes findings as they come. ``run_id``: a name for the records files that it writes."""

    def __init__(self, store_root: str, run_id: str, held: Lease) -> None:
        self.mended: Counter[FindingKind] = Counter()
        self.failures: list[str] = []
        self._store_root = store_root
        self._run_id = run_id
        self._held = held
        self._waiting: list[tuple[Finding, Supersede]] = []

    def add(self, finding: Finding) -> None:
        """Mend one, now or at the latest in ``finish``. Raises RunStopped once another process holds the store."""
        if isinstance(finding.mend, Supersede):
            if self._waiting and (
                len(self._waiting) == RECORDS_AT_ONCE or self._waiting[0][1].record.schema != finding.mend.record.schema
            ):
                self.finish()
            self._waiting.append((finding, finding.mend))
        elif finding.mend:
            self._held.check()
            self._try(lambda: self._remove(finding.key), [finding])

    def finish(self) -> None:
        """Mend what waits for others to be mended with it. Raises RunStopped as ``add`` does."""
        waiting, self._waiting = self._waiting, []
        if waiting:
            self._held.check()
            self._try(lambda: self._supersede(waiting), [finding for finding, _ in waiting])

    def _try(self, mend: Callable[[], None], findings: list[Finding]) -> None:
        try:
            mend()
        except (OSError, ValueError, TypeError) as error:  # a store that fails; records of types that are none of ours
            self.failures.append(first_line(error))
        else:
            self.mended.update(finding.kind for finding in findings)

    def _remove(self, key: str) -> None:
        place = uri.join(self._store_root, key)
        if key.endswith("/"):
            uri.remove_folder(place)
        else:
            uri.remove(place)

    def _supersede(self, waiting: list[tuple[Finding, Supersede]]) -> None:
        table = pa.concat_tables([mend.record for _, mend in waiting])
        rows = table.select([name for name in RECORD.names if name in table.column_names]).to_pylist()
        found = zip(rows, waiting, strict=True)
        records = [_next(row, finding, is_lost=mend.is_lost) for row, (finding, mend) in found]
        WriteRecords(self._store_root, self._run_id)(table_from_rows(records, RECORD, table))
        for record, (_, mend) in zip(records, waiting, strict=True):
            for key in image_keys(record) if mend.is_lost else ():
                uri.remove(uri.join(self._store_root, key))


def _next(row: dict[str, Any], finding: Finding, *, is_lost: bool) -> dict[str, Any]:
    """The record that takes the place of this one. An older store may lack columns: it had nothing to say in them."""
    record = _BLANK | row | {"attempt": row["attempt"] + 1}
    if is_lost:
        record |= _OF_NO_IMAGE | {
            "status": Status.FAILED,
            "error_kind": ErrorKind.IMAGE_LOST.value,
            "error_stage": Stage.WRITE.value,
            "error": _one_line(f"{finding.kind} ({finding.key}): {finding.message}; the next run makes it again"),
            "finished_at": datetime.now(UTC),
        }
    return record


def _one_line(text: str) -> str:
    return " ".join(text.split())[:_MAX_MESSAGE]
