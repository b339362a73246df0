"""Whether the GPUs of a cluster have room for the engines of a run. Knows weights by their size alone, and no rows.

It is asked before the first actor: an engine that does not fit fails after minutes of loading, on node after node.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator

from omnigen_actor.errors import ConfigError
from omnigen_actor.gpus import Gpu, look_here
from pipelines.cluster import PoolSize

WORK_BYTES = 2**30
"""The least that an engine needs beside its weights: CUDA's own share, one small row, its decoding."""

_ANSWER_S = 60.0
_GIB = 2**30
_log = logging.getLogger(__name__)

Look = Callable[[], Gpu]
"""Called on a node, with the GPUs of one actor."""


def check_room(pool: PoolSize, weights_bytes: int | None, memory_gib: float | None, look: Look = look_here) -> None:
    """Raises ConfigError that names node, GPU, what is needed and what is free. Asks nobody where nothing is known.

    ``weights_bytes``: of one engine; None: not known. ``memory_gib``: the most that an engine may take.
    """
    if pool.device != "cuda" or not pool.gpus_per_actor or weights_bytes is None:
        return
    for gpu in _ask_nodes(pool.gpus_per_actor, look):
        check_gpu(gpu, weights_bytes, memory_gib, num_engines=max(1, int(1 / pool.gpus_per_actor + 1e-9)))


def check_gpu(gpu: Gpu, weights_bytes: int, memory_gib: float | None, *, num_engines: int = 1) -> None:
    """Raises ConfigError where so many engines have no room on a GPU."""
    if gpu.fault:
        raise ConfigError(
            f"node {gpu.node} offers GPUs to Ray, and {gpu.fault}: install torch for its GPU and driver, or run with "
            "device cpu and gpus_per_actor 0"
        )
    need = weights_bytes + WORK_BYTES
    what = f"an engine needs {_gib(need)} ({_gib(weights_bytes)} of weights)"
    if memory_gib is not None and need > memory_gib * _GIB:
        raise ConfigError(f"memory_gib={memory_gib:g}: {what}; raise it, or use a smaller model or fp8")
    if num_engines * need > gpu.free:
        several = f", and gpus_per_actor puts {num_engines} on a GPU" if num_engines > 1 else ""
        raise ConfigError(
            f"{gpu.name} of node {gpu.node} has {_gib(gpu.free)} of {_gib(gpu.total)} free; {what}{several}: "
            "free it of other processes, or use a larger GPU, fewer engines on it, a smaller model or fp8"
        )


def _ask_nodes(gpus_per_actor: float, look: Look) -> Iterator[Gpu]:
    """One GPU of each node that has any, as soon as one is free; those that others hold for long are left out."""
    import ray
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    def ask(node_id: str) -> object:
        where = NodeAffinitySchedulingStrategy(node_id, soft=False)
        return ray.remote(look).options(num_gpus=gpus_per_actor, num_cpus=0, scheduling_strategy=where).remote()

    nodes = [node for node in ray.nodes() if node["Alive"] and node["Resources"].get("GPU", 0) >= gpus_per_actor]
    asked = [ask(node["NodeID"]) for node in nodes]
    if not asked:
        return
    answered, others = ray.wait(asked, num_returns=len(asked), timeout=_ANSWER_S)
    yield from _answers(answered)
    for task in others:
        _log.warning("a node does not say within %g s how much GPU memory is free: its GPUs are in use", _ANSWER_S)
        ray.cancel(task, force=True)


def _answers(tasks: Iterable[object]) -> Iterator[Gpu]:
    import ray
    from ray.exceptions import RayError

    for task in tasks:
        try:
            yield ray.get(task)
        except RayError:  # of a node that went, or one without torch: its actors will tell
            _log.warning("a node could not say how much GPU memory is free", exc_info=True)


def _gib(num_bytes: int) -> str:
    return f"{num_bytes / _GIB:.1f} GiB"
