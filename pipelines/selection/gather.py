"""The images of a store as arrays, read in a stream: of each only what a selection needs. Decides nothing.

Memory for an image: its id and 60 bytes, twice while they are sorted; 8 more each for a score to order by, a
near-duplicate group and each quota's column; for splits the links of ``families``. Columns of the condition alone are
held for one records file at a time.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from omnigen_actor.errors import OutputError
from pipelines.scores.stored import keys_of
from pipelines.selection import terms
from pipelines.selection.columns import RECORD_SOURCE, Column, Columns
from pipelines.selection.families import Links, hashes
from pipelines.selection.scored import Scored, ScoreFiles
from pipelines.selection.terms import Term
from pipelines.selection.where import KEPT, Where

_LINKED = ("id", "sha256", "parents", "image_sha256")


@dataclass(frozen=True, slots=True)
class Wanted:
    """What to gather. ``groups``: the column of near-duplicate groups."""

    where: Where | None
    by: Term | None
    quotas: tuple[Column, ...]
    groups: Column | None
    has_families: bool

    @property
    def columns(self) -> tuple[str, ...]:
        """Keys of all columns that are read beside the identity."""
        return terms.merged(
            self.where.columns if self.where else (),
            self.by.columns if self.by else (),
            tuple(one.key for one in self.quotas),
            (self.groups.key,) if self.groups else (),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Images:
    """An element for each image, in the order of (id, sample)."""

    id: pa.Array
    sample: npt.NDArray[np.int32]
    sha256: pa.Array  # 32 bytes each
    reason: npt.NDArray[np.int32]  # number in ``reasons``, or KEPT
    reasons: list[str]
    missing: frozenset[int]  # numbers of the reasons that judge nothing: a value is missing
    row: npt.NDArray[np.int64]  # the same number for samples of one row
    scores: npt.NDArray[np.float64] | None  # what to order by; NaN where it is missing
    group: npt.NDArray[np.int64] | None  # of near-duplicates; -1 without one
    family: npt.NDArray[np.int64] | None  # the first image of its family
    quota_values: list[tuple[npt.NDArray[np.int64], list[str | None]]]  # for each quota column: codes, their values


@dataclass(slots=True)
class _Codes:
    """Texts as numbers, in the order of their first appearance."""

    numbers: dict[str | None, int] = field(default_factory=dict)
    parts: list[npt.NDArray[np.int64]] = field(default_factory=list)

    def add(self, values: pa.Array) -> None:
        encoded = values.cast(pa.string()).dictionary_encode(null_encoding="encode")
        own = [self.numbers.setdefault(one, len(self.numbers)) for one in encoded.dictionary.to_pylist()]
        self.parts.append(np.array(own, np.int64)[encoded.indices.to_numpy()])


class Gatherer:
    """Takes in the store's tables one by one and gives the whole."""

    def __init__(self, wanted: Wanted, columns: Columns, scores: dict[str, ScoreFiles]) -> None:
        """Loads the scores that are wanted. Raises OutputError for a file that can't be read."""
        self._wanted = wanted
        self._columns = [columns[key] for key in wanted.columns]
        self._scored = {name: Scored(scores[name], self._names(name)) for name in scores if self._names(name)}
        self._ids: list[pa.Array] = []
        self._samples: list[npt.NDArray[np.int32]] = []
        self._sha256: list[pa.Array] = []
        self._reasons: list[npt.NDArray[np.int32]] = []
        self._by: list[npt.NDArray[np.float64]] = []
        self._groups: list[npt.NDArray[np.int64]] = []
        self._codes = [_Codes() for _ in wanted.quotas]
        self._links = Links()

    def add(self, records: pa.Table) -> None:
        """Take in current records of images."""
        wanted, table = self._wanted, self._joined(records)
        self._ids.append(records["id"].combine_chunks().cast(pa.large_string()))
        self._samples.append(records["sample"].to_numpy().astype(np.int32))
        self._sha256.append(_as_bytes(records))
        self._reasons.append(wanted.where.reject(table) if wanted.where else np.full(records.num_rows, KEPT, np.int32))
        if wanted.by:
            value = terms.as_array(terms.as_float(wanted.by.evaluate(table)), table.num_rows)
            self._by.append(value.to_numpy(zero_copy_only=False).astype(np.float64))
        for column, codes in zip(wanted.quotas, self._codes, strict=True):
            codes.add(table[column.key].combine_chunks())
        linked = records.select(_LINKED)
        if wanted.groups:
            groups = table[wanted.groups.key].combine_chunks().cast(pa.string())
            self._groups.append(_group_numbers(groups))
            linked = linked.append_column("duplicate_group", groups)
        if wanted.has_families:
            self._links.add(linked)

    def finish(self) -> Images:
        """All images, in the order of (id, sample), whatever order they came in."""
        ids = pa.concat_arrays([pa.array([], pa.large_string()), *self._ids])
        samples = _concatenated(self._samples, np.int32)
        keys = [("id", "ascending"), ("sample", "ascending")]
        order = pc.sort_indices(pa.table({"id": ids, "sample": samples}), sort_keys=keys)
        index = order.to_numpy().astype(np.int64)
        ids = ids.take(order)
        return Images(
            id=ids,
            sample=samples[index],
            sha256=pa.concat_arrays([pa.array([], pa.binary(32)), *self._sha256]).take(order),
            reason=_concatenated(self._reasons, np.int32)[index],
            reasons=self._wanted.where.reasons if self._wanted.where else [],
            missing=self._wanted.where.missing if self._wanted.where else frozenset(),
            row=_row_numbers(ids),
            scores=_concatenated(self._by, np.float64)[index] if self._wanted.by else None,
            group=_concatenated(self._groups, np.int64)[index] if self._wanted.groups else None,
            family=self._links.families(index) if self._wanted.has_families else None,
            quota_values=[(_concatenated(one.parts, np.int64)[index], list(one.numbers)) for one in self._codes],
        )

    def _names(self, source: str) -> list[str]:
        return [one.name for one in self._columns if one.source == source]

    def _joined(self, records: pa.Table) -> pa.Table:
        """The wanted columns by their keys, null where a file or a score does not have them."""
        image_keys = keys_of(records) if self._scored else np.empty(0, "S16")
        tables = {name: one.find(image_keys) for name, one in self._scored.items()} | {RECORD_SOURCE: records}
        columns = {}
        for one in self._columns:
            table = tables[one.source]
            has_it = one.name in table.column_names and not pa.types.is_null(table.schema.field(one.name).type)
            columns[one.key] = table[one.name] if has_it else pa.chunked_array([pa.nulls(table.num_rows, one.type)])
        return pa.table(columns) if columns else records.select(["id"])


