"""What is already done: the records of a store, as arrays of digests. Knows no manifest and starts nothing.

One planned row or record is a key, 16 bytes of a digest of (id, sample), and a content, the first 16 bytes of its
``row_hash``. The record of a key with the highest attempt is the current one; of two of the same attempt the newest; of
two of the same microsecond the last by its file's name, which is run id and digest. Two of the same attempt that differ
in content, status or image are torn: nobody can say whose image the store has, so the row is done again.

A ledger keeps 39 bytes for each key and no Python object: 4 GB for 100 million rows, and about three times that while
it is loaded.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from enum import IntEnum
from hashlib import blake2b

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from omnigen_actor import store, uri
from omnigen_actor.errors import ErrorKind, OutputError, first_line
from omnigen_actor.schema import RECORD, Status
from pipelines.config import ALL
from pipelines.summary import Audit

DIGEST = np.dtype([("key", "S16"), ("content", "S16")])
"""Compared as 16 bytes each; ``tobytes`` gives them whole, where numpy's items lose trailing zeros."""

Digests = npt.NDArray[np.void]
"""An array of DIGEST."""

_STATUSES = [Status.OK, Status.FAILED, Status.SKIPPED]
_OK = _STATUSES.index(Status.OK)
_RECORDED = np.dtype(
    [*DIGEST.descr, ("attempt", "i4"), ("finished_at", "i8"), ("status", "u1"), ("kind", "u2"), ("image", "u8")]
)
_CURRENT = np.dtype([("content", "S16"), ("attempt", "i4"), ("status", "u1"), ("kind", "u2")])
_COLUMNS = ["id", "sample", "attempt", "row_hash", "status", "error_kind", "error", "sha256", "finished_at"]
_SCHEMA = pa.schema([RECORD.field(name) for name in _COLUMNS])
_READERS = 16


class Standing(IntEnum):
    """What the current record of a planned row says of it."""

    NEW = 0  # there is none of this content: to do
    OK = 1
    FAILED = 2
    SKIPPED = 3
    AGAIN = 4  # there is one, and it is not to stay: to do


Standings = npt.NDArray[np.uint8]
"""An array of Standing."""


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

    def among(self, numbers: npt.NDArray[np.integer], names: Collection[str]) -> npt.NDArray[np.bool_]:
        """Which of these numbers are of kinds with one of these names."""
        return np.isin(numbers, [number for number, name in enumerate(self._names) if name in names])

    def count(self, numbers: npt.NDArray[np.integer]) -> tuple[tuple[str, int, str], ...]:
        """(kind, count, example), most frequent first."""
        counted = Counter(self._names[number] for number in numbers.tolist())
        return tuple((name, count, self._examples[name]) for name, count in counted.most_common())


