"""Pixels <-> latents, deterministically. The only file that knows the autoencoder.

An input image is encoded to the mode of its distribution, not to a sample: one image, one latent, for every branch and
every row that uses it.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor


class Vae:
    """A loaded AutoencoderKL, in fp32: the SDXL VAE overflows in fp16."""

    def __init__(self, model: Any, device: torch.device) -> None:
        """Wrap a diffusers AutoencoderKL."""
        self._model = model.to(device).eval().requires_grad_(False)
        self._device = device
        self._scale: float = model.config.scaling_factor
        self._shift: float = model.config.shift_factor or 0.0
        self.factor = 2 ** (len(model.config.block_out_channels) - 1)
        self.channels: int = model.config.latent_channels

    @classmethod
    def load(cls, folder: Path, device: torch.device) -> Vae:
        """Load a vae/ folder, safetensors only."""
        from diffusers import AutoencoderKL

        model = AutoencoderKL.from_pretrained(
            folder, use_safetensors=True, local_files_only=True, low_cpu_mem_usage=False, torch_dtype=torch.float32
        )
        return cls(model, device)

    def encode(self, image: Image.Image) -> Tensor:
        """An RGB image whose sides are multiples of 16 -> its scaled latent (channels, h, w)."""
        pixels = torch.from_numpy(np.array(image, dtype=np.uint8)).to(self._device)
        scaled = (pixels.permute(2, 0, 1)[None].float() / 255 - 0.5) / 0.5
        latent: Tensor = self._model.encode(scaled).latent_dist.mode()[0]
        return (latent - self._shift) * self._scale

    def decode(self, latent: Tensor) -> Tensor:
        """A scaled latent (channels, h, w) -> pixels (height, width, 3) in [0, 1], fp32."""
        decoded: Tensor = self._model.decode(latent[None] / self._scale + self._shift, return_dict=False)[0][0]
        return (decoded.float() / 2 + 0.5).clamp(0, 1).permute(1, 2, 0)


def to_image(pixels: Tensor) -> Image.Image:
    """Pixels (height, width, 3) in [0, 1] -> an RGB image."""
    return Image.fromarray((pixels * 255).round().to(torch.uint8).cpu().numpy())