def _group_numbers(groups: pa.Array) -> npt.NDArray[np.int64]:
    numbers = (hashes("group", groups.to_pylist()) >> np.uint64(1)).astype(np.int64)
    numbers[groups.is_null().to_numpy(zero_copy_only=False)] = -1
    return numbers


def _row_numbers(ids: pa.Array) -> npt.NDArray[np.int64]:
    """Of sorted ids: 0 for the first, one more for each other one."""
    if len(ids) < 2:
        return np.zeros(len(ids), np.int64)
    is_new = pc.not_equal(ids[1:], ids[:-1]).to_numpy(zero_copy_only=False)
    return np.concatenate([[0], np.cumsum(is_new)]).astype(np.int64)


def _as_bytes(records: pa.Table) -> pa.Array:
    """sha256 as 32 bytes instead of 64 digits."""
    digests = records["sha256"].to_pylist()
    try:
        data = bytes.fromhex("".join(digests))
    except (TypeError, ValueError):
        data = b""
    if len(data) != 32 * len(digests):
        raise OutputError("records of the store have no sha256 of their images; run python -m jobs.verify")
    return pa.FixedSizeBinaryArray.from_buffers(pa.binary(32), len(digests), [None, pa.py_buffer(data)])


def _concatenated(parts: Sequence[npt.NDArray[np.generic]], dtype: type) -> npt.NDArray[np.generic]:
    return np.concatenate([np.empty(0, dtype), *parts])
