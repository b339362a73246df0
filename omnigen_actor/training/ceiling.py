"""Pictures through a checkpoint's autoencoder and back: what it leaves possible. Knows no data sets."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image

from omnigen_actor.checkpoint.opening import open_checkpoint
from omnigen_actor.model.loading import pick_device
from omnigen_actor.model.vae import Vae, to_image

Picture = npt.NDArray[np.uint8]


class Ceiling:
    """A callable that holds the autoencoder: a picture (H, W, 3) uint8 in, the same encoded and decoded out."""

    def __init__(self, model: str, device: str = "auto") -> None:
        """Raises ModelError."""
        self._vae = Vae.load(open_checkpoint(model).vae, pick_device(device))

    @torch.inference_mode()
    def __call__(self, picture: Picture) -> Picture:
        """Sides must be multiples of 16."""
        return np.asarray(to_image(self._vae.decode(self._vae.encode(Image.fromarray(picture)))))
