"""One shard from its rows to its files and its report. A callable for Ray Data, and for anyone. Knows no other shard.

A shard that is done again writes the same bytes to the same places.
"""

from __future__ import annotations

import io
import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from omnigen_actor import uri
from pipelines.export.destination import Destination, report_path, shard_path
from pipelines.export.examples import STAGED, Example, example_of
from pipelines.export.format import SCRATCH, File, Format, Loaded, Refusal, Shard
from pipelines.export.read import ReadImages

TASK = pa.schema(
    [
        ("number", pa.int64()),
        ("split", pa.string()),
        ("group", pa.string()),
        ("index", pa.int64()),
        ("count", pa.int64()),
    ]
)
"""A shard to do, and one that is done."""

_MAX_BYTES = 2**32


def task_of(shard: Shard) -> pa.Table:
    """A shard as a table of one row."""
    return pa.Table.from_pylist([asdict(shard)], schema=TASK)


@dataclass(frozen=True, slots=True)
class WriteShards:
    """TASK in, TASK out: the files and the reports are written when this returns.

    Memory: the images of one shard, and of formats that put them into one file that file.
    """

    destination: Destination
    format: Format
    read: ReadImages

    def __call__(self, table: pa.Table) -> pa.Table:
        """Raises UriFailed where the store can't be read or DEST not be written."""
        for row in table.to_pylist():
            self._write(Shard(**row))
        return table

    def _write(self, shard: Shard) -> None:
        data = uri.read_bytes(self.destination.at(shard_path(shard.number)), max_bytes=_MAX_BYTES)
        rows = pq.read_table(io.BytesIO(data))
        scores = [field for field in rows.schema if field.name not in STAGED.names]
        examples = [example_of(row, [field.name for field in scores]) for row in rows.to_pylist()]
        loaded, left_out = self._load(examples)
        files = [self.destination.write(file) for file in self.format.write(shard, loaded, scores)]
        kept = [entry for entry in files if not entry[0].startswith(f"{SCRATCH}/")]
        told = _report(shard, loaded, left_out) | {"files": kept}
        self.destination.write(File(report_path(shard.number), (json.dumps(told) + "\n").encode()))

    def _load(self, examples: Sequence[Example]) -> tuple[list[Loaded], list[tuple[Example, Refusal]]]:
        loaded, left_out, wanted = list[Loaded](), list[tuple[Example, Refusal]](), list[Example]()
        for example in examples:
            refusal = self.format.refuse(example)
            if refusal:
                left_out.append((example, refusal))
            else:
                wanted.append(example)
        for example, outcome in zip(wanted, self.read(wanted), strict=True):
            if isinstance(outcome, Refusal):
                left_out.append((example, outcome))
            else:
                loaded.append(outcome)
        return loaded, left_out


def _report(shard: Shard, loaded: Sequence[Loaded], left_out: Sequence[tuple[Example, Refusal]]) -> dict[str, Any]:
    examples = [one.example for one in loaded]
    sizes = Counter(f"{example.width}x{example.height}" for example in examples)
    models = {example.provenance["model_sha256"]: example.provenance["model"] for example in examples}
    return {
        "shard": asdict(shard),
        "num_images": len(examples),
        "num_inputs": sum(len(example.inputs) for example in examples),
        "tasks": dict(sorted(Counter(example.task for example in examples).items())),
        "sizes": dict(sorted(sizes.items())),
        "models": dict(sorted(models.items())),
        "left_out": [[example.id, example.sample, *refusal] for example, refusal in left_out],
    }
