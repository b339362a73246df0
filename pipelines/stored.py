"""The current records of a store that have an image, as a stream of tables. Knows no images and writes nothing."""

from __future__ import annotations

from collections.abc import Iterator

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from omnigen_actor import store, uri
from omnigen_actor.errors import OutputError
from omnigen_actor.schema import RECORD, Status
from pipelines.ledger import Ledger, digest
from pipelines.locations import locate


def open_store(location: str) -> str:
    """The absolute root of a run store. Raises OutputError where there is none."""
    root = locate(location, OutputError, "store ")
    if not uri.exists(uri.join(root, store.RUN_KEY)):
        raise OutputError(
            f"{uri.redact(root)!r} is no run store: it has no {store.RUN_KEY}; give the OUTPUT of jobs.generate"
        )
    return root


def current_images(root: str, ledger: Ledger | None = None) -> Iterator[pa.Table]:
    """Tables with the columns of RECORD and the user's own: the current records whose status is ``ok``.

    In the order of the records files' names; no file is held longer than its table. Each row comes once, even where it
    has several records of its last attempt; not where these contradict each other, as the next run makes it again.
    Columns that an older version did not write are filled with nulls or empty lists. Raises OutputError for a file that
    can't be read.
    """
    ledger = ledger or Ledger.load(root)
    twins = _Twins(ledger)
    for file in uri.list_files(uri.join(root, store.RECORDS), suffix=".parquet"):
        with uri.open_read(file) as stream:
            table = _whole(pq.ParquetFile(stream).read())
        found = table.filter(pa.array(ledger.is_current(table)))
        found = twins.once(found.filter(pc.equal(found["status"], Status.OK)))
        if found.num_rows:
            yield found


class _Twins:
    """The rows with several records of their last attempt, of which there are few or none."""

    def __init__(self, ledger: Ledger) -> None:
        self._doubled = set(ledger.doubled.tolist())
        self._passed = set(ledger.torn.tolist())

    def once(self, table: pa.Table) -> pa.Table:
        """The table without those that came before, or that nobody knows to be right."""
        if not self._doubled or not table.num_rows:
            return table
        keys = digest(table)["key"].tolist()
        return table.filter(pa.array([self._take(key) for key in keys]))

    def _take(self, key: bytes) -> bool:
        if key in self._passed:
            return False
        if key in self._doubled:
            self._passed.add(key)
        return True


def _whole(table: pa.Table) -> pa.Table:
    """With every column of RECORD, in its order and of its type, and then all others."""
    columns = {}
    for field in RECORD:
        if field.name in table.column_names:
            columns[field.name] = table[field.name].cast(field.type)
        else:
            empty: list[str] | None = [] if pa.types.is_list(field.type) else None
            columns[field.name] = pa.chunked_array([pa.array([empty] * table.num_rows, field.type)])
    columns |= {name: table[name] for name in table.column_names if name not in columns}
    return pa.table(columns)
