"""A GPU without room for an engine is told before any actor starts; and a run on a cluster whose GPUs are made up."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from omnigen_actor.checkpoint.opening import open_checkpoint
from omnigen_actor.engine_settings import EngineSettings
from omnigen_actor.engines import weights_bytes
from omnigen_actor.errors import ConfigError
from omnigen_actor.gpus import Gpu
from pipelines import gpu_memory
from pipelines.cluster import PoolSize
from pipelines.config import GenerationConfig, RunConfig, WorkerConfig
from pipelines.generate import run
from pipelines.gpu_memory import check_gpu, check_room

GIB = 2**30
WEIGHTS = 8 * GIB
POOL = PoolSize(num_actors=1, gpus_per_actor=1, cpus_per_actor=0, device="cuda")


def gpu(free_gib: float) -> Gpu:
    return Gpu("node-1", "Some GPU", int(free_gib * GIB), 24 * GIB)


def test_a_gpu_with_room_is_taken() -> None:
    check_gpu(gpu(9.5), WEIGHTS, None)
    check_gpu(gpu(18.5), WEIGHTS, None, num_engines=2)


@pytest.mark.parametrize(
    ("free_gib", "memory_gib", "num_engines", "message"),
    [
        (8.5, None, 1, r"Some GPU of node node-1 has 8\.5 GiB of 24\.0 GiB free; an engine needs 9\.0 GiB"),
        (17.5, None, 2, "gpus_per_actor puts 2 on a GPU"),
        (24, 6.0, 1, r"memory_gib=6: an engine needs 9\.0 GiB \(8\.0 GiB of weights\)"),
    ],
)
def test_a_gpu_without_room_is_refused_with_what_is_needed(
    free_gib: float, memory_gib: float | None, num_engines: int, message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        check_gpu(gpu(free_gib), WEIGHTS, memory_gib, num_engines=num_engines)


def test_a_node_whose_torch_finds_no_gpu_is_named() -> None:
    with pytest.raises(ConfigError, match="node node-2 offers GPUs to Ray, and torch 0 finds no CUDA device there"):
        check_gpu(Gpu("node-2", fault="torch 0 finds no CUDA device there"), 1, None)


@pytest.mark.parametrize(
    ("pool", "known"),
    [
        (PoolSize(num_actors=1, gpus_per_actor=1, cpus_per_actor=0, device="cpu"), 1),
        (PoolSize(num_actors=1, gpus_per_actor=0, cpus_per_actor=1, device="cuda"), 1),
        (POOL, None),
    ],
)
def test_nobody_is_asked_where_no_gpu_is_used_or_nothing_is_known(pool: PoolSize, known: int | None) -> None:
    check_room(pool, known, None, look=lambda: pytest.fail("asked"))  # and Ray is not even started


def test_weights_are_counted_in_the_precision_that_they_have_on_a_gpu(tiny_model: Path) -> None:
    files = open_checkpoint(str(tiny_model))
    in_files = sum(path.stat().st_size for path in files.transformer_files)
    vae_in_files = sum(path.stat().st_size for path in files.vae_files)

    def found(**settings: object) -> int:
        return weights_bytes(str(tiny_model), EngineSettings(**settings)) or 0  # type: ignore[arg-type]

    whole = found(dtype="float32")
    assert 0.9 * (in_files + vae_in_files) < whole < in_files + vae_in_files  # float32 files, and their headers
    vae = found(dtype="float32") - found(dtype="float32", vae_dtype="bfloat16")
    assert found() == (whole - 2 * vae) // 2 + 2 * vae
    assert found(fp8=True) == (whole - 2 * vae) // 4 + 2 * vae


@pytest.mark.parametrize("model", ["fake", "some.module:Engine"])
def test_nothing_is_known_of_the_weights_of_other_engines(model: str) -> None:
    assert weights_bytes(model, EngineSettings()) is None


def _sleep() -> Gpu:
    time.sleep(60)
    return gpu(24)


@pytest.fixture(scope="module")
def ray_with_gpus() -> Iterator[None]:
    """A local Ray that counts two GPUs which are not there."""
    import ray

    ray.init("local", num_cpus=4, num_gpus=2, include_dashboard=False, log_to_driver=False, logging_level="ERROR")
    yield
    ray.shutdown()


@pytest.mark.ray
@pytest.mark.slow
@pytest.mark.usefixtures("ray_with_gpus")
class TestWithGpusThatAreMadeUp:
    def test_the_nodes_are_asked(self) -> None:
        check_room(POOL, WEIGHTS, None, look=lambda: Gpu("node", "Some GPU", 10 * GIB, 24 * GIB))
        with pytest.raises(ConfigError, match=r"Some GPU of node node has 8\.0 GiB of 24\.0 GiB free"):
            check_room(POOL, WEIGHTS, None, look=lambda: Gpu("node", "Some GPU", 8 * GIB, 24 * GIB))

    def test_this_machine_is_found_to_have_none(self) -> None:
        if Path("/dev/nvidiactl").exists():
            pytest.skip("it has one")
        with pytest.raises(ConfigError, match="finds no CUDA device there: install torch for its GPU"):
            check_room(POOL, WEIGHTS, None)

    def test_a_busy_gpu_does_not_stop_the_run(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(gpu_memory, "_ANSWER_S", 0.5)
        check_room(POOL, WEIGHTS, None, look=_sleep)

    def test_a_run_with_an_actor_on_each_gpu_makes_every_row(self, tmp_path: Path) -> None:
        """Ray treats stages with GPUs otherwise than those without: see ``cluster.map_blocks``."""
        rows = [{"id": f"r{number}", "task": "text_to_image", "instruction": "a boat"} for number in range(12)]
        rows[5] |= {"task": "edit", "images": ["row:r0"]}
        (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
        config = RunConfig(
            model="fake",
            generation=GenerationConfig(width=48, height=48, steps=1),
            workers=WorkerConfig(device="cpu", gpus_per_actor=1, batch_size=4),
        )
        summary = run(str(tmp_path / "rows.jsonl"), str(tmp_path / "out"), config)
        assert (summary.num_in, summary.num_ok, summary.adds_up) == (12, 12, True)
