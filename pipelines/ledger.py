"""What is already done: the records of a store, as arrays of digests. Knows no manifest and starts nothing.

One planned row or record is a key, 16 bytes of a digest of (id, sample), and a content, the first 16 bytes of its
``row_hash``. The record of a key with the highest attempt, of equal ones the newest, is the current one. A ledger keeps
39 bytes for each key and no Python object: 4 GB for 100 million rows, and about three times that while it is loaded.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from hashlib import blake2b

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from omnigen_actor import store, uri
from omnigen_actor.errors import OutputError, first_line
from omnigen_actor.schema import RECORD, Status

DIGEST = np.dtype([("key", "S16"), ("content", "S16")])
"""Compared as 16 bytes each; ``tobytes`` gives them whole, where numpy's items lose trailing zeros."""

Digests = npt.NDArray[np.void]
"""An array of DIGEST."""

_STATUSES = [Status.OK, Status.FAILED, Status.SKIPPED]
_OK = _STATUSES.index(Status.OK)
_RECORDED = np.dtype([*DIGEST.descr, ("attempt", "i4"), ("finished_at", "i8"), ("status", "u1"), ("kind", "u2")])
_CURRENT = np.dtype([*DIGEST.descr, ("attempt", "i4"), ("status", "u1"), ("kind", "u2")])
_COLUMNS = ["id", "sample", "attempt", "row_hash", "status", "error_kind", "error", "finished_at"]
_SCHEMA = pa.schema([RECORD.field(name) for name in _COLUMNS])
_READERS = 16


@dataclass(frozen=True, slots=True, kw_only=True)
class Audit:
    """What became of planned rows. A row whose current record is of another content counts as missing.

    ``num_doubled`` counts rows with two records of the same, last attempt: only a fault of the pipeline makes those.
    ``errors`` counts the failed and skipped rows by kind, most frequent first, each with a message as an example.
    """

    num_in: int = 0
    num_ok: int = 0
    num_failed: int = 0
    num_skipped: int = 0
    num_missing: int = 0
    num_doubled: int = 0
    errors: tuple[tuple[str, int, str], ...] = ()

    @property
    def adds_up(self) -> bool:
        """Whether in = ok + failed + skipped, each row recorded once."""
        return self.num_in == self.num_ok + self.num_failed + self.num_skipped and not self.num_doubled


class _Kinds:
    """Numbers for error kinds, 0 for none, and the last message seen of each."""

    def __init__(self) -> None:
        self._names = [""]
        self._examples = {"": ""}

    def number(self, kind: str | None, message: str | None) -> int:
        name = kind or ""
        if name not in self._examples:
            self._names.append(name)
        self._examples[name] = message or ""
        return self._names.index(name)

    def count(self, numbers: npt.NDArray[np.integer]) -> tuple[tuple[str, int, str], ...]:
        """(kind, count, example), most frequent first."""
        counted = Counter(self._names[number] for number in numbers.tolist())
        return tuple((name, count, self._examples[name]) for name, count in counted.most_common())