class Ledger:
    """The current record of every (id, sample) in a store."""

    def __init__(self, recorded: npt.NDArray[np.void], kinds: _Kinds) -> None:
        # The sort is stable, and the files come in the order of their names.
        order = np.lexsort((recorded["finished_at"], recorded["attempt"], recorded["key"]))
        recorded = recorded[order]
        is_last = _is_last(recorded["key"])
        # Keys are an array of their own: numpy would copy a field for each search in it.
        self._keys = np.ascontiguousarray(recorded["key"][is_last])
        self._current = recorded[list(_CURRENT.names or ())][is_last].astype(_CURRENT)
        self.doubled, self._torn = _find_doubled(recorded)
        self._kinds = kinds

    @classmethod
    def load(cls, store_root: str, *, on_broken: Callable[[str, OutputError], None] | None = None) -> Ledger:
        """Read ``records/*.parquet`` below a store; none is an empty ledger.

        A broken file is told to ``on_broken`` and left out; without it, raises OutputError.
        """
        kinds = _Kinds()
        files = uri.list_files(uri.join(store_root, store.RECORDS), suffix=".parquet")
        parts = [np.empty(0, _RECORDED)]
        for file, read in zip(files, _read_all(files), strict=True):
            try:
                parts.append(_recorded(file, read(), kinds))
            except OutputError as error:
                if on_broken is None:
                    raise
                on_broken(file, error)
        return cls(np.concatenate(parts), kinds)

    @property
    def num_records(self) -> int:
        """How many (id, sample) have a record."""
        return len(self._current)

    @property
    def torn(self) -> npt.NDArray[np.bytes_]:
        """The keys among ``doubled`` whose records differ."""
        return self._torn

    def split(self, plan: pa.Table, *, retry: Collection[str] = ()) -> pa.Table:
        """The planned rows that are still to do, each with the attempt that follows its last one.

        A row is done when its current record has the same content, is not torn, and is ok, or failed or skipped and not
        to ``retry`` (see ``stand``). One whose image is lost is never done.
        """
        return self.next_attempt(plan.filter(pa.array(is_to_do(self.stand(digest(plan), retry=retry)))))

    def stand(self, planned: Digests, *, retry: Collection[str] = ()) -> Standings:
        """The Standing of each planned row. ``retry``: error kinds of failed rows that are not to stay, or ALL."""
        found, record = self._find(planned["key"])
        standing = np.where(found & (record["content"] == planned["content"]), 1 + record["status"], Standing.NEW)
        has_record = standing != Standing.NEW
        if len(self._torn):
            standing[has_record & np.isin(planned["key"], self._torn)] = Standing.AGAIN
        if ALL in retry:
            standing[np.isin(standing, (Standing.FAILED, Standing.SKIPPED))] = Standing.AGAIN
        else:
            again = self._kinds.among(record["kind"], [*retry, ErrorKind.IMAGE_LOST])
            standing[(standing == Standing.FAILED) & again] = Standing.AGAIN
        return standing.astype(np.uint8)

    def next_attempt(self, plan: pa.Table) -> pa.Table:
        """The planned rows, each with the attempt that follows its last one."""
        found, record = self._find(digest(plan)["key"])
        attempts = np.where(found, record["attempt"] + 1, 1).astype(np.int32)
        position = plan.schema.get_field_index("attempt")
        return plan.set_column(position, plan.schema.field(position), pa.array(attempts, pa.int32()))

    def is_current(self, records: pa.Table) -> npt.NDArray[np.bool_]:
        """Which of these records (``id``, ``sample``, ``attempt``) are the current ones of their rows."""
        ids, samples, attempts = (records[name].to_pylist() for name in ("id", "sample", "attempt"))
        keys = [key_digest(row_id, sample) for row_id, sample in zip(ids, samples, strict=True)]
        found, record = self._find(np.frombuffer(b"".join(keys), "S16"))
        is_current: npt.NDArray[np.bool_] = found & (record["attempt"] == np.array(attempts, dtype=np.int32))
        return is_current

    def audit(
        self,
        planned: Digests,
        is_chosen: npt.NDArray[np.bool_] | None = None,
        known_doubled: npt.NDArray[np.bytes_] | None = None,
    ) -> Audit:
        """What became of these planned rows; a row that is named twice counts once.

        ``is_chosen``: for each whether the run was to make it; default: all. ``known_doubled``: keys of rows that had
        two records before; they count as doubled only where those are torn.
        """
        order = np.argsort(planned["key"], kind="stable")
        order = order[_is_last(planned["key"][order])]
        planned, is_chosen = planned[order], np.ones(len(order), bool) if is_chosen is None else is_chosen[order]
        found, record = self._find(planned["key"])
        is_recorded = found & (record["content"] == planned["content"])
        others = record[is_recorded & ~is_chosen]
        missing = is_chosen[~is_recorded]
        doubled = self.doubled if known_doubled is None else np.setdiff1d(self.doubled, known_doubled)
        record = record[is_recorded]
        ok, failed, skipped = (int(np.sum(record["status"] == code)) for code in range(len(_STATUSES)))
        return Audit(
            num_in=len(planned),
            num_ok=ok,
            num_failed=failed,
            num_skipped=skipped,
            num_left_out=int(np.sum(~missing)),
            num_missing=int(np.sum(missing)),
            num_doubled=int(np.isin(np.union1d(doubled, self._torn), planned["key"]).sum()),
            num_not_chosen=len(others),
            num_not_chosen_failed=int(np.sum(others["status"] != _OK)),
            errors=self._kinds.count(record["kind"][record["status"] != _OK]),
        )

    def _find(self, keys: npt.NDArray[np.bytes_]) -> tuple[npt.NDArray[np.bool_], npt.NDArray[np.void]]:
        """Whether each key has a record, and that record (any other where it has none)."""
        if not len(self._current):
            return np.zeros(len(keys), dtype=bool), np.zeros(len(keys), dtype=_CURRENT)
        position = np.minimum(np.searchsorted(self._keys, keys), len(self._keys) - 1)
        return self._keys[position] == keys, self._current[position]


