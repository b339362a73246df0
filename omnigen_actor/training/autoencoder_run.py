"""An autoencoder trained from nothing to a vae/ folder, in pieces if need be. Knows no pictures: it is given them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch

from omnigen_actor.training.autoencoder import AutoencoderRecipe, AutoencoderTrainer, psnr_db, whiten
from omnigen_actor.training.checkpoint import write_autoencoder
from omnigen_actor.training.mini import new_autoencoder

Pictures = npt.NDArray[np.uint8]
"""(pictures, H, W, 3)"""

STATE = "autoencoder.pt"
_SAVE_EVERY = 250


def train_autoencoder(
    folder: Path,
    recipe: AutoencoderRecipe,
    album: Callable[[int, int], Pictures],
    *,
    held_out: Pictures,
    whitened_on: Pictures,
    cpu_threads: int = 1,
    on_saved: Callable[[int, float], None] = lambda _step, _psnr_db: None,
) -> None:
    """Train on ``album(first, count)``, picture after picture, and write folder/vae in fp16.

    A training that was cut off goes on from ``folder/autoencoder.pt``. ``on_saved`` hears the step and the PSNR in dB
    of ``held_out``, by the mode of the latents.
    """
    torch.set_num_threads(cpu_threads)
    trainer = AutoencoderTrainer(new_autoencoder(recipe.seed), recipe)
    state = folder / STATE
    if state.is_file():
        trainer.restore(torch.load(state, weights_only=True))
    first = sum(recipe.pictures(step) for step in range(trainer.step))
    while trainer.step < recipe.num_steps:
        count = recipe.pictures(trainer.step)
        trainer.train(_pixels(album(first, count)))
        first += count
        if trainer.step % _SAVE_EVERY == 0 or trainer.step == recipe.num_steps:
            _save(trainer, state)
            on_saved(trainer.step, _quality(trainer, _pixels(held_out)))
    trainer.model.eval()
    whiten(trainer.model, _pixels(whitened_on))
    write_autoencoder(folder, trainer.model, torch.float16)


def _pixels(pictures: Pictures) -> torch.Tensor:
    return torch.from_numpy(pictures).permute(0, 3, 1, 2).float() / 127.5 - 1


def _save(trainer: AutoencoderTrainer, path: Path) -> None:
    temporary = path.with_suffix(".tmp")
    torch.save(trainer.state(), temporary)
    temporary.replace(path)


@torch.no_grad()
def _quality(trainer: AutoencoderTrainer, right: torch.Tensor) -> float:
    model = trainer.model
    return psnr_db(model.decode(model.encode(right).latent_dist.mode(), return_dict=False)[0], right)