class Ledger:
    """The current record of every (id, sample) in a store."""

    def __init__(self, recorded: npt.NDArray[np.void], kinds: _Kinds) -> None:
        order = np.lexsort((recorded["finished_at"], recorded["attempt"], recorded["key"]))
        recorded = recorded[order]
        keys, attempts = recorded["key"], recorded["attempt"]
        is_last = _is_last(keys)
        is_twin = (keys[1:] == keys[:-1]) & (attempts[1:] == attempts[:-1]) & is_last[1:]
        self._current = recorded[list(_CURRENT.names or ())][is_last].astype(_CURRENT)
        self._doubled = keys[1:][is_twin]
        self._kinds = kinds

    @classmethod
    def load(cls, store_root: str) -> Ledger:
        """Read ``records/*.parquet`` below a store; none is an empty ledger. Raises OutputError for a broken file."""
        kinds = _Kinds()
        files = uri.list_files(uri.join(store_root, store.RECORDS), suffix=".parquet")
        parts = [_recorded(file, table, kinds) for file, table in zip(files, _read_all(files), strict=True)]
        return cls(np.concatenate([np.empty(0, _RECORDED), *parts]), kinds)

    @property
    def num_records(self) -> int:
        """How many (id, sample) have a record."""
        return len(self._current)

    def split(self, plan: pa.Table, *, retry_failed: bool) -> pa.Table:
        """The planned rows that are still to do, each with the attempt that follows its last one.

        A row is done when its current record has the same content and is ok, or, unless ``retry_failed``, failed or
        skipped.
        """
        planned = digest(plan)
        found, record = self._find(planned["key"])
        attempts = np.where(found, record["attempt"] + 1, 1).astype(np.int32)
        is_done = found & (record["content"] == planned["content"])
        if retry_failed:
            is_done &= record["status"] == _OK
        position = plan.schema.get_field_index("attempt")
        plan = plan.set_column(position, plan.schema.field(position), pa.array(attempts, pa.int32()))
        return plan.filter(pa.array(~is_done))

    def is_current(self, records: pa.Table) -> npt.NDArray[np.bool_]:
        """Which of these records (``id``, ``sample``, ``attempt``) are the current ones of their rows."""
        ids, samples, attempts = (records[name].to_pylist() for name in ("id", "sample", "attempt"))
        keys = [key_digest(row_id, sample) for row_id, sample in zip(ids, samples, strict=True)]
        found, record = self._find(np.frombuffer(b"".join(keys), "S16"))
        is_current: npt.NDArray[np.bool_] = found & (record["attempt"] == np.array(attempts, dtype=np.int32))
        return is_current

    def lost(self, planned: Digests) -> npt.NDArray[np.bool_]:
        """Which of these planned rows have no image by their current record, failed or skipped."""
        found, record = self._find(planned["key"])
        is_lost: npt.NDArray[np.bool_] = found & (record["content"] == planned["content"]) & (record["status"] != _OK)
        return is_lost

    def audit(self, planned: Digests) -> Audit:
        """What became of these planned rows; a row that is named twice counts once."""
        planned = planned[np.argsort(planned["key"])]
        planned = planned[_is_last(planned["key"])]
        found, record = self._find(planned["key"])
        record = record[found & (record["content"] == planned["content"])]
        ok, failed, skipped = (int(np.sum(record["status"] == code)) for code in range(len(_STATUSES)))
        return Audit(
            num_in=len(planned),
            num_ok=ok,
            num_failed=failed,
            num_skipped=skipped,
            num_missing=len(planned) - len(record),
            num_doubled=int(np.isin(self._doubled, planned["key"]).sum()),
            errors=self._kinds.count(record["kind"][record["status"] != _OK]),
        )

    def _find(self, keys: npt.NDArray[np.bytes_]) -> tuple[npt.NDArray[np.bool_], npt.NDArray[np.void]]:
        """Whether each key has a record, and that record (any other where it has none)."""
        if not len(self._current):
            return np.zeros(len(keys), dtype=bool), np.zeros(len(keys), dtype=_CURRENT)
        position = np.minimum(np.searchsorted(self._current["key"], keys), len(self._current) - 1)
        record = self._current[position]
        return record["key"] == keys, record


def _is_last(keys: npt.NDArray[np.bytes_]) -> npt.NDArray[np.bool_]:
    """Of sorted keys: which are the last of their kind."""
    return np.append(keys[1:] != keys[:-1], np.ones(min(1, len(keys)), dtype=bool))


def key_digest(row_id: str, sample: int) -> bytes:
    """The key of one (id, sample)."""
    return blake2b(f"{sample}\0{row_id}".encode(), digest_size=16).digest()


def digest(table: pa.Table) -> Digests:
    """The keys and contents of planned rows or records, in their order."""
    found = np.empty(table.num_rows, DIGEST)
    ids, samples = table.column("id").to_pylist(), table.column("sample").to_pylist()
    keys = [key_digest(row_id, sample) for row_id, sample in zip(ids, samples, strict=True)]
    found["key"] = np.frombuffer(b"".join(keys), "S16")
    contents = [bytes.fromhex(row_hash[:32]) for row_hash in table.column("row_hash").to_pylist()]
    found["content"] = np.frombuffer(b"".join(contents), "S16")
    return found


def _read_all(files: Sequence[str]) -> Iterator[pa.Table]:
    """The columns that count of each file, in order. A store has many small files: several are read at a time."""
    with ThreadPoolExecutor(_READERS) as readers:
        for start in range(0, len(files), 4 * _READERS):
            yield from readers.map(_read_records, files[start : start + 4 * _READERS])


def _read_records(file: str) -> pa.Table:
    try:
        with uri.open_read(file) as stream:
            return pq.ParquetFile(stream).read(columns=_COLUMNS).select(_COLUMNS).cast(_SCHEMA)
    except (OSError, ValueError, KeyError, pa.ArrowException) as error:
        raise _broken(file, error) from None


def _broken(file: str, error: Exception) -> OutputError:
    reason = first_line(error)
    return OutputError(
        f"records file {uri.redact(file)} can't be read: {reason}; if it is damaged, remove it: its rows are made again"
    )


def _recorded(file: str, table: pa.Table, kinds: _Kinds) -> npt.NDArray[np.void]:
    found = np.empty(table.num_rows, _RECORDED)
    try:
        digests = digest(table)
        found["status"] = [_STATUSES.index(status) for status in table.column("status").to_pylist()]
    except ValueError as error:
        raise _broken(file, error) from None
    found["key"], found["content"] = digests["key"], digests["content"]
    found["attempt"] = table.column("attempt").to_numpy()
    found["finished_at"] = table.column("finished_at").cast(pa.int64()).to_numpy()
    errors = zip(table.column("error_kind").to_pylist(), table.column("error").to_pylist(), strict=True)
    found["kind"] = [kinds.number(kind, message) for kind, message in errors]
    return found
