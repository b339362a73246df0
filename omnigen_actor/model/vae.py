"""Pixels <-> latents, deterministically. The only file that knows the autoencoder.

An input image is encoded to the mode of its distribution, not to a sample: one image, one latent, for every branch and
every row that uses it.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812
from PIL import Image
from torch import Tensor

from omnigen_actor.checkpoint.layouts import CONFIG, DIFFUSERS_STEM, weight_files
from omnigen_actor.checkpoint.reading import read_json
from omnigen_actor.errors import ModelError
from omnigen_actor.model.weights import read_weights

MIN_PSNR_DB = 35.0
"""How close a VAE in bfloat16 must come to the same VAE in fp32."""

_OLD_NAMES = {"query": "to_q", "key": "to_k", "value": "to_v", "proj_attn": "to_out.0"}
"""Attention in VAEs that were saved before diffusers 0.18."""


class Vae:
    """A loaded AutoencoderKL, in fp32 or bfloat16. Never in fp16, which the SDXL VAE overflows."""

    def __init__(self, model: Any, device: torch.device) -> None:
        """Wrap a diffusers AutoencoderKL, in the dtype that it has."""
        self._model = model.to(device).eval().requires_grad_(False)
        self._device = device
        self.dtype: torch.dtype = model.dtype
        self._scale: float = model.config.scaling_factor
        self._shift: float = model.config.shift_factor or 0.0
        self.factor = 2 ** (len(model.config.block_out_channels) - 1)
        self.channels: int = model.config.latent_channels

    @classmethod
    def load(cls, folder: Path, device: torch.device, dtype: torch.dtype = torch.float32) -> Vae:
        """Load a vae/ folder, safetensors only. Raises ModelError."""
        label = f"VAE {str(folder)!r}"
        read = read_weights(label, weight_files(label, folder, DIFFUSERS_STEM), device, torch.float32)
        return cls.build(read_json(label, folder / CONFIG), read.tensors, device, dtype)

    @classmethod
    def build(
        cls, config: Mapping[str, Any], tensors: Mapping[str, Tensor], device: torch.device, dtype: torch.dtype
    ) -> Vae:
        """Make the VAE of vae/config.json around fp32 ``tensors``, which are already on the device.

        Raises ModelError for tensors that do not fit the configuration, for another dtype than fp32 and bfloat16, and
        for bfloat16 where it is not close enough to fp32.
        """
        if dtype not in (torch.float32, torch.bfloat16):
            raise ModelError(f"VAE dtype {dtype}: use float32 or bfloat16; the SDXL VAE overflows in float16")
        vae = cls(_model(config, tensors), device)
        return vae if dtype == torch.float32 else vae._to_bfloat16()

    @property
    def bytes_per_pixel(self) -> int:
        """About what decoding takes of the device: four tensors of the last up block's width, at full size."""
        return 8 * int(self._model.config.block_out_channels[0]) * self.dtype.itemsize

    def encode(self, image: Image.Image) -> Tensor:
        """An RGB image whose sides are multiples of 16 -> its scaled latent (channels, h, w), fp32."""
        pixels = torch.from_numpy(np.array(image, dtype=np.uint8)).to(self._device)
        scaled = (pixels.permute(2, 0, 1)[None].float() / 255 - 0.5) / 0.5
        latent: Tensor = self._model.encode(scaled.to(self.dtype)).latent_dist.mode()[0]
        return (latent.float() - self._shift) * self._scale

    def decode(self, latent: Tensor) -> Tensor:
        """A scaled latent (channels, h, w) -> pixels (height, width, 3) in [0, 1], fp32."""
        unscaled = latent[None].float() / self._scale + self._shift
        decoded: Tensor = self._model.decode(unscaled.to(self.dtype), return_dict=False)[0][0]
        return (decoded.float() / 2 + 0.5).clamp(0, 1).permute(1, 2, 0)

    def _to_bfloat16(self) -> Vae:
        latent = _smooth_latent(self.channels).to(self._device)
        with torch.no_grad():
            exact = self.decode(latent)
            torch.nn.Module.to(self._model, torch.bfloat16)  # diffusers' own `to` warns of modules that it has not got
            self.dtype = torch.bfloat16
            psnr_db = _psnr_db(exact, self.decode(latent))
        if not psnr_db >= MIN_PSNR_DB:
            raise ModelError(
                f"VAE dtype bfloat16: a test image then has {psnr_db:.1f} dB against float32, and at least "
                f"{MIN_PSNR_DB:.0f} dB are needed; use VAE dtype float32"
            )
        return self


def to_image(pixels: Tensor) -> Image.Image:
    """Pixels (height, width, 3) in [0, 1] -> an RGB image."""
    return Image.fromarray((pixels * 255).round().to(torch.uint8).cpu().numpy())


def _model(config: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> Any:
    from diffusers import AutoencoderKL

    try:
        with torch.device("meta"):  # the weights are there already: no time for random ones
            model = AutoencoderKL.from_config(dict(config))
        model.load_state_dict({_new_name(name): tensor for name, tensor in tensors.items()}, assign=True)
    except (RuntimeError, TypeError, ValueError) as error:
        raise ModelError(f"the VAE's weights do not fit its {CONFIG} ({' '.join(str(error).split())[:300]})") from None
    return model


def _new_name(name: str) -> str:
    return re.sub(rf"(attentions\.\d+)\.({'|'.join(_OLD_NAMES)})\.", lambda m: f"{m[1]}.{_OLD_NAMES[m[2]]}.", name)


def _smooth_latent(channels: int) -> Tensor:
    """A fixed latent (channels, 32, 32) with unit variance and, like a picture's, more of it in large shapes."""
    generator = torch.Generator().manual_seed(0)
    large = F.interpolate(torch.randn(1, channels, 5, 5, generator=generator), (32, 32), mode="bicubic")[0]
    latent = large + 0.3 * torch.randn(channels, 32, 32, generator=generator)
    return latent / latent.std()


def _psnr_db(exact: Tensor, other: Tensor) -> float:
    error = float((exact - other).square().mean())
    return math.inf if error == 0 else -10 * math.log10(error)
