"""The flow of a scoring: which scorers, what each has to do, Ray over it, the account. Each step is its own module.

    current images ─► plan (parts in the store) ─► read ─► load pictures ─► score, write ─► account

Scorers without a model share one pass over the images; each with a model has its own. Near-duplicates come last, from
the hashes. A scoring may run beside a generation: scores belong to image files by their sha256, and what is generated
meanwhile is scored by the next one. Two scorings of the same name are kept apart by a lease in its folder.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from typing import Any

import pyarrow as pa

from omnigen_actor import uri
from omnigen_actor.allowed import Allowed
from omnigen_actor.errors import ConfigError
from pipelines import cluster, lease
from pipelines.config import WorkerConfig
from pipelines.input_places import InputPlaces
from pipelines.ledger import Ledger
from pipelines.levels import read_part
from pipelines.run_info import new_run_id
from pipelines.scores import stored
from pipelines.scores.actor import ScoreBlocks
from pipelines.scores.config import ScoreConfig
from pipelines.scores.near import near_duplicates
from pipelines.scores.pictures import LoadPictures
from pipelines.scores.plan import Account, ScorePlan, plan_scores
from pipelines.scores.prepared import Prepared, prepare
from pipelines.scores.registry import KNOWN, PHASH, is_near_duplicates, parse_all
from pipelines.scores.scorer import ScorerSpec
from pipelines.stopping import at_each_step, store_failures
from pipelines.stored import open_store
from pipelines.summary import Tally

_ARROW = {"batch_format": "pyarrow", "zero_copy_batch": True}
_BLOCKS = {"batch_size": None, **_ARROW}
_LOAD_CPUS = 0.5
"""A share, which also keeps Ray from merging this stage with the scorers'."""


def score(
    location: str,
    config: ScoreConfig,
    *,
    on_start: Callable[[int], None] | None = None,
    on_progress: Callable[[Tally], None] | None = None,
) -> list[Account]:
    """Make every score of the current images of a store that it does not have yet; an account for each scorer.

    ``on_start`` hears how many scores there are to make before each pass, and ``on_progress`` how many are made.
    Without any to make Ray is not started. Raises StartupError before a score is made, RunStopped after.
    """
    root = open_store(location)
    specs = _specs(config)
    scorers = [prepare(spec) for spec in specs if not is_near_duplicates(spec)]
    places = InputPlaces.read(root, config.inputs.image_root)
    job = _Job(root, config, places, places.allowed(config.inputs), on_start, on_progress)
    with store_failures(), ExitStack() as ray_cluster:
        if not config.replace:
            for scorer in scorers:
                stored.check_description(root, scorer.description)
        ledger = Ledger.load(root)
        accounts = [
            account for together in _passes(scorers) for account in _one_pass(job, together, ledger, ray_cluster)
        ]
        return accounts + [_near(job, spec, specs) for spec in specs if is_near_duplicates(spec)]


@dataclass(slots=True)
class _Job:
    """What every pass needs to know, and how far all of them are."""

    root: str
    config: ScoreConfig
    places: InputPlaces
    allowed: Allowed
    on_start: Callable[[int], None] | None
    on_progress: Callable[[Tally], None] | None
    num_to_do: int = 0
    tally: Tally = field(default_factory=Tally)

    def start(self, num_more: int) -> None:
        self.num_to_do += num_more
        if self.on_start:
            self.on_start(self.num_to_do)

    def add(self, num_scored: int, num_errors: int) -> None:
        tally = self.tally
        self.tally = replace(
            tally,
            num_done=tally.num_done + num_scored + num_errors,
            num_ok=tally.num_ok + num_scored,
            num_failed=tally.num_failed + num_errors,
        )
        if self.on_progress:
            self.on_progress(self.tally)


def _specs(config: ScoreConfig) -> list[ScorerSpec]:
    if not config.names:
        raise ConfigError(f"no scorers: name some with --scorers, of {', '.join(KNOWN)}")
    return parse_all(config.names)


def _passes(scorers: Sequence[Prepared]) -> list[list[Prepared]]:
    """Scorers that go through one decode together: those that want no GPU."""
    light = [one for one in scorers if not one.num_gpus]
    return [*([light] if light else []), *([one] for one in scorers if one.num_gpus)]


def _one_pass(job: _Job, scorers: Sequence[Prepared], ledger: Ledger, ray_cluster: ExitStack) -> list[Account]:
    config, names = job.config, [one.name for one in scorers]
    with _holding(job.root, names, take_over=config.take_over) as held:
        for scorer in scorers:
            _describe(job.root, scorer.description, replace_it=config.replace)
        plan = plan_scores(job.root, scorers, job.places, ledger, retry_errors=config.retry_errors)
        examples = dict[str, str]()
        if plan.num_to_do:
            workers = WorkerConfig(num_actors=config.workers.num_actors)
            ray_cluster.enter_context(cluster.joined(config.ray_address, workers))
            job.start(plan.num_to_do)
            _execute(job, scorers, plan, held, examples)
        uri.remove_folder(uri.join(stored.scores_folder(job.root, names[0]), stored.PLAN))
        for one in held:
            one.check()
        return [plan.account(job.root, name, examples.get(name)) for name in names]


