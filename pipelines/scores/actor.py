"""One block of loaded pictures through the scorers that want them, into the store. Knows no Ray and no plan."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from omnigen_actor import uri
from pipelines.scores.pictures import to_picture
from pipelines.scores.scorer import ERROR_COLUMN, ID_COLUMNS, Scorer, ScorerSpec, error_table, score_table
from pipelines.scores.stored import part_key

SCORED = pa.schema(
    [
        pa.field("name", pa.string(), nullable=False),
        pa.field("num_scored", pa.int64(), nullable=False),
        pa.field("num_errors", pa.int64(), nullable=False),
        pa.field("example", pa.string()),  # one of the errors
    ]
)
"""What the driver learns of one file of scores."""


class ScoreBlocks:
    """LOADED in, SCORED out: the scores are in the store when this returns.

    The names of the files depend on the images alone, so a task that is retried overwrites its own.
    """

    def __init__(self, specs: Sequence[ScorerSpec], store_root: str, timeout_s: float = uri.DEFAULT_TIMEOUT_S) -> None:
        """Opens the scorers. ``timeout_s``: for how long a store that takes nothing is tried again."""
        self._scorers = {spec.name: spec.open() for spec in specs}
        self._store_root = store_root
        self._timeout_s = timeout_s

    def __call__(self, table: pa.Table) -> pa.Table:
        """Score and write one block. Raises what the store raises."""
        wanted = table["scorers"].to_pylist()
        counts = []
        for name, scorer in self._scorers.items():
            indices = [index for index, names in enumerate(wanted) if name in names]
            if indices:
                counts.append(self._commit(name, score(scorer, table.take(pa.array(indices)))))
        return pa.Table.from_pylist(counts, schema=SCORED)

    def _commit(self, name: str, scores: pa.Table) -> dict[str, Any]:
        keys = zip(*(scores[column].to_pylist() for column in ID_COLUMNS), strict=True)
        sink = pa.BufferOutputStream()
        pq.write_table(scores, sink, compression="zstd")
        place = uri.join(self._store_root, part_key(name, keys))
        uri.write_bytes(place, sink.getvalue().to_pybytes(), timeout_s=self._timeout_s, retries=sys.maxsize)
        errors = scores[ERROR_COLUMN].drop_null()
        return {
            "name": name,
            "num_scored": scores.num_rows - len(errors),
            "num_errors": len(errors),
            "example": errors[0].as_py() if len(errors) else None,
        }


def score(scorer: Scorer, loaded: pa.Table) -> pa.Table:
    """The scores of LOADED rows, in their order: as many pictures at a time as the scorer wants."""
    is_bad = pc.is_valid(loaded["image_error"])
    if scorer.needs_inputs:
        is_bad = pc.or_(is_bad, pc.is_valid(loaded["inputs_error"]))
    good = [index for index, flag in enumerate(is_bad.to_pylist()) if not flag]
    bad = [index for index, flag in enumerate(is_bad.to_pylist()) if flag]
    tables = []
    for start in range(0, len(good), scorer.batch_size):
        rows = loaded.take(pa.array(good[start : start + scorer.batch_size])).to_pylist()
        tables.append(score_table(scorer, [to_picture(row, needs_inputs=scorer.needs_inputs) for row in rows]))
    for row in loaded.select([*ID_COLUMNS, "image_error", "inputs_error"]).take(pa.array(bad, pa.int64())).to_pylist():
        key = (row["id"], row["sample"], row["sha256"])
        tables.append(error_table([key], row["image_error"] or row["inputs_error"], scorer.columns))
    order = sorted(range(loaded.num_rows), key=[*good, *bad].__getitem__)
    return pa.concat_tables(tables).take(pa.array(order)).combine_chunks()
