"""The current records of a store against their images. Streams the records; knows no other files and mends nothing.

The table of one records file is held at a time, with a few read ahead, and twice as many images as there are threads.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from omnigen_actor import store, uri
from omnigen_actor.errors import first_line
from omnigen_actor.schema import RECORD, Status
from pipelines.ledger import Ledger, key_digest
from pipelines.verify.findings import Finding, FindingKind, Supersede
from pipelines.verify.image_check import ImageCheck, image_keys
from pipelines.verify.listing import Inventory
from pipelines.verify.pool import in_order

ROWS_AT_ONCE = 4096
_READERS = 4
_COLUMNS = ["id", "sample", "attempt", "status", "output_key", "num_bytes", "sha256", "width", "height"]
_REMEDY = "if it is damaged, remove it: its rows are made again"


class _Twins(NamedTuple):
    """What to do with a row that has two records of its last attempt: the second one is passed over."""

    is_second: bool
    is_torn: bool


_SINGLE = _Twins(is_second=False, is_torn=False)


class _Row(NamedTuple):
    """A current record, as a dictionary and as a table of one row, and the size of its image as listed."""

    record: dict[str, Any]
    table: pa.Table
    listed_bytes: int | None
    twins: _Twins | None


class Records:
    """All records of a store, and what they amount to once ``check`` has come to its end.

    ``broken``: messages by the files that can't be read. As long as there are any, nobody knows what is current.
    """

    def __init__(self, store_root: str) -> None:
        self.broken: dict[str, str] = {}
        self.num_records = 0
        self.num_images = 0
        self.num_bytes = 0
        self.run_ids: set[str] = set()
        self.ledger = Ledger.load(store_root, on_broken=lambda file, error: self.broken.update({file: str(error)}))
        self._folder = uri.join(store_root, store.RECORDS)
        self._is_twin_seen = np.zeros(len(self.ledger.doubled), dtype=bool)

    def check(
        self,
        inventory: Inventory,
        check: ImageCheck,
        num_threads: int,
        on_records: Callable[[int], None] = lambda _: None,
    ) -> Iterator[Finding]:
        """Compare every current record with its image. ``inventory`` learns which images the records name.

        ``on_records`` hears of how many more records the check is through with.
        """
        for file, message in self.broken.items():
            yield self._unreadable(file, message)
        with ThreadPoolExecutor(num_threads, thread_name_prefix="verify-image") as pool:
            for table in self._tables():
                if isinstance(table, Finding):
                    yield table
                    continue
                self._count(table)
                for start in range(0, table.num_rows, ROWS_AT_ONCE):
                    some = table.slice(start, ROWS_AT_ONCE)
                    rows, num_left = self._current(some, inventory), some.num_rows
                    for found in in_order(pool, lambda row: self._look(row, check), rows, 2 * num_threads):
                        num_left -= 1
                        on_records(1)
                        if found:
                            yield found
                    on_records(num_left)  # those without an image to look at

    def _tables(self) -> Iterator[pa.Table | Finding]:
        """Each file with all its columns: damage may be in those that the ledger does not read."""
        files = (file for file in uri.list_files(self._folder, suffix=".parquet") if file not in self.broken)
        with ThreadPoolExecutor(_READERS, thread_name_prefix="verify-records") as pool:
            yield from in_order(pool, self._read, files, 2 * _READERS)

    def _read(self, file: str) -> pa.Table | Finding:
        try:
            with uri.open_read(file) as stream:
                table = pq.ParquetFile(stream).read()
            own = [table.schema.get_field_index(name) for name in _COLUMNS]
            for index, name in zip(own, _COLUMNS, strict=True):
                table = table.set_column(index, RECORD.field(name), table.column(index).cast(RECORD.field(name).type))
        except (OSError, ValueError, LookupError, pa.ArrowException) as error:
            self.broken[file] = f"{first_line(error)}; {_REMEDY}"
            return self._unreadable(file, self.broken[file])
        return table

    def _unreadable(self, file: str, message: str) -> Finding:
        key = f"{store.RECORDS}/{file.removeprefix(self._folder).lstrip('/')}"
        return Finding(kind=FindingKind.RECORDS_UNREADABLE, key=key, message=message)

    def _count(self, table: pa.Table) -> None:
        self.num_records += table.num_rows
        if "run_id" in table.column_names:
            self.run_ids.update(filter(None, pc.unique(table["run_id"]).to_pylist()))

    def _current(self, table: pa.Table, inventory: Inventory) -> Iterator[_Row]:
        table = table.filter(pa.array(self.ledger.is_current(table)))
        records = table.select(_COLUMNS).to_pylist()
        sizes = _sizes(records, inventory)
        for index, record in enumerate(records):
            twins = self._twins(record)
            if twins.is_second:
                continue
            if record["status"] == Status.OK or twins is not _SINGLE:
                yield _Row(record, table.slice(index, 1), sizes[index], None if twins is _SINGLE else twins)

    def _twins(self, record: dict[str, Any]) -> _Twins:
        doubled = self.ledger.doubled
        if not len(doubled):
            return _SINGLE
        key = np.frombuffer(key_digest(record["id"], record["sample"]), "S16")
        position = min(int(np.searchsorted(doubled, key)[0]), len(doubled) - 1)
        if doubled[position] != key[0]:
            return _SINGLE
        is_second, self._is_twin_seen[position] = bool(self._is_twin_seen[position]), True
        return _Twins(is_second, is_torn=bool(np.isin(key, self.ledger.torn)[0]))

    def _look(self, row: _Row, check: ImageCheck) -> Finding | None:
        record, twins = row.record, row.twins
        name = f"{record['id']}#{record['sample']}"
        if twins and twins.is_torn:
            return self._doubled(row, f"{name} has records of attempt {record['attempt']} that contradict each other")
        if record["status"] == Status.OK:
            if fault := check(record, row.listed_bytes):
                mend = self._supersede(row, is_lost=True) if fault.is_certain else None
                return Finding(kind=fault.kind, key=_key(record), message=fault.message, mend=mend)
            self.num_images += 1
            self.num_bytes += record["num_bytes"]
        if twins:
            return self._doubled(row, f"{name} has several records of attempt {record['attempt']}, which agree")
        return None

    def _doubled(self, row: _Row, message: str) -> Finding:
        mend = self._supersede(row, is_lost=bool(row.twins and row.twins.is_torn))
        return Finding(kind=FindingKind.RECORD_DOUBLED, key=_key(row.record), message=message, mend=mend)

    def _supersede(self, row: _Row, *, is_lost: bool) -> Supersede | None:
        """Nothing, where a record that can't be read may be the current one. A copy: a slice would keep its file."""
        return None if self.broken else Supersede(record=row.table.take([0]), is_lost=is_lost)


def _key(record: dict[str, Any]) -> str:
    return str(record["output_key"] or image_keys(record)[0])


def _sizes(records: list[dict[str, Any]], inventory: Inventory) -> list[int | None]:
    """The sizes of the images that these name, as listed. Only a row's own place counts as named."""
    keys = [record["output_key"] if record["output_key"] in image_keys(record) else "" for record in records]
    return inventory.name(keys)
