"""The main flow of fine-tuning, on one page: prepare -> train -> result. Run again, it goes on where it stopped."""

from __future__ import annotations

import dataclasses
import tempfile
from dataclasses import dataclass
from typing import Any

from omnigen_actor import store, uri
from omnigen_actor.engines import verify_model
from omnigen_actor.errors import OutputError, StartupError, first_line
from pipelines import cluster
from pipelines.config import WorkerConfig
from pipelines.finetune.config import FinetuneConfig
from pipelines.finetune.loop import LoopSpec, run_worker
from pipelines.finetune.prepare import PreparedSets, prepare
from pipelines.finetune.progress import TrainingFolder
from pipelines.finetune.sources import TrainingSet
from pipelines.locations import locate


@dataclass(frozen=True, slots=True, kw_only=True)
class Finetuned:
    """What came of a training. ``log`` has an entry for each look at the held-out examples."""

    result_uri: str
    num_train: int
    num_held_out: int
    failed: dict[str, int]
    log: tuple[dict[str, Any], ...]


def finetune(data: str, output: str, config: FinetuneConfig) -> Finetuned:
    """Train ``config.model`` on ``data``, a run store or a manifest with targets, into ``output``.

    Raises StartupError before a step is made, for what can't work.
    """
    folder = TrainingFolder(locate(output, OutputError, "output "))
    store.check_writable(folder.root)
    model_sha256 = verify_model(config.model)
    folder.bind(_made_with(data, config, model_sha256))
    workers = WorkerConfig(device=config.machine.device, num_actors=config.machine.num_workers)
    with cluster.joined(config.ray_address, workers), cluster.settings_of_a_run(workers):
        source = TrainingSet(uri=data, image_root=config.inputs.image_root)
        sets = prepare(source, folder.prepared, config, model_sha256)
        if not folder.is_finished():
            _train(folder, sets, config, model_sha256)
    return Finetuned(
        result_uri=folder.result,
        num_train=sets.train.num_rows,
        num_held_out=sets.held_out.num_rows,
        failed=sets.failed,
        log=tuple(folder.log()),
    )


def _made_with(data: str, config: FinetuneConfig, model_sha256: str) -> dict[str, Any]:
    """All that the weights depend on."""
    return {
        "data": uri.redact(data),
        "model": uri.redact(config.model),
        "model_sha256": model_sha256,
        "data_settings": dataclasses.asdict(config.data),
        "training": dataclasses.asdict(config.training),
        "num_workers": config.machine.num_workers,
        "dtype": config.machine.dtype,
    }


def _train(folder: TrainingFolder, sets: PreparedSets, config: FinetuneConfig, model_sha256: str) -> None:
    from ray.train import FailureConfig, RunConfig, ScalingConfig
    from ray.train.torch import TorchTrainer

    machine = config.machine
    pool = cluster.pool_of_this_cluster(WorkerConfig(device=machine.device, num_actors=machine.num_workers))
    spec = _loop_spec(folder, sets, config, model_sha256, pool.device)
    with tempfile.TemporaryDirectory(prefix="omnigen-batch-train-") as scratch:
        trainer = TorchTrainer(
            run_worker,
            train_loop_config=spec,
            scaling_config=ScalingConfig(
                num_workers=machine.num_workers,
                use_gpu=pool.gpus_per_actor > 0,
                resources_per_worker={"CPU": pool.cpus_per_actor} if pool.cpus_per_actor else None,
            ),
            run_config=RunConfig(
                name="finetune", storage_path=scratch, failure_config=FailureConfig(max_failures=machine.max_restarts)
            ),
        )
        try:
            trainer.fit()
        except RuntimeError as error:
            raise StartupError(f"training ended early: {first_line(error)}; run it again to go on") from error


def _loop_spec(
    folder: TrainingFolder, sets: PreparedSets, config: FinetuneConfig, model_sha256: str, device: str
) -> LoopSpec:
    from omnigen_actor.training.flow import Dropout
    from omnigen_actor.training.session import SessionSpec
    from omnigen_actor.training.trainer import FlowRecipe

    own, machine = config.training, config.machine
    recipe = FlowRecipe(
        num_steps=own.steps,
        num_rows=own.rows_per_step,
        targets_per_row=own.targets_per_row,
        muon_rate=own.muon_rate,
        adam_rate=own.learning_rate,
        weight_decay=own.weight_decay,
        decay_share=own.decay_share,
        average=own.average,
        seed=own.seed,
        dropout=Dropout(negative=own.drop_prompt, images_only=own.drop_to_images, words=own.drop_words),
    )
    return LoopSpec(
        session=SessionSpec(
            model=config.model,
            recipe=recipe,
            device=device,
            dtype=machine.dtype,
            cpu_threads=machine.cpu_threads,
            saves_memory=machine.gradient_checkpointing,
            lora_rank=own.lora_rank,
            lora_alpha=own.lora_alpha,
            result_dtype=config.result_dtype,
        ),
        root=folder.root,
        train=sets.train,
        held_out=sets.held_out,
        max_validation=config.data.max_validation,
        num_steps=own.steps,
        num_rows=own.rows_per_step,
        seed=own.seed,
        save_every=config.save_every,
        validate_every=config.validate_every,
        sample_every=config.sample_every,
        num_samples=config.num_samples,
        told={"model": uri.redact(config.model), "model_sha256": model_sha256, "training": dataclasses.asdict(own)},
    )