def is_to_do(standing: Standings) -> npt.NDArray[np.bool_]:
    """Of each Standing: whether the row is to do."""
    return np.isin(standing, (Standing.NEW, Standing.AGAIN))


def _find_doubled(recorded: npt.NDArray[np.void]) -> tuple[npt.NDArray[np.bytes_], npt.NDArray[np.bytes_]]:
    """Of sorted records: the keys with several of their last attempt, and those among them whose records differ."""
    keys, attempts = recorded["key"], recorded["attempt"]
    is_twin = (keys[1:] == keys[:-1]) & (attempts[1:] == attempts[:-1])
    # From a key's last record backwards, as long as the attempt is the same.
    last = np.searchsorted(keys, keys[1:], side="right") - 1
    is_twin &= attempts[last] == attempts[1:]
    differs = np.zeros(len(is_twin), dtype=bool)
    for name in ("content", "status", "image"):
        differs |= recorded[name][1:] != recorded[name][:-1]
    return np.unique(keys[1:][is_twin]), np.unique(keys[1:][is_twin & differs])


def _is_last(keys: npt.NDArray[np.bytes_]) -> npt.NDArray[np.bool_]:
    """Of sorted keys: which are the last of their kind."""
    return np.append(keys[1:] != keys[:-1], np.ones(min(1, len(keys)), dtype=bool))


def key_digest(row_id: str, sample: int) -> bytes:
    """The key of one (id, sample)."""
    return blake2b(f"{sample}\0{row_id}".encode(), digest_size=16).digest()


def digest(table: pa.Table) -> Digests:
    """The keys and contents of planned rows or records, in their order."""
    ids, samples = table.column("id").to_pylist(), table.column("sample").to_pylist()
    keys = [key_digest(row_id, sample) for row_id, sample in zip(ids, samples, strict=True)]
    return digests_of(np.frombuffer(b"".join(keys), "S16"), table.column("row_hash").to_pylist())


def digests_of(keys: npt.NDArray[np.bytes_], hashes: Sequence[str]) -> Digests:
    """These keys, or one for all, with the contents that these hashes stand for."""
    found = np.empty(len(hashes), DIGEST)
    found["key"] = keys
    found["content"] = np.frombuffer(b"".join(bytes.fromhex(one[:32]) for one in hashes), "S16")
    return found


def _read_all(files: Sequence[str]) -> Iterator[Callable[[], pa.Table]]:
    """For each file, in order, what gives the columns that count or raises. A store has many small files: several are
    read at a time.
    """
    with ThreadPoolExecutor(_READERS) as readers:
        for start in range(0, len(files), 4 * _READERS):
            begun = [readers.submit(_read_records, file) for file in files[start : start + 4 * _READERS]]
            yield from (one.result for one in begun)


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
        found["image"] = [int(sha256[:16], 16) if sha256 else 0 for sha256 in table.column("sha256").to_pylist()]
    except ValueError as error:
        raise _broken(file, error) from None
    found["key"], found["content"] = digests["key"], digests["content"]
    found["attempt"] = table.column("attempt").to_numpy()
    found["finished_at"] = table.column("finished_at").cast(pa.int64()).to_numpy()
    errors = zip(table.column("error_kind").to_pylist(), table.column("error").to_pylist(), strict=True)
    found["kind"] = [kinds.number(kind, message) for kind, message in errors]
    return found
