"""The Ray cluster of a run: join or start one, and say how many actors fit. Knows no data, no rows and no models."""

from __future__ import annotations

import logging
import os
import re
import signal
import socket
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from omnigen_actor.errors import ConfigError, RunStopped, StartupError, first_line
from omnigen_actor.uri import UriFailed
from pipelines.config import WorkerConfig

if TYPE_CHECKING:
    from ray.data import Dataset

ANSWER_S = 15.0
"""How long a head may take to answer: it may be starting, or busy."""
_PAUSE_S = 0.5
_HOST_AND_PORT = re.compile(r"(?:ray://)?(?P<host>\[[0-9a-fA-F:.]+\]|[^:/\[\]]+):(?P<port>\d+)")

SPARE_CPUS = 1
"""CPUs that no actor may hold: reading, fetching and writing records run there, and without them nothing moves."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PoolSize:
    """What the actors take from the cluster, and the device that their engines run on."""

    num_actors: int
    gpus_per_actor: float
    cpus_per_actor: float
    device: str


def size_pool(workers: WorkerConfig, nodes: Sequence[Mapping[str, float]]) -> PoolSize:
    """The pool for these settings in a cluster of nodes with these resources (keys ``CPU`` and ``GPU``).

    GPU actors hold no CPU and CPU actors one each, so that on a full cluster the CPU stages still run. An actor is on
    one node, with whole GPUs or a share of one. Raises ConfigError that says what is missing and what to change.
    """
    num_cpus = sum(node.get("CPU", 0) for node in nodes)
    gpus = [node.get("GPU", 0) for node in nodes]
    if max((node.get("CPU", 0) for node in nodes), default=0) < SPARE_CPUS:
        raise ConfigError(
            f"no node of the cluster offers a whole CPU ({num_cpus:g} in all); reading and fetching need {SPARE_CPUS}: "
            "add a node with CPUs, or start one with --num-cpus"
        )
    gpus_per_actor = _gpus_per_actor(workers, sum(gpus))
    if gpus_per_actor:
        return _gpu_pool(workers, gpus_per_actor, gpus)
    return _cpu_pool(workers, num_cpus)


def _gpus_per_actor(workers: WorkerConfig, num_gpus: float) -> float:
    if workers.gpus_per_actor is not None:
        return workers.gpus_per_actor
    if workers.device == "auto":
        return 1 if num_gpus else 0
    return 1 if workers.device == "cuda" else 0


def _gpu_pool(workers: WorkerConfig, gpus_per_actor: float, gpus: Sequence[float]) -> PoolSize:
    if gpus_per_actor > 1 and gpus_per_actor % 1:
        raise ConfigError(f"gpus_per_actor={gpus_per_actor:g}: must be a whole number, or a share of one GPU")
    num_fitting = sum(_num_fitting(num_gpus, gpus_per_actor) for num_gpus in gpus)
    num_actors = workers.num_actors or num_fitting
    offers = f"{sum(gpus):g} GPUs" + (f", at most {max(gpus):g} on a node" if len(gpus) > 1 else "")
    if not 1 <= num_actors <= num_fitting:
        raise ConfigError(
            f"{max(num_actors, 1)} actors with gpus_per_actor={gpus_per_actor:g} need "
            f"{max(num_actors, 1) * gpus_per_actor:g} GPUs and the cluster offers {offers}: "
            f"add GPUs, or set num_actors to {num_fitting} or less"
            if num_fitting
            else f"gpus_per_actor={gpus_per_actor:g} and the cluster offers {offers}: "
            "add GPUs, or run with device cpu and gpus_per_actor 0"
        )
    device = "cuda" if workers.device == "auto" else workers.device
    return PoolSize(num_actors=num_actors, gpus_per_actor=gpus_per_actor, cpus_per_actor=0, device=device)


def _num_fitting(num_gpus: float, gpus_per_actor: float) -> int:
    """Actors on one node: Ray gives each whole GPUs, or a share of one and no more of the next."""
    if gpus_per_actor > 1:
        return int(num_gpus / gpus_per_actor)
    return int(num_gpus) * int(1 / gpus_per_actor + 1e-9)


def _cpu_pool(workers: WorkerConfig, num_cpus: float) -> PoolSize:
    num_actors = workers.num_actors or 1
    device = "cpu" if workers.device == "auto" else workers.device
    if num_actors == 1 and num_cpus < 1 + SPARE_CPUS:
        return PoolSize(num_actors=1, gpus_per_actor=0, cpus_per_actor=0, device=device)
    num_fitting = int(num_cpus) - SPARE_CPUS
    if num_actors > num_fitting:
        raise ConfigError(
            f"num_actors={num_actors} on CPUs needs {num_actors + SPARE_CPUS} CPUs, one for the other stages, and the "
            f"cluster offers {num_cpus:g}: add CPUs, or set num_actors to {max(num_fitting, 1)} or less"
        )
    return PoolSize(num_actors=num_actors, gpus_per_actor=0, cpus_per_actor=1, device=device)


def pool_of_this_cluster(workers: WorkerConfig) -> PoolSize:
    """The pool for the cluster that this process is in. Raises ConfigError."""
    import ray

    return size_pool(workers, [node["Resources"] for node in ray.nodes() if node["Alive"]])


@contextmanager
def joined(address: str | None, workers: WorkerConfig) -> Iterator[None]:
    """Be in a Ray cluster: the one this process is in, else that of ``address`` or RAY_ADDRESS, else a local one.

    What this starts or joins is left at the end. Raises StartupError when the cluster does not answer.
    """
    import ray

    expire_reservations_soon()
    if ray.is_initialized():
        yield
        return
    _join(address or os.environ.get("RAY_ADDRESS") or "local", workers)
    try:
        yield
    finally:
        ray.shutdown()


def _join(address: str, workers: WorkerConfig) -> None:
    import ray

    own = {"num_cpus": _num_cpus(workers), "include_dashboard": False} if address == "local" else {}
    _check_answers(address)
    try:
        with _keeping_sigterm():
            ray.init(address, log_to_driver=False, logging_level=logging.ERROR, **own)
    except (ConnectionError, RuntimeError, ValueError) as error:
        reason = first_line(error)
        raise StartupError(f"no Ray cluster at {address!r}: {reason}; start it, or leave ray_address out") from None


def expire_reservations_soon() -> None:
    """What Ray Data reserves for this process is free again half a minute after it dies, and not three minutes.

    An actor of the cluster keeps the reservations, so the next run on it would have no CPUs for so long. They are
    renewed every ten seconds. Ray Data reads this when it is first imported; whoever has set it knows better.
    """
    os.environ.setdefault("RAY_DATA_AUTOSCALING_REQUEST_EXPIRE_TIME_S", "30")


def _check_answers(address: str) -> None:
    """Raises StartupError where nobody listens at HOST:PORT. Ray itself would try for a quarter of an hour."""
    found = _HOST_AND_PORT.fullmatch(address)
    if not found:  # "local", "auto", or a form that Ray knows
        return
    until = time.monotonic() + ANSWER_S
    while True:
        try:
            with socket.create_connection((found["host"].strip("[]"), int(found["port"])), timeout=ANSWER_S):
                return
        except (OSError, OverflowError) as error:
            if time.monotonic() + _PAUSE_S > until:
                reason = first_line(error)
                raise StartupError(
                    f"no Ray cluster at {address!r}: {reason}; start it, or leave ray_address out"
                ) from None
        time.sleep(_PAUSE_S)


@contextmanager
def _keeping_sigterm() -> Iterator[None]:
    """Put the caller's handler back, if there is one: ``ray.init`` takes its place."""
    before = signal.getsignal(signal.SIGTERM)
    try:
        yield
    finally:
        if callable(before) and threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, before)


