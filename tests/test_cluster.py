from __future__ import annotations

import socket
import subprocess
import sys

import pytest

from omnigen_actor.errors import ConfigError, StartupError
from pipelines import cluster
from pipelines.cluster import PoolSize, size_pool
from pipelines.config import WorkerConfig


def size(cpus: float, gpus: float = 0, **settings: object) -> PoolSize:
    return size_on([{"CPU": cpus, "GPU": gpus, "memory": 1e9}], **settings)


def size_on(nodes: list[dict[str, float]], **settings: object) -> PoolSize:
    return size_pool(WorkerConfig(**settings), nodes)  # type: ignore[arg-type]


def test_every_gpu_gets_an_actor_that_holds_no_cpu() -> None:
    assert size(4, 8) == PoolSize(num_actors=8, gpus_per_actor=1, cpus_per_actor=0, device="cuda")


def test_actors_may_share_a_gpu() -> None:
    assert size(4, 2, gpus_per_actor=0.5).num_actors == 4
    assert size(4, 1, gpus_per_actor=0.1).num_actors == 10


def test_without_gpus_there_is_one_actor_on_one_cpu() -> None:
    assert size(2) == PoolSize(num_actors=1, gpus_per_actor=0, cpus_per_actor=1, device="cpu")


def test_on_a_single_cpu_the_actor_holds_none() -> None:
    assert size(1) == PoolSize(num_actors=1, gpus_per_actor=0, cpus_per_actor=0, device="cpu")


def test_device_cpu_leaves_the_gpus_alone() -> None:
    assert size(4, 2, device="cpu", num_actors=3) == PoolSize(
        num_actors=3, gpus_per_actor=0, cpus_per_actor=1, device="cpu"
    )


@pytest.mark.parametrize("num_cpus", [1, 2, 3, 5, 64])
@pytest.mark.parametrize("num_gpus", [0, 1, 8])
@pytest.mark.parametrize("num_actors", [None, 1, 2, 4, 63])
def test_a_pool_that_is_allowed_fits_and_leaves_a_cpu(num_cpus: int, num_gpus: int, num_actors: int | None) -> None:
    try:
        pool = size(num_cpus, num_gpus, num_actors=num_actors)
    except ConfigError:
        return
    assert pool.num_actors == num_actors or num_actors is None
    assert pool.num_actors * pool.cpus_per_actor <= num_cpus - 1
    assert pool.num_actors * pool.gpus_per_actor <= num_gpus


def test_an_actor_fits_on_one_node_and_one_share_on_one_gpu() -> None:
    two_nodes = [{"CPU": 4.0, "GPU": 3.0}, {"CPU": 4.0, "GPU": 1.0}]
    assert size_on(two_nodes).num_actors == 4
    assert size_on(two_nodes, gpus_per_actor=2.0).num_actors == 1
    assert size_on(two_nodes, gpus_per_actor=0.6).num_actors == 4
    assert size_on(two_nodes, gpus_per_actor=0.5).num_actors == 8
    with pytest.raises(ConfigError, match="gpus_per_actor=4 and the cluster offers 4 GPUs, at most 3 on a node"):
        size_on(two_nodes, gpus_per_actor=4.0)


def test_nodes_without_cpus_do_with_one_that_has_them() -> None:
    gpu_nodes = [{"GPU": 1.0}, {"CPU": 0.5, "GPU": 1.0}]
    assert size_on([*gpu_nodes, {"CPU": 1.0}]).num_actors == 2
    with pytest.raises(ConfigError, match=r"whole CPU \(0.5 in all\)"):
        size_on(gpu_nodes)


@pytest.mark.parametrize(
    ("resources", "settings", "message"),
    [
        ((0, 1), {}, r"no node of the cluster offers a whole CPU \(0 in all\).*add a node with CPUs"),
        ((4, 4), {"gpus_per_actor": 1.5}, "gpus_per_actor=1.5: must be a whole number, or a share"),
        ((4, 0), {"num_actors": 4}, "num_actors=4 on CPUs needs 5 CPUs.*set num_actors to 3 or less"),
        ((4, 0), {"device": "cuda"}, "offers 0 GPUs.*device cpu"),
        ((4, 2), {"num_actors": 3}, "3 actors.*need 3 GPUs.*offers 2.*num_actors to 2 or less"),
        ((4, 1), {"gpus_per_actor": 2.0}, "gpus_per_actor=2.*offers 1 GPUs"),
    ],
)
def test_what_does_not_fit_is_refused_with_the_remedy(
    resources: tuple[float, float], settings: dict[str, object], message: str
) -> None:
    with pytest.raises(ConfigError, match=message) as caught:
        size(*resources, **settings)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("settings", [{}, {"stall_timeout_s": 7200.0}, {"max_crashes": 5, "batch_size": 100}])
def test_ray_gives_a_run_up_later_than_watchdogs_and_diaries_need(
    monkeypatch: pytest.MonkeyPatch, settings: dict[str, float]
) -> None:
    """The batch hangs, then its row alone, ``max_crashes`` times; beside that there are loads of the model."""
    workers = WorkerConfig(**settings)  # type: ignore[arg-type]
    monkeypatch.setattr(cluster, "pool_of_this_cluster", lambda _: size(4, 1))
    hangs_s = (workers.max_crashes + 1) * workers.stall_timeout_s
    assert cluster._no_progress_timeout_s(workers) >= hangs_s + 900
    monkeypatch.setattr(cluster, "pool_of_this_cluster", lambda _: size(4))
    assert cluster._no_progress_timeout_s(workers) == -1


@pytest.mark.parametrize("form", ["127.0.0.1:{}", "ray://127.0.0.1:{}", "no-such-host.invalid:{}", "127.0.0.1:9{}"])
def test_a_head_that_does_not_answer_is_told_soon(form: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cluster, "ANSWER_S", 1.0)
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # bound and not listening: nobody answers, and nobody else gets the port
        address = form.format(taken.getsockname()[1])
        with (
            pytest.raises(StartupError, match=f"no Ray cluster at '{address}'.*start it, or leave ray_address out"),
            cluster.joined(address, WorkerConfig()),
        ):
            pass


def test_what_a_killed_driver_had_reserved_is_soon_free_again() -> None:
    """Ray Data's own name for it is read, so that another one in a later version does not pass unseen."""
    code = (
        "from pipelines import cluster; cluster.expire_reservations_soon();"
        "from ray.data._internal.cluster_autoscaler import RateBasedClusterAutoscaler as autoscaler;"
        "print(autoscaler.AUTOSCALING_REQUEST_EXPIRE_TIME_S, autoscaler.MIN_GAP_BETWEEN_AUTOSCALING_REQUESTS_S)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["30", "10"]
