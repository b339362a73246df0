"""Preference pairs: a rejected sample, and the sample of its row that was kept instead. Knows no scores and no engine.

Rejected for what it is, by the condition or as not the best of its row: a duplicate, a surplus of a quota or an image
whose score is missing is no worse than the one that was kept.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from omnigen_actor.errors import OutputError
from pipelines.selection.best import NO_RANK
from pipelines.selection.decide import Verdict
from pipelines.selection.gather import Images
from pipelines.selection.written import to_strings

_SHOWN = ("task", "instruction", "prompt", "images", "image_sha256")
PAIRS = pa.schema(
    [
        pa.field("id", pa.string(), nullable=False),
        pa.field("task", pa.string()),
        pa.field("instruction", pa.string()),
        pa.field("prompt", pa.string()),
        pa.field("images", pa.list_(pa.string()), nullable=False),  # the input images, as the records name them
        pa.field("image_sha256", pa.list_(pa.string()), nullable=False),
        pa.field("chosen_sample", pa.int32(), nullable=False),
        pa.field("chosen_sha256", pa.string(), nullable=False),
        pa.field("chosen_key", pa.string(), nullable=False),  # path inside the store
        pa.field("rejected_sample", pa.int32(), nullable=False),
        pa.field("rejected_sha256", pa.string(), nullable=False),
        pa.field("rejected_key", pa.string(), nullable=False),
        pa.field("reason", pa.string(), nullable=False),  # of the rejected one
        pa.field("split", pa.string(), nullable=False),  # of the chosen one
        pa.field("margin", pa.float64()),  # by how much the chosen one is better; null without a score of both
    ]
)
"""One line for each rejected sample of a row that has a kept one, in the order of (id, sample)."""


def find(images: Images, verdict: Verdict) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """(chosen, rejected) of each pair. Chosen is the kept sample of the row with the best rank, else the first."""
    kept = np.flatnonzero(verdict.is_kept)
    worth = np.where(verdict.rank[kept] == NO_RANK, np.iinfo(np.int32).max, verdict.rank[kept])
    order = kept[np.lexsort((kept, worth, images.row[kept]))]
    rows, first = np.unique(images.row[order], return_index=True)
    rejected = np.flatnonzero(verdict.is_judged & ~verdict.is_kept)
    if not len(rows):
        return rejected[:0], rejected[:0]
    position = np.minimum(np.searchsorted(rows, images.row[rejected]), len(rows) - 1)
    has_chosen = rows[position] == images.row[rejected]
    return order[first[position[has_chosen]]], rejected[has_chosen]


def tables(records: Iterable[pa.Table], images: Images, verdict: Verdict, split_names: list[str]) -> Iterator[pa.Table]:
    """PAIRS as one table. ``records``: the store's current images once more.

    Memory grows by the records' texts of the rows in pairs.
    """
    chosen, rejected = find(images, verdict)
    shown = _Shown(records, images, np.union1d(chosen, rejected))
    margin = _margins(images, chosen, rejected)
    columns = {
        "id": images.id.take(pa.array(rejected)).cast(pa.string()),
        **{name: shown.take(name, rejected) for name in _SHOWN},
        "chosen_sample": images.sample[chosen],
        "chosen_sha256": to_strings(images.sha256, chosen),
        "chosen_key": shown.take("output_key", chosen),
        "rejected_sample": images.sample[rejected],
        "rejected_sha256": to_strings(images.sha256, rejected),
        "rejected_key": shown.take("output_key", rejected),
        "reason": pa.array(verdict.reasons, pa.string()).take(pa.array(verdict.reason[rejected])),
        "split": pa.array(split_names).take(pa.array(verdict.split[chosen])),
        "margin": pa.array(margin, mask=np.isnan(margin)),
    }
    yield pa.table(columns, schema=PAIRS)


class _Shown:
    """What records say of some images."""

    def __init__(self, records: Iterable[pa.Table], images: Images, positions: npt.NDArray[np.int64]) -> None:
        ids = images.id.take(pa.array(positions)).to_pylist()
        keys = zip(ids, images.sample[positions].tolist(), strict=True)
        wanted = dict(zip(keys, positions.tolist(), strict=True))
        columns = [*_SHOWN, "output_key"]
        found, parts = list[int](), list[pa.Table]()
        for table in records:
            here = zip(table["id"].to_pylist(), table["sample"].to_pylist(), strict=True)
            own = [(wanted[key], index) for index, key in enumerate(here) if key in wanted]
            found += [position for position, _ in own]
            parts.append(table.select(columns).take(pa.array([index for _, index in own], pa.int64())))
        if len(found) != len(wanted):
            raise OutputError("the store has changed while it was read: a run writes to it; select when it has ended")
        order = np.argsort(np.array(found, np.int64))
        self._positions = np.array(found, np.int64)[order]
        self._table = pa.concat_tables(parts).take(pa.array(order)) if parts else None

    def take(self, name: str, positions: npt.NDArray[np.int64]) -> pa.Array:
        if self._table is None:
            return pa.array([], PAIRS.field(name).type if name in PAIRS.names else pa.string())
        return self._table[name].take(pa.array(np.searchsorted(self._positions, positions))).combine_chunks()


def _margins(images: Images, chosen: npt.NDArray[np.int64], rejected: npt.NDArray[np.int64]) -> npt.NDArray[np.float64]:
    if images.scores is None:
        return np.full(len(chosen), np.nan)
    margin: npt.NDArray[np.float64] = images.scores[chosen] - images.scores[rejected]
    return margin