def _near(job: _Job, spec: ScorerSpec, specs: Sequence[ScorerSpec]) -> Account:
    """The step over the whole store, from the hashes that this command names, else those named ``phash``."""
    hashes = next((one.name for one in specs if one.factory == KNOWN[PHASH].factory), PHASH)
    with _holding(job.root, [spec.name], take_over=job.config.take_over):
        found = near_duplicates(
            job.root, int(spec.options["radius"]), name=spec.name, hashes=hashes, replace=job.config.replace
        )
    return Account(
        name=spec.name,
        num_images=found.num_images,
        num_scored=found.num_images - found.num_without_hash,
        num_errors=found.num_without_hash,
        note=found.line(),
    )


@contextmanager
def _holding(root: str, names: Sequence[str], *, take_over: bool) -> Iterator[list[lease.Lease]]:
    """The leases of the scores of these names, always taken in the same order."""
    run_id = new_run_id()
    with ExitStack() as stack:
        folders = [stored.scores_folder(root, name) for name in sorted(names)]
        yield [stack.enter_context(lease.hold(folder, run_id, take_over=take_over)) for folder in folders]


def _describe(root: str, description: dict[str, Any], *, replace_it: bool) -> None:
    """Say what makes these scores, before there is one. ``replace_it``: those that are there are removed."""
    name = str(description["name"])
    if replace_it:
        for file in stored.part_files(root, name):
            uri.remove(file)
    else:
        stored.check_description(root, description)
    if replace_it or stored.read_description(root, name) is None:
        stored.write_description(root, description)


def _execute(
    job: _Job, scorers: Sequence[Prepared], plan: ScorePlan, held: Sequence[lease.Lease], examples: dict[str, str]
) -> None:
    workers = _workers(job.config, scorers)

    def check() -> None:
        for one in held:
            one.check()

    with cluster.settings_of_a_run(workers), at_each_step(check):
        for outcomes in _outcomes(job, scorers, plan, workers):
            for row in outcomes.to_pylist():
                job.add(row["num_scored"], row["num_errors"])
                if row["example"] is not None:
                    examples.setdefault(row["name"], row["example"])


def _workers(config: ScoreConfig, scorers: Sequence[Prepared]) -> WorkerConfig:
    """The pool of one pass in the cluster that this process is in."""
    import ray

    has = ray.cluster_resources()
    num_gpus = max(one.num_gpus for one in scorers)
    return config.workers.pool(num_gpus=num_gpus, has_gpus=has.get("GPU", 0) > 0, num_cpus=has.get("CPU", 1))


@dataclass(frozen=True, slots=True)
class ReadParts:
    """A table of the URIs of parts in, their rows out. Raises UriFailed: no scoring goes on without its plan."""

    def __call__(self, table: pa.Table) -> pa.Table:
        """The planned rows of these parts."""
        return pa.concat_tables(read_part(part) for part in table["part"].to_pylist())


def _outcomes(job: _Job, scorers: Sequence[Prepared], plan: ScorePlan, workers: WorkerConfig) -> Iterator[pa.Table]:
    """What became of each block, once its scores are in the store."""
    import ray
    from ray.data import ActorPoolStrategy

    config, pool = job.config, cluster.pool_of_this_cluster(workers)
    parts = ray.data.from_arrow([pa.table({"part": [part]}) for part in plan.parts])
    planned = parts.map_batches(ReadParts(), **_BLOCKS)
    blocks = planned.repartition(target_num_rows_per_block=config.workers.rows_per_file, strict=False)
    load = LoadPictures(config.inputs, job.root, job.allowed)
    loaded = blocks.map_batches(load, num_cpus=_LOAD_CPUS, **_BLOCKS)
    scored = cluster.map_blocks(
        loaded,
        ScoreBlocks,
        compute=ActorPoolStrategy(min_size=1, initial_size=pool.num_actors, max_size=pool.num_actors),
        num_gpus=pool.gpus_per_actor,
        num_cpus=pool.cpus_per_actor,
        fn_constructor_kwargs={
            "specs": [one.on(pool.device) for one in scorers],
            "store_root": job.root,
            "timeout_s": config.store_timeout_s,
        },
        **_BLOCKS,
    )
    yield from scored.iter_batches(batch_size=None, batch_format="pyarrow", prefetch_batches=0)
