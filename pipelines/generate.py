"""The main flow, on one page. Knows what follows what; each step is a module of its own.

run(manifest, output, config)           check -> plan -> fetch -> generate -> record -> account; continues a store
build_processor(config, output=...)     check -> fetch -> generate, as a function from Dataset to Dataset
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from threading import Event
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from omnigen_actor import attempts, store, uri
from omnigen_actor.actor import OmniGenActor
from omnigen_actor.allowed import Allowed
from omnigen_actor.engines import EngineSpec, verify_model, weights_bytes
from omnigen_actor.errors import ConfigError, OutputError
from omnigen_actor.images import EXTENSIONS
from pipelines import cluster, gpu_memory, lease, prometheus, records, run_info
from pipelines.choice import Choice
from pipelines.config import RunConfig
from pipelines.engine_use import read_engine_use
from pipelines.fetch import FetchImages
from pipelines.lease import Lease
from pipelines.ledger import Ledger
from pipelines.levels import AwaitMarks, Level, Progress
from pipelines.locations import locate
from pipelines.manifest import open_manifest
from pipelines.places import allowed_of_run
from pipelines.plan import PlanSummary, stage_plan
from pipelines.plan_parts import remove_others
from pipelines.planned import CheckRows, ReadPlan
from pipelines.records import WriteRecords
from pipelines.stopping import Stopping, at_each_step, store_failures
from pipelines.summary import Summary, Tally
from pipelines.task_files import load_tasks

if TYPE_CHECKING:
    from ray.data import Dataset

Processor = Callable[["Dataset"], "Dataset"]
RowFunction = Callable[[dict[str, Any]], dict[str, Any]]

_ARROW = {"batch_format": "pyarrow", "zero_copy_batch": True}
_BLOCKS = {"batch_size": None, **_ARROW}

# Shares of a CPU, so that fetching and recording go on side by side where there is but one beside the actors. They also
# keep Ray from fusing them with a CPU actor: then images would be fetched while no engine runs.
_FETCH_CPUS, _RECORD_CPUS = 0.5, 0.25


def run(
    manifest: str,
    output: str,
    config: RunConfig,
    *,
    on_start: Callable[[int], None] | None = None,
    on_progress: Callable[[Tally], None] | None = None,
    stop: Event | None = None,
) -> Summary:
    """Make every image of ``manifest`` that ``output`` does not have yet, and account for all of them.

    ``on_start`` hears how many rows there are to do, ``on_progress`` what has become of them so far. A row's failure is
    its record. Once ``stop`` is set, no batch begins, and those that run have ``grace_s`` to end; the rest is for the
    next run. Raises StartupError before an image is made, RunStopped after; without rows to do, Ray is not started.
    """
    started = time.monotonic()
    tasks = load_tasks(config.tasks)
    Choice(config.only, config.limit, tasks)  # a condition that is none is told before a model is fetched
    source = open_manifest(manifest, tasks)
    manifest_folder = source.base_folder
    source = replace(source, base_folder=_image_root(config, manifest_folder))
    model_sha256, store_root = _check_start(config, output)
    allowed = allowed_of_run(config.inputs, manifest_folder, store_root)
    made_with = run_info.fingerprint(config, model_sha256)
    run_id = run_info.new_run_id()
    with lease.hold(store_root, run_id, take_over=config.take_over) as held, store_failures():
        remove_others(store_root, run_id)
        history = run_info.read_history(store_root, made_with, allow_mixed=config.allow_mixed)
        ledger, earlier = Ledger.load(store_root), history.generations(config.generation)
        plan = stage_plan(source, config, ledger, store_root, run_id, tasks=tasks, earlier=earlier)
        del ledger  # it is large, and read again at the end
        run_info.write(
            store_root, made_with, history, run_id, config, manifest=source.uri, image_base=source.base_folder
        )
        if on_start:
            on_start(plan.num_to_do)
        tally = Tally()
        stopping = Stopping(stop, uri.join(store_root, store.stop_key(run_id)), config.grace_s)
        if plan.num_to_do and not stopping.is_asked:
            attempts.forget(store_root)
            with cluster.joined(config.ray_address, config.workers), cluster.settings_of_a_run(config.workers):
                _check_room(config)
                job = _Job(config, store_root, run_id, model_sha256, allowed)
                tally = _execute(job, plan.levels, stopping, held, on_progress or (lambda _: None))
            attempts.forget(store_root)
        held.look()
        held.check()
        return _account(plan, tally, store_root, run_id, started)


def build_processor(
    config: RunConfig,
    *,
    output: str,
    base_folder: str = ".",
    preprocess: RowFunction | None = None,
    postprocess: RowFunction | None = None,
) -> Processor:
    """A function from a Dataset of manifest rows to the Dataset of their records; the images go to ``output``.

    As in ``ray.data.llm``, ``preprocess`` makes a manifest row of a row of any kind, and ``postprocess`` anything of a
    record. Relative image paths start at ``base_folder``, or at the configuration's ``image_root``. Ids must be unique
    within the dataset. Every row becomes records, failed ones too; writing them is the caller's. Raises StartupError
    for the model, output or configuration.
    """
    model_sha256, store_root = _check_start(config, output)
    base_folder = uri.resolve(base_folder, str(Path.cwd()))
    allowed = allowed_of_run(config.inputs, base_folder, store_root)
    job = _Job(config, store_root, run_info.new_run_id(), model_sha256, allowed)
    check_rows = CheckRows(config.generation, _image_root(config, base_folder), load_tasks(config.tasks), allowed)

    def process(dataset: Dataset) -> Dataset:
        rows = dataset.map(preprocess) if preprocess else dataset
        done = _generate(rows.map_batches(check_rows, **_BLOCKS), job, fill_batches=True)
        return done.map(postprocess) if postprocess else done

    return process


@dataclass(frozen=True, slots=True)
class _Job:
    """What the stages need to know."""

    config: RunConfig
    store_root: str
    run_id: str
    model_sha256: str
    allowed: Allowed


def _check_start(config: RunConfig, output: str) -> tuple[str, str]:
    """The model's sha256 and the absolute output, once both are known to be good. Raises StartupError."""
    store_root = locate(output, OutputError, "output ")
    model_sha256 = verify_model(config.model, config.engine.adapters)
    store.check_writable(store_root)
    return model_sha256, store_root


