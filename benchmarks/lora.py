"""What a LoRA learns from generated images: another look.

1. The pipeline of `jobs.generate` makes a store of images in another look than the mini model's: soft colour fields,
   which the fake engine draws, for prompts of the drawn world. `jobs.export` makes OmniGen's training file of it.
2. A LoRA of the mini model is trained on that file. The loss on rows that are held out, before and after.
3. Fresh rows, with the LoRA and without: how many images differ and by how much, and how rough they are: the mean
   absolute difference of neighbouring pixels, which tells soft fields from things with edges.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1]))

from benchmarks import report
from omnigen_actor.checkpoint.fetching import MINI
from omnigen_actor.engines import verify_model
from pipelines.config import EngineConfig, GenerationConfig, RunConfig, WorkerConfig
from pipelines.export.config import ExportConfig
from pipelines.export.run import export
from pipelines.finetune.config import DataConfig, FinetuneConfig, TrainingConfig
from pipelines.finetune.run import Finetuned, finetune
from pipelines.generate import run
from pipelines.world.evaluation import RIGHT, Questions, read_pictures
from pipelines.world.presets import SMALL
from pipelines.world.scores import psnr_db
from pipelines.world.source import encode_picture

TRAIN_SEED, TEST_SEED = 5_000_000, 6_000_000


def main() -> None:
    """Print the figures, and save them where asked."""
    options = parse_options()
    with tempfile.TemporaryDirectory() as scratch:
        measured = measure(options, Path(scratch))
    report.save(options.output, {"model_sha256": verify_model(MINI), **settings(options), **measured})


def parse_options() -> argparse.Namespace:
    """The options of the command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--tasks", type=lambda text: tuple(text.split(",")), default=("text_to_image",))
    parser.add_argument("--train-rows", type=int, default=200, help="of each task")
    parser.add_argument("--test-rows", type=int, default=60, help="of each task")
    parser.add_argument("--training-steps", type=int, default=200)
    parser.add_argument("--rank", type=int, default=16)
    parser.add_argument("--rate", type=float, default=1e-3)
    parser.add_argument("--steps", type=int, default=10, help="denoising steps")
    parser.add_argument("--output", type=Path)
    return parser.parse_args()


def settings(options: argparse.Namespace) -> dict[str, Any]:
    """What was asked for."""
    return {name: value for name, value in vars(options).items() if name != "output"}


def measure(options: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """All three parts."""
    train = questions(options.tasks, options.train_rows, TRAIN_SEED, RIGHT)
    test = questions(options.tasks, options.test_rows, TEST_SEED, RIGHT)
    generate(train, folder / "train", options.steps, model="fake")
    data_set = str(folder / "train" / "data-set")
    export(str(folder / "train" / "store"), data_set, ExportConfig(format="omnigen"))
    started = time.monotonic()
    tuned = finetune(f"{data_set}/train.jsonl", str(folder / "tuned"), finetuning(options))
    training_s = time.monotonic() - started
    generate(test, folder / "without", options.steps)
    generate(test, folder / "with", options.steps, adapters=(tuned.result_uri,))
    found = {
        "training_seconds": training_s,
        "held_out_loss": {"before": tuned.log[0]["held_out_loss"], "after": tuned.log[-1]["held_out_loss"]},
        "num_train": tuned.num_train,
        "num_held_out": tuned.num_held_out,
        "roughness": {name: roughness(folder / name) for name in ("train", "without", "with")},
        "changed": changes(folder / "without", folder / "with"),
    }
    show(tuned, found)
    return found


def questions(tasks: tuple[str, ...], num_rows: int, seed: int, variant: str) -> Questions:
    """So many rows of each task."""
    return Questions(world=SMALL, tasks=tasks, num_samples=num_rows, seed=seed, variants=(variant,))


def generate(asked: Questions, folder: Path, steps: int, adapters: tuple[str, ...] = (), model: str = MINI) -> None:
    """Rows to a store below ``folder``, as jobs.generate makes it."""
    for row in asked.rows():
        for name, picture in list(row.pictures())[:-1]:
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_bytes(encode_picture(picture))
    folder.mkdir(exist_ok=True)
    (folder / "manifest.jsonl").write_text("".join(json.dumps(row) + "\n" for row in asked.manifest()))
    generation = GenerationConfig(
        width=SMALL.size,
        height=SMALL.size,
        steps=steps,
        guidance_scale=2.0,
        img_guidance_scale=1.5,
        max_input_image_size=SMALL.size,
    )
    config = RunConfig(
        model=model,
        generation=generation,
        workers=WorkerConfig(batch_size=32),
        engine=EngineConfig(adapters=adapters, rows_per_wave=16),
    )
    summary = run(str(folder / "manifest.jsonl"), str(folder / "store"), config)
    assert summary.num_ok == summary.num_in, summary


def finetuning(options: argparse.Namespace) -> FinetuneConfig:
    """The settings of the LoRA."""
    return FinetuneConfig(
        model=MINI,
        data=DataConfig(max_image_size=SMALL.size, validation_share=0.1),
        training=TrainingConfig(
            steps=options.training_steps,
            targets_per_row=8,
            learning_rate=options.rate,
            average=0.99,
            lora_rank=options.rank,
        ),
        sample_every=0,
    )


def roughness(folder: Path) -> float:
    """Mean absolute difference of neighbouring pixels of a store's images, of 255."""
    pictures = [picture.astype(np.float32) for _, picture in read_pictures(str(folder / "store"))]
    return float(np.mean([np.abs(np.diff(picture, axis=axis)).mean() for picture in pictures for axis in (0, 1)]))


def changes(one: Path, other: Path) -> dict[str, float]:
    """How many images of two stores of the same rows differ, and the mean PSNR between them."""
    ours, theirs = (dict(read_pictures(str(folder / "store"))) for folder in (one, other))
    assert ours.keys() == theirs.keys()
    return {
        "num_images": len(ours),
        "num_changed": sum(bool((ours[row] != theirs[row]).any()) for row in ours),
        "mean_psnr_db": float(np.mean([psnr_db(ours[row], theirs[row]) for row in ours])),
    }


def show(tuned: Finetuned, found: dict[str, Any]) -> None:
    """The figures for a person."""
    loss = found["held_out_loss"]
    print(f"{tuned.num_train} rows to train on, {tuned.num_held_out} held out; {found['training_seconds']:.0f} s")
    print(f"held-out loss {loss['before']:.4f} -> {loss['after']:.4f}")
    for name, value in found["roughness"].items():
        print(f"roughness {name:<8}{value:6.2f}")
    changed = found["changed"]
    print(f"{changed['num_changed']} of {changed['num_images']} images changed, PSNR {changed['mean_psnr_db']:.1f} dB")


if __name__ == "__main__":
    main()
