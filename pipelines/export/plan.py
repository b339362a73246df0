"""The staged rows in one order, cut into shards; and the digest that tells one plan from another. Writes nothing.

The order is (split, group, task, number of inputs, id, sample): it hangs on content, not on how a store came about.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from pipelines.export.format import Shard
from pipelines.export.staging import Staging

_ORDER = ("split", "group", "task", "id", "sample")
_TOLD = (
    "id",
    "sample",
    "attempt",
    "row_hash",
    "output_sha256",
    "run_id",
    "split",
    "group",
    "input_references",
    "input_sha256",
)
_SIZED = ("split", "group", "num_bytes", "num_inputs", "chosen_sample")
_ROWS_AT_A_TIME = 65536

Numbers = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """Shards in order, and the numbers of the staged rows of each."""

    digest: str
    shards: tuple[Shard, ...]
    rows: tuple[Numbers, ...]


def make_plan(staging: Staging, shard_bytes: int, told: dict[str, Any], columns: Sequence[str] = ()) -> Plan:
    """``told``: all that the export's bytes hang on beside the rows. ``columns``: which of theirs it hangs on, too.

    A shard has images of about ``shard_bytes``; inputs, whose sizes nobody has recorded, count as much as the output,
    and so does the chosen image of a pair.
    """
    digest = hashlib.sha256(json.dumps(told, sort_keys=True).encode())
    cuts = _Cuts(shard_bytes)
    for rows, numbers in _in_order(staging):
        for row in rows.select([*_TOLD, *columns]).to_pylist():
            digest.update(json.dumps(list(row.values()), ensure_ascii=False).encode())
        sizes = zip(*(rows[name].to_pylist() for name in _SIZED), strict=True)
        for number, (split, group, num_bytes, num_inputs, chosen) in zip(numbers.tolist(), sizes, strict=True):
            cuts.add(number, (split, group), (num_bytes or 0) * (1 + num_inputs + (chosen is not None)))
    return cuts.plan(digest.hexdigest())


class _Cuts:
    """Rows that come in order, cut into shards."""

    def __init__(self, shard_bytes: int) -> None:
        self._shard_bytes = shard_bytes
        self._shards: list[Shard] = []
        self._rows: list[Numbers] = []
        self._numbers: list[int] = []
        self._kind = ("", "")
        self._num_bytes = 0

    def add(self, number: int, kind: tuple[str, str], num_bytes: int) -> None:
        if self._numbers and (kind != self._kind or self._num_bytes + num_bytes > self._shard_bytes):
            self._close()
        self._kind = kind
        self._numbers.append(number)
        self._num_bytes += num_bytes

    def plan(self, digest: str) -> Plan:
        if self._numbers:
            self._close()
        counts: dict[tuple[str, str], int] = {}
        for shard in self._shards:
            counts[shard.split, shard.group] = shard.index + 1
        shards = tuple(replace(shard, count=counts[shard.split, shard.group]) for shard in self._shards)
        return Plan(digest=digest, shards=shards, rows=tuple(self._rows))

    def _close(self) -> None:
        split, group = self._kind
        last = self._shards[-1] if self._shards else None
        index = last.index + 1 if last and (last.split, last.group) == self._kind else 0
        self._shards.append(Shard(number=len(self._shards), split=split, group=group, index=index, count=0))
        self._rows.append(np.array(self._numbers, np.int64))
        self._numbers, self._num_bytes = [], 0


def _in_order(staging: Staging) -> Iterator[tuple[pa.Table, Numbers]]:
    """All rows in order, some at a time, with their numbers."""
    if not staging.num_rows:
        return
    keys = _with_num_inputs(staging.columns([*_ORDER, "image_uris"]))
    by = [(name, "ascending") for name in (*_ORDER[:3], "num_inputs", *_ORDER[3:])]
    order = pc.sort_indices(keys, sort_keys=by).to_numpy().astype(np.int64)
    del keys
    for start in range(0, len(order), _ROWS_AT_A_TIME):
        numbers = order[start : start + _ROWS_AT_A_TIME]
        yield _with_num_inputs(staging.take(numbers)), numbers


def _with_num_inputs(rows: pa.Table) -> pa.Table:
    return rows.append_column("num_inputs", pc.list_value_length(rows["image_uris"]))
