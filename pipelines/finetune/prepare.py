"""Examples -> latents on disk, once for all epochs: read, fetched, encoded and written by Ray Data.

Which rows are held out is settled here. A set that is whole and of the same source and settings is used as it is.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from omnigen_actor import uri
from omnigen_actor.allowed import Allowed
from omnigen_actor.errors import ManifestError
from pipelines import cluster
from pipelines.config import WorkerConfig
from pipelines.fetch import FetchImages
from pipelines.finetune import prepared
from pipelines.finetune.config import FinetuneConfig
from pipelines.finetune.prepared import Prepared
from pipelines.finetune.sources import TrainingSet

TRAIN, HELD_OUT = "train", "held_out"
_ROWS_PER_PART = 256
_BLOCKS = {"batch_size": None, "batch_format": "pyarrow", "zero_copy_batch": True}
_REPORT = pa.schema(
    [
        pa.field("split", pa.string(), nullable=False),
        pa.field("key", pa.string(), nullable=False),
        pa.field("num_rows", pa.int64(), nullable=False),
        pa.field("errors", pa.list_(pa.string()), nullable=False),
    ]
)


@dataclass(frozen=True, slots=True, kw_only=True)
class PreparedSets:
    """Both parts of a set, and what could not be read: the number of rows by kind, with an example of each."""

    train: Prepared
    held_out: Prepared
    failed: dict[str, int]
    examples: dict[str, str]
    made_of: dict[str, Any]


def prepare(source: TrainingSet, folder: str, config: FinetuneConfig, model_sha256: str) -> PreparedSets:
    """The prepared set in ``folder``, made now unless it is there. Inside a Ray cluster.

    Raises ManifestError where more rows can't be read than ``max_failed`` allows, or none can.
    """
    rows = list(source.batches())
    made_of = {**_made_of(source, config, model_sha256), "rows": _digest(rows)}
    there = _read_sets(folder)
    if there and there.made_of == made_of:
        return there
    parts: dict[str, dict[str, int]] = {TRAIN: {}, HELD_OUT: {}}
    failed: Counter[str] = Counter()
    examples: dict[str, str] = {}
    for report in _execute(rows, folder, config, source.allowed(config.inputs)):
        if report["num_rows"]:
            parts[report["split"]][report["key"]] = report["num_rows"]
        for kind, message in (text.split("\0", 1) for text in report["errors"]):
            failed[kind] += 1
            examples.setdefault(kind, message)
    _check(parts, failed, examples, config.data.max_failed)
    told = {"made_of": made_of, "failed": dict(failed), "examples": examples}
    for split, listed in parts.items():
        prepared.write_index(uri.join(folder, split), listed, told)
    written = _read_sets(folder)
    assert written, "both indices were just written"
    return written


def _made_of(source: TrainingSet, config: FinetuneConfig, model_sha256: str) -> dict[str, Any]:
    return {
        "source": uri.redact(source.uri),
        "image_root": source.image_root and uri.redact(source.image_root),
        "max_image_size": config.data.max_image_size,
        "validation_share": config.data.validation_share,
        "model": model_sha256,
    }


def _digest(tables: Sequence[pa.Table]) -> str:
    """Tells one set of rows and pictures' names from any other."""
    digest = hashlib.sha256()
    for table in tables:
        for row in table.select(["row_hash", "image_uris"]).to_pylist():
            digest.update("\0".join([row["row_hash"], *row["image_uris"], ""]).encode())
    return digest.hexdigest()


def _read_sets(folder: str) -> PreparedSets | None:
    """What is in ``folder``, or None unless both sets of one preparation are whole."""
    train, held_out = (prepared.read_index(uri.join(folder, split)) for split in (TRAIN, HELD_OUT))
    if not train or not held_out or train[1] != held_out[1]:
        return None
    return PreparedSets(train=train[0], held_out=held_out[0], **train[1])


def _check(parts: dict[str, dict[str, int]], failed: Counter[str], examples: dict[str, str], max_failed: float) -> None:
    num_good = sum(sum(listed.values()) for listed in parts.values())
    if not num_good:
        reason = next(iter(examples.values()), "it has no rows")
        raise ManifestError(f"no example can be trained on: {reason}")
    percent = 100 * failed.total() / (failed.total() + num_good)
    if percent > max_failed:
        kinds = "; ".join(f"{kind} {number} (as {examples[kind]})" for kind, number in failed.most_common())
        raise ManifestError(
            f"{failed.total()} of {failed.total() + num_good} examples can't be read, {percent:.1f} %: {kinds}; "
            f"mend them, or allow it with --max-failed {percent:.1f}"
        )


def _execute(
    tables: Sequence[pa.Table], folder: str, config: FinetuneConfig, allowed: Allowed
) -> Iterator[dict[str, Any]]:
    """Run the stages; a report for each part that was written."""
    import ray
    from ray.data import ActorPoolStrategy

    from omnigen_actor.training.encoding import EncodeExamples

    pool = cluster.pool_of_this_cluster(replace(_DEFAULT_WORKERS, device=config.machine.device, num_actors=None))
    blocks = ray.data.from_arrow(list(tables)).repartition(target_num_rows_per_block=_ROWS_PER_PART)
    fetch = FetchImages(config.inputs, config.data.max_image_size, allowed)
    fetched = blocks.map_batches(fetch, num_cpus=0.5, **_BLOCKS)
    encoded = cluster.map_blocks(
        fetched,
        EncodeExamples,
        compute=ActorPoolStrategy(min_size=1, max_size=pool.num_actors),
        num_gpus=pool.gpus_per_actor,
        num_cpus=pool.cpus_per_actor,
        fn_constructor_kwargs={
            "model": config.model,
            "device": pool.device,
            "cpu_threads": config.machine.cpu_threads,
        },
        **_BLOCKS,
    )
    write = WriteParts(folder, config.data.validation_share)
    reports = encoded.map_batches(write, num_cpus=0.25, **_BLOCKS)
    for batch in reports.iter_batches(batch_size=None, batch_format="pyarrow"):
        yield from batch.to_pylist()


_DEFAULT_WORKERS = WorkerConfig()


@dataclass(frozen=True, slots=True)
class WriteParts:
    """PREPARED in, a report of each part out: the parts are on disk when this returns."""

    folder: str
    held_out_share: float

    def __call__(self, table: pa.Table) -> pa.Table:
        """Raises what the file system raises."""
        held_out = pa.array([prepared.is_held_out(row_id, self.held_out_share) for row_id in table["id"].to_pylist()])
        reports = []
        for split, chosen in ((TRAIN, pc.invert(held_out)), (HELD_OUT, held_out)):
            rows = table.filter(chosen)
            key, num_rows = prepared.write_part(uri.join(self.folder, split), rows)
            failed = rows.filter(pc.is_valid(rows["error_kind"]))
            errors = zip(failed["error_kind"].to_pylist(), failed["error"].to_pylist(), strict=True)
            told = [f"{kind}\0{message}" for kind, message in errors]
            reports.append({"split": split, "key": key, "num_rows": num_rows, "errors": told})
        return pa.Table.from_pylist(reports, schema=_REPORT)
