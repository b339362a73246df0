"""The VAE is the stock one, its files are hashed, and bfloat16 must first show that it is close to fp32."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

from omnigen_actor.errors import ModelError
from omnigen_actor.model.vae import Vae, to_image

CPU = torch.device("cpu")
WEIGHTS = "diffusion_pytorch_model.safetensors"


@pytest.fixture
def folder(tiny_model: Path, tmp_path: Path) -> Path:
    """A copy of the tiny VAE, to break."""
    return Path(shutil.copytree(tiny_model / "vae", tmp_path / "vae"))


@torch.no_grad()
def test_it_computes_what_the_stock_class_computes(tiny_model: Path, picture):
    from diffusers import AutoencoderKL

    stock = AutoencoderKL.from_pretrained(tiny_model / "vae", low_cpu_mem_usage=False).eval()
    vae = Vae.load(tiny_model / "vae", CPU)
    image = picture(48, 32)
    pixels = torch.from_numpy(np.array(image)).reshape(1, 32, 48, 3).permute(0, 3, 1, 2) / 127.5 - 1
    latent = stock.encode(pixels).latent_dist.mode()[0] * stock.config.scaling_factor
    assert torch.allclose(vae.encode(image), latent, atol=1e-5)
    decoded = stock.decode(latent[None] / stock.config.scaling_factor, return_dict=False)[0][0]
    assert torch.equal(vae.decode(latent), (decoded / 2 + 0.5).clamp(0, 1).permute(1, 2, 0))


def test_nothing_is_trained_and_nothing_is_left_without_weights(tiny_model: Path):
    model = Vae.load(tiny_model / "vae", CPU)._model
    assert not any(parameter.requires_grad or parameter.is_meta for parameter in model.parameters())
    assert not any(buffer.is_meta for buffer in model.buffers())
    assert not model.training


@torch.no_grad()
def test_bfloat16_is_close_and_gives_fp32(tiny_model: Path, picture):
    exact, rounded = (Vae.load(tiny_model / "vae", CPU, dtype) for dtype in (torch.float32, torch.bfloat16))
    assert rounded.dtype == torch.bfloat16
    latent = rounded.encode(picture(32, 32))
    pixels = rounded.decode(latent)
    assert latent.dtype == pixels.dtype == torch.float32
    error = (pixels - exact.decode(latent)).square().mean()
    assert 0 < error < 10**-3.5


def test_a_vae_that_bfloat16_spoils_is_refused_with_the_measure_and_the_remedy(folder: Path):
    tensors = load_file(folder / WEIGHTS)
    tensors["decoder.conv_out.weight"] *= 300  # a contrast at which small errors turn black into white
    save_file(tensors, folder / WEIGHTS)
    assert Vae.load(folder, CPU).dtype == torch.float32
    with pytest.raises(ModelError, match=r"has \d+\.\d dB.*35 dB.*use VAE dtype float32"):
        Vae.load(folder, CPU, torch.bfloat16)


def test_a_vae_that_is_not_finite_in_bfloat16_is_refused(folder: Path):
    tensors = load_file(folder / WEIGHTS)
    tensors["decoder.conv_out.bias"][0] = float("nan")
    save_file(tensors, folder / WEIGHTS)
    with pytest.raises(ModelError, match="nan dB"):
        Vae.load(folder, CPU, torch.bfloat16)


def test_fp16_is_never_used(tiny_model: Path):
    with pytest.raises(ModelError, match="float16"):
        Vae.load(tiny_model / "vae", CPU, torch.float16)


def test_weights_that_do_not_fit_are_one_line(folder: Path):
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"layers_per_block": 2}))
    with pytest.raises(ModelError, match="do not fit") as caught:
        Vae.load(folder, CPU)
    assert "\n" not in str(caught.value)


@torch.no_grad()
def test_names_of_old_files_are_understood(tmp_path: Path):
    from diffusers import AutoencoderKL

    from omnigen_actor.checkpoint.tiny import _VAE

    AutoencoderKL(**_VAE | {"mid_block_add_attention": True}).save_pretrained(tmp_path / "new")
    shutil.copytree(tmp_path / "new", tmp_path / "old")
    old = {"to_q": "query", "to_k": "key", "to_v": "value", "to_out.0": "proj_attn"}
    tensors = load_file(tmp_path / "new" / WEIGHTS)
    for new, name in old.items():
        tensors = {key.replace(f".{new}.", f".{name}."): tensor for key, tensor in tensors.items()}
    save_file(tensors, tmp_path / "old" / WEIGHTS)
    latent = torch.randn(4, 4, 4)
    new, renamed = (Vae.load(tmp_path / name, CPU) for name in ("new", "old"))
    assert torch.equal(new.decode(latent), renamed.decode(latent))


def test_pixels_become_an_image():
    pixels = torch.tensor([[[0.0, 0.5, 1.0]]])
    assert to_image(pixels).getpixel((0, 0)) == (0, 128, 255)
    assert isinstance(to_image(pixels), Image.Image)