def _check_room(config: RunConfig) -> None:
    """Raises ConfigError where the cluster's GPUs have no room for the engines."""
    pool = cluster.pool_of_this_cluster(config.workers)
    settings = config.engine_settings(pool.device)
    if pool.gpus_per_actor:
        gpu_memory.check_room(pool, weights_bytes(config.model, settings), settings.memory_gib)


def _image_root(config: RunConfig, default: str) -> str:
    """Where relative image references start, as an absolute path or URI. Raises ConfigError."""
    root = config.inputs.image_root
    return default if root is None else locate(root, ConfigError, "image_root=")


def _generate(planned: Dataset, job: _Job, *, fill_batches: bool = False) -> Dataset:
    """fetch -> generate. Blocks are one batch each: a block is what is lost when an actor dies, and what it reports.

    ``fill_batches``: wait for more rows until a batch is full. In a plan with levels the last rows of one would wait
    for rows that wait for them.
    """
    from ray.data import ActorPoolStrategy

    config, pool = job.config, cluster.pool_of_this_cluster(job.config.workers)
    max_side = config.generation.max_input_image_size
    batches = planned.repartition(target_num_rows_per_block=config.workers.batch_size, strict=fill_batches)
    fetched = batches.map_batches(FetchImages(config.inputs, max_side, job.allowed), num_cpus=_FETCH_CPUS, **_BLOCKS)
    return cluster.map_blocks(
        fetched,
        OmniGenActor,
        compute=ActorPoolStrategy(min_size=1, initial_size=pool.num_actors, max_size=pool.num_actors),
        num_gpus=pool.gpus_per_actor,
        num_cpus=pool.cpus_per_actor,
        fn_constructor_kwargs={
            "open_engine": EngineSpec(
                model=config.model,
                settings=config.engine_settings(pool.device),
                expected_sha256=job.model_sha256,
            ),
            "store_root": job.store_root,
            "run_id": job.run_id,
            "image_format": config.images.image_format,
            "embed_provenance": config.images.embed_provenance,
            "max_input_image_size": max_side,
            "on_waves": prometheus.observe,
            "store_timeout_s": config.store_timeout_s,
            "max_crashes": config.workers.max_crashes,
            "stall_timeout_s": config.workers.stall_timeout_s,
        },
        **_BLOCKS,
    )


def _execute(
    job: _Job, levels: Sequence[Level], stopping: Stopping, held: Lease, on_progress: Callable[[Tally], None]
) -> Tally:
    """Run a staged plan, level after level. A row whose parent got no image is skipped, not tried."""
    tally, progress = Tally(), Progress(levels)

    def check() -> None:
        held.check()
        stopping.check()

    with stopping.ending(), at_each_step(check):
        for outcome in _outcomes(job, progress):
            tally = records.add(tally, outcome)
            on_progress(tally)
            records.report(outcome, progress)
    return tally


def _outcomes(job: _Job, progress: Progress) -> Iterator[pa.Table]:
    """What became of each batch, once its records are in the store."""
    import ray

    stop = uri.join(job.store_root, store.stop_key(job.run_id))
    read = ReadPlan(job.store_root, EXTENSIONS[job.config.images.image_format], job.allowed, stop)
    parts = ray.data.from_arrow(list(progress.parts()))
    ready = parts.map_batches(AwaitMarks(stop=stop), num_cpus=0, concurrency=1, **_BLOCKS)
    done = _generate(ready.map_batches(read, **_BLOCKS), job)
    write = WriteRecords(job.store_root, job.run_id, job.config.store_timeout_s)
    outcomes = done.map_batches(write, num_cpus=_RECORD_CPUS, **_BLOCKS)
    # Without looking ahead: the last outcome of a level must not wait for the first of the next.
    yield from outcomes.iter_batches(batch_size=None, batch_format="pyarrow", prefetch_batches=0)


def _account(plan: PlanSummary, tally: Tally, store_root: str, run_id: str, started: float) -> Summary:
    """Compare the plan with the records that are in the store now, and write summary.json."""
    audit = Ledger.load(store_root).audit(plan.digests, plan.is_chosen, plan.known_doubled)
    summary = Summary(
        **asdict(audit),
        num_already_done=plan.num_done,
        num_generated=tally.num_done,
        seconds=time.monotonic() - started,
        images_uri=uri.join(store_root, store.IMAGES),
        records_uri=uri.join(store_root, store.RECORDS),
        summary_uri=uri.join(store_root, store.SUMMARY_KEY),
        engine=read_engine_use(store_root, run_id) if tally.num_done else None,
    )
    uri.write_bytes(summary.summary_uri, summary.to_json().encode())
    return summary