def _num_cpus(workers: WorkerConfig) -> int | None:
    """CPU slots of a local cluster; None leaves the number to Ray, which knows the limits of containers.

    Slots only count. A small machine gets one for each actor, one to read and one to fetch and record: while a reader
    waits for room in the queue after it, it keeps its slot, and with no other the first image is long in coming.
    """
    least = (workers.num_actors or 1) + 2
    return least if least > (os.cpu_count() or 1) else None


@contextmanager
def settings_of_a_run(workers: WorkerConfig) -> Iterator[None]:
    """Ray Data as a run wants it, until the end: quiet, and failing instead of dropping rows or waiting for ever.

    Raises ConfigError when the pool does not fit the cluster, StartupError when no actor can open its engine.
    """
    from ray.data import DataContext

    context = DataContext.get_current()
    own = {
        "enable_progress_bars": False,
        "print_on_execution_start": False,
        "max_errored_blocks": 0,
        "max_consecutive_actor_init_deaths": 3,
        "execution_no_progress_timeout_s": _no_progress_timeout_s(workers),
    }
    before = {name: getattr(context, name) for name in own}
    _apply(context, own)
    try:
        with _quiet_console(), _failures():
            yield
    finally:
        _apply(context, before)


def _no_progress_timeout_s(workers: WorkerConfig) -> float:
    """Seconds without any block that mean a hang. On a CPU one row may take hours: no limit, -1 to Ray.

    A stalled worker is noticed by its own watchdog, and again when the same row stalls it alone: Ray must not give up
    before.
    """
    if not pool_of_this_cluster(workers).gpus_per_actor:
        return -1
    return max(900.0, 60.0 * workers.batch_size) + (workers.max_crashes + 1) * workers.stall_timeout_s


def _apply(context: object, values: Mapping[str, object]) -> None:
    for name, value in values.items():
        setattr(context, name, value)


def map_blocks(dataset: Dataset, fn: type, **options: Any) -> Dataset:
    """``dataset.map_batches`` with blocks as batches (``batch_size=None``), on GPUs, too.

    Ray's public method refuses that for GPUs, as batches of a size are usually wanted there; but for those it would
    bundle blocks until they have as many rows, and the last rows of a level would wait for rows that wait for them.
    """
    return dataset.map_batches_internal(fn, **options)


@contextmanager
def _quiet_console() -> Iterator[None]:
    """Keep Ray Data's warnings and tracebacks in its log file: what a user needs to know is raised."""
    consoles = [handler for handler in logging.getLogger("ray.data").handlers if handler.name == "console"]
    levels = [handler.level for handler in consoles]
    try:
        for handler in consoles:
            handler.setLevel(logging.CRITICAL)
        yield
    finally:
        for handler, level in zip(consoles, levels, strict=True):
            handler.setLevel(level)


@contextmanager
def _failures() -> Iterator[None]:
    """Raise one line in place of Ray's report: a StartupError where actors could not be constructed, and RunStopped
    where a task could not read or write the store.
    """
    from ray.exceptions import ActorDiedError, RayError

    try:
        yield
    except ActorDiedError as error:
        lines = str(error).strip().splitlines()
        reason = lines[-1] if "creation task" in lines[0] else lines[0]
        raise StartupError(f"no actor could open its engine: {reason}; see device, dtype and gpus_per_actor") from None
    except RayError as error:
        failure = _store_failure(error)
        if failure is None:
            raise
        raise RunStopped(f"{failure}: run the same command to go on") from None


def _store_failure(error: BaseException) -> str | None:
    """What a task said of the store. Ray Data keeps it in its report alone: a cause does not travel."""
    found = re.search(rf"{UriFailed.__module__}\.{UriFailed.__name__}: (.+)", str(error))
    return found[1] if found else None
