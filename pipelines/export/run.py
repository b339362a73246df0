"""The main flow of an export, on one page: choose -> plan -> shards -> put together -> card -> marker.

What is done stays: the same command after a crash continues, and over a whole export it writes nothing.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from hashlib import sha256
from typing import Any

import pyarrow as pa

from omnigen_actor import uri
from omnigen_actor.errors import OutputError
from pipelines import cluster
from pipelines.config import WorkerConfig
from pipelines.export import choosing, tables
from pipelines.export.config import ExportConfig
from pipelines.export.destination import Destination, report_path, shard_path
from pipelines.export.examples import PAIRED
from pipelines.export.finishing import Finishing
from pipelines.export.format import File
from pipelines.export.formats import format_of
from pipelines.export.paired import read_pairs
from pipelines.export.plan import Plan, make_plan
from pipelines.export.read import ReadImages
from pipelines.export.score_columns import ScoreColumns
from pipelines.export.selections import Selection
from pipelines.export.shard import WriteShards, task_of
from pipelines.export.staging import Staging
from pipelines.input_places import InputPlaces
from pipelines.locations import locate
from pipelines.stopping import store_failures
from pipelines.stored import open_store

VERSION = 1
"""Of what is written: another one is another plan."""

_WORKERS = WorkerConfig(device="cpu")
_MIB = 2**20

OnShards = Callable[[int, int], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Exported:
    """``marker``: what ``export.json`` says. ``is_new``: whether this call wrote it."""

    root: str
    marker: dict[str, Any]
    is_new: bool


def export(location: str, output: str, config: ExportConfig, *, on_shards: OnShards | None = None) -> Exported:
    """Export the images of a store to ``output``. ``on_shards`` hears how many shards of how many are done.

    Raises StartupError before a file is written, RunStopped after: the same call continues then.
    """
    with store_failures(OutputError):
        root = open_store(location)
        destination = Destination(locate(output, OutputError, "output "))
        _check_apart(root, destination.root)
        places = InputPlaces.read(root, config.inputs.image_root)
        read = ReadImages(root, config.inputs, places.allowed(config.inputs))
        selection = _selection(root, config)
        scores = ScoreColumns.read(root, config.score_names)
    fmt = format_of(config)
    with Staging(choosing.schema_of(scores)) as staging:
        with store_failures(OutputError):
            chosen = choosing.choose(places, fmt, selection, scores, staging)
            told = _told(config, selection, scores, chosen)
            columns = PAIRED.names if config.has_pairs else [field.name for field in scores.fields]
            plan = make_plan(staging, config.shard_mib * _MIB, told, columns)
            is_new = destination.claim(plan.digest, replace=config.replace)
        if is_new:
            with store_failures():
                _make(WriteShards(destination, fmt, read), plan, staging, config, on_shards)
                Finishing(
                    destination=destination,
                    format=fmt,
                    read=read,
                    plan=plan,
                    staging=staging,
                    chosen=chosen,
                    scores=scores,
                    config=config,
                    version=VERSION,
                ).finish()
        return Exported(root=destination.root, marker=destination.marker() or {}, is_new=is_new)


def _selection(root: str, config: ExportConfig) -> Selection | None:
    if config.selection is None:
        return None
    return read_pairs(root, config.selection) if config.has_pairs else Selection.read(root, config.selection)


def _check_apart(root: str, destination: str) -> None:
    """An export in a store would be taken for a part of it, and one around it is removed with it."""
    one, other = (f"{os.path.realpath(uri_) if uri.is_local(uri_) else uri_}/" for uri_ in (root, destination))
    if one.startswith(other) or other.startswith(one):
        raise OutputError(f"{uri.redact(destination)!r}: the store and the export must not lie in each other")


def _told(
    config: ExportConfig, selection: Selection | None, scores: ScoreColumns, chosen: choosing.Chosen
) -> dict[str, Any]:
    """All that the bytes of an export hang on beside its rows."""
    limits = config.inputs
    return {
        "version": VERSION,
        "format": config.format,
        "shard_mib": config.shard_mib,
        "path_prefix": config.path_prefix,
        "selection": selection and [config.selection, sha256(selection.told).hexdigest()],
        "scores": scores.told,
        "left_out": [[one.id, one.sample, *one.refusal] for one in chosen.left_out],
        "inputs": [limits.image_root, limits.allow, limits.max_image_bytes, limits.max_image_pixels],
    }


def _make(write: WriteShards, plan: Plan, staging: Staging, config: ExportConfig, on_shards: OnShards | None) -> None:
    """Write the shards that are not there yet."""
    scratch = write.destination.scratch()
    todo = [shard for shard in plan.shards if report_path(shard.number) not in scratch]
    for shard in todo:
        path = shard_path(shard.number)
        if path not in scratch:
            rows = staging.take(plan.rows[shard.number])
            write.destination.write(File(path, tables.to_parquet([rows], staging.schema)))
    if not todo:
        return
    num_done = len(plan.shards) - len(todo)
    with cluster.joined(config.ray_address, _WORKERS), cluster.settings_of_a_run(_WORKERS):
        for num_more in _execute(write, [task_of(shard) for shard in todo]):
            num_done += num_more
            if on_shards:
                on_shards(num_done, len(plan.shards))


def _execute(write: WriteShards, tasks: Sequence[pa.Table]) -> Iterator[int]:
    """Run the shards, one a task; how many are done each time that some are."""
    import ray

    done = ray.data.from_arrow(list(tasks)).map_batches(
        write, batch_size=None, batch_format="pyarrow", zero_copy_batch=True, num_cpus=1
    )
    found: Iterable[pa.Table] = done.iter_batches(batch_size=None, batch_format="pyarrow", prefetch_batches=0)
    for table in found:
        yield table.num_rows
