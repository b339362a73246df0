"""FinetuneConfig: every setting of a training, each default in one place. Knows no argv and no files."""

from __future__ import annotations

from dataclasses import dataclass, field

from omnigen_actor.types import MAX_SEED, MAX_SIDE
from pipelines.config import Checked, InputConfig, option


@dataclass(frozen=True, slots=True, kw_only=True)
class DataConfig(Checked):
    """What is trained on."""

    max_image_size: int = option(
        1024, "longest side of a picture in training, in pixels; larger ones are reduced", at_least=16, at_most=MAX_SIDE
    )
    validation_share: float = option(
        0.02, "share of the examples that are held out, chosen by their ids", at_least=0, at_most=0.5
    )
    max_validation: int = option(256, "most examples that are held out", at_least=0)
    max_failed: float = option(
        0.0,
        "largest share of examples that can't be read, in percent, with which training begins",
        at_least=0,
        at_most=100,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainingConfig(Checked):
    """How it is trained."""

    steps: int = option(1000, "training steps", at_least=1)
    rows_per_step: int = option(8, "examples of a step on each worker", at_least=1)
    targets_per_row: int = option(4, "noisy targets of an example, which share its prefix", at_least=1)
    learning_rate: float = option(1e-4, "highest rate of AdamW", above=0)
    muon_rate: float = option(0.0, "highest rate of Muon for the blocks' matrices; 0: AdamW for all", at_least=0)
    weight_decay: float = option(0.0, "weight decay", at_least=0)
    decay_share: float = option(0.5, "part of the steps over which rates fall, at the end", at_least=0, at_most=1)
    average: float = option(0.999, "decay of the averaged weights, which are what is saved", at_least=0, at_most=1)
    drop_prompt: float = option(
        0.08, "share of steps that train the negative prompt, for guidance", at_least=0, at_most=1
    )
    drop_to_images: float = option(
        0.1, "share of rows with images whose prompt is left out, for image guidance", at_least=0, at_most=1
    )
    drop_words: float = option(0.0, "share of tokens that become unknown", at_least=0, at_most=1)
    lora_rank: int | None = option(None, "train low-rank additions of this rank; default: all weights", at_least=1)
    lora_alpha: float | None = option(None, "scale of the additions times their rank; default: the rank", above=0)
    seed: int = option(0, "seed of order, noise and times", at_least=0, at_most=MAX_SEED)


@dataclass(frozen=True, slots=True, kw_only=True)
class MachineConfig(Checked):
    """Where it is trained."""

    num_workers: int = option(1, "workers, each with a copy of the weights", at_least=1)
    device: str = option("auto", "auto, cuda or cpu", choices=("auto", "cuda", "cpu"))
    dtype: str = option(
        "auto", "arithmetic: auto (bfloat16 on cuda, float32 on cpu), bfloat16 or float32",
        choices=("auto", "bfloat16", "float32"),
    )  # fmt: skip
    cpu_threads: int = option(1, "threads of a worker on a CPU", at_least=1)
    gradient_checkpointing: bool = option(False, "compute blocks again for their gradients: less memory, more time")
    max_restarts: int = option(3, "how often lost workers are started again", at_least=0)


@dataclass(frozen=True, slots=True, kw_only=True)
class FinetuneConfig(Checked):
    """Everything that a training needs to know."""

    model: str = option("Shitao/OmniGen-v1-diffusers", "hub id, folder or URI of the checkpoint to begin with, or mini")
    data: DataConfig = field(default_factory=DataConfig)
    inputs: InputConfig = field(default_factory=InputConfig)
    training: TrainingConfig = field(default_factory=TrainingConfig)
    machine: MachineConfig = field(default_factory=MachineConfig)
    save_every: int = option(
        500, "steps between two checkpoints, which are what a resumed training goes on from", at_least=1
    )
    validate_every: int = option(100, "steps between two looks at the held-out examples", at_least=1)
    sample_every: int = option(
        500, "steps between two looks at what the model draws, for which pictures are written; 0: never", at_least=0
    )
    num_samples: int = option(8, "examples that are drawn at each of these looks, held-out ones if any", at_least=1)
    result_dtype: str = option(
        "auto",
        "weights of the result: auto (as the checkpoint has them), float32, bfloat16 or float16; adapters are float32",
        choices=("auto", "float32", "bfloat16", "float16"),
    )
    ray_address: str | None = option(None, "cluster to join; default: RAY_ADDRESS, else a local one")
