"""A model of OmniGen's full size with random weights made on the device, and a tiny one of the same form.

One set of tensors serves the engine and diffusers' transformer alike: equal weights, held once. Nothing is downloaded
and no file is read, the tokenizer is a stand-in that cuts words into pieces.
"""

from __future__ import annotations

import math
import re
import zlib
from dataclasses import dataclass
from typing import Any

import torch
from diffusers import AutoencoderKL, OmniGenTransformer2DModel
from torch import Tensor

from omnigen_actor.checkpoint.tensors import canonical_shapes
from omnigen_actor.engine import OmniGenEngine
from omnigen_actor.engine_settings import EngineSettings
from omnigen_actor.model import fp8
from omnigen_actor.model.budget import limit_memory
from omnigen_actor.model.loading import pick_dtype
from omnigen_actor.model.transformer import Transformer, TransformerConfig
from omnigen_actor.model.vae import Vae
from omnigen_actor.types import ModelInfo

_HALF_HEAD = 48

FULL: dict[str, Any] = {
    "in_channels": 4,
    "patch_size": 2,
    "hidden_size": 3072,
    "rms_norm_eps": 1e-5,
    "num_attention_heads": 32,
    "num_key_value_heads": 32,
    "intermediate_size": 8192,
    "num_layers": 32,
    "pad_token_id": 32000,
    "vocab_size": 32064,
    "max_position_embeddings": 131072,
    "original_max_position_embeddings": 4096,
    "rope_base": 10000,
    "rope_scaling": {
        "type": "su",
        "short_factor": [1.0 + 0.04 * i for i in range(_HALF_HEAD)],
        "long_factor": [1.0 + 1.3 * i for i in range(_HALF_HEAD)],
    },
    "pos_embed_max_size": 192,
    "time_step_dim": 256,
    "flip_sin_to_cos": True,
    "downscale_freq_shift": 0,
}

TINY: dict[str, Any] = FULL | {
    "hidden_size": 96,
    "num_attention_heads": 4,
    "num_key_value_heads": 4,
    "intermediate_size": 192,
    "num_layers": 3,
    "pad_token_id": 2,
    "vocab_size": 512,
    "max_position_embeddings": 8192,
    "original_max_position_embeddings": 160,
    "rope_scaling": {
        "type": "su",
        "short_factor": [1.0 + 0.02 * i for i in range(12)],
        "long_factor": [1.0 + 0.5 * i for i in range(12)],
    },
    "pos_embed_max_size": 64,
}

FULL_VAE: dict[str, Any] = {
    "down_block_types": ("DownEncoderBlock2D",) * 4,
    "up_block_types": ("UpDecoderBlock2D",) * 4,
    "block_out_channels": (128, 256, 512, 512),
    "layers_per_block": 2,
    "latent_channels": 4,
    "sample_size": 1024,
    "scaling_factor": 0.13025,
}

TINY_VAE: dict[str, Any] = FULL_VAE | {
    "block_out_channels": (16, 16, 16, 16),
    "layers_per_block": 1,
    "norm_num_groups": 8,
}

SHARPNESS = 0.8
"""Gain of the query and key weights: enough for the prompt to show in the output, while rounding does not grow from
layer to layer beyond what a trained model shows. At 1.4 bfloat16 is 40 % off after 32 layers, whoever computes it."""

_PIECE = re.compile(r"<\|\w+\|>|</?img>|\w{1,5}|[^\w\s]")


@dataclass(frozen=True, slots=True)
class Tokenizer:
    """Pieces of words -> ids after a begin mark, as many as a real tokenizer gives. Stable from run to run."""

    vocab_size: int

    def __call__(self, text: str) -> list[int]:
        return [1, *(32 + zlib.crc32(piece.encode()) % (self.vocab_size - 64) for piece in _PIECE.findall(text))]


@dataclass(frozen=True, slots=True, kw_only=True)
class Model:
    """Weights on a device, and what is built over them. ``tensors`` have the engine's names."""

    config: dict[str, Any]
    tensors: dict[str, Tensor]
    vae: AutoencoderKL
    tokenize: Tokenizer
    device: torch.device
    dtype: torch.dtype

    @classmethod
    def random(cls, device: torch.device, dtype: torch.dtype, *, tiny: bool) -> Model:
        """The full size, or the tiny one."""
        config = TINY if tiny else FULL
        return cls(
            config=config,
            tensors=random_tensors(config, device, dtype),
            vae=random_vae(TINY_VAE if tiny else FULL_VAE, device),
            tokenize=Tokenizer(config["vocab_size"]),
            device=device,
            dtype=dtype,
        )

    @property
    def num_parameters(self) -> int:
        """Of the transformer, its position table included."""
        return sum(tensor.numel() for tensor in self.tensors.values())

    def settings(self, **changes: Any) -> EngineSettings:
        """The engine's settings here. On a CPU rows share waves as they do on a GPU, so that the same code runs."""
        rows_per_wave = {} if self.device.type == "cuda" else {"rows_per_wave": 8}
        dtype = str(self.dtype).removeprefix("torch.")
        return EngineSettings(**{"device": str(self.device), "dtype": dtype} | rows_per_wave | changes)

    def engine(self, settings: EngineSettings) -> OmniGenEngine:
        """An engine over these weights; one at a time. Raises ModelError for settings that can't run here."""
        torch._dynamo.reset()  # programs of earlier engines count against the limit beyond which nothing is compiled
        limit_memory(self.device, settings)
        if settings.fp8:
            fp8.require(self.device)
        transformer = Transformer(
            TransformerConfig.from_json(self.config),
            dict(self.tensors),
            fp8=settings.fp8,
            compiled=settings.compiles_on(self.device.type),
        )
        vae_dtype = pick_dtype(settings.vae_dtype, self.device)
        info = ModelInfo(
            name="random weights",
            sha256="0" * 64,
            device=str(self.device),
            dtype=settings.dtype,
        )
        return OmniGenEngine(
            transformer,
            Vae.build(dict(self.vae.config), self.vae.state_dict(), self.device, vae_dtype),
            self.tokenize,
            shift=1.0,
            info=info,
            settings=settings,
        )

    def diffusers(self, dtype: torch.dtype) -> OmniGenTransformer2DModel:
        """Diffusers' transformer over these weights: the same memory in the model's dtype, a copy in another."""
        unknown = {"flip_sin_to_cos", "downscale_freq_shift"}
        arguments = {name: value for name, value in self.config.items() if name not in unknown}
        with torch.device("meta"):
            module = OmniGenTransformer2DModel(**arguments)
        module.load_state_dict({name: tensor.to(dtype) for name, tensor in self._diffusers_tensors()}, assign=True)
        return module.eval().requires_grad_(False)

    def _diffusers_tensors(self) -> list[tuple[str, Tensor]]:
        hidden = self.config["hidden_size"]
        kv = hidden // self.config["num_attention_heads"] * self.config["num_key_value_heads"]
        found = []
        for name, tensor in self.tensors.items():
            if name.endswith("self_attn.qkv.weight"):
                parts = torch.split(tensor, [hidden, kv, kv])
                found += [(name.replace("qkv", f"to_{part}"), rows) for part, rows in zip("qkv", parts, strict=True)]
            else:
                found.append((name, tensor))
        return found


def random_tensors(
    config: dict[str, Any], device: torch.device, dtype: torch.dtype, seed: int = 0
) -> dict[str, Tensor]:
    """Every tensor of a transformer with this configuration. Each layer keeps the size of what goes through it, so
    that activations stay finite in bfloat16 through all blocks.
    """
    generator = torch.Generator(device).manual_seed(seed)
    tensors = {}
    for name, shape in canonical_shapes(config).items():
        tensor = torch.empty(tuple(shape), device=device, dtype=dtype)
        tensors[name] = _fill(name, tensor, generator, config)
    return tensors


def _fill(name: str, tensor: Tensor, generator: torch.Generator, config: dict[str, Any]) -> Tensor:
    if name.endswith("norm.weight"):
        return tensor.fill_(1.0)
    if name.endswith("bias"):
        return tensor.normal_(0, 0.02, generator=generator)
    if name.endswith("pos_embed"):
        return tensor.normal_(0, math.sqrt(0.5), generator=generator)
    if name == "embed_tokens.weight":
        return tensor.normal_(0, 1, generator=generator)
    tensor.normal_(0, 1 / math.sqrt(tensor[0].numel()), generator=generator)
    if name.endswith("qkv.weight"):
        num_values = config["hidden_size"] // config["num_attention_heads"] * config["num_key_value_heads"]
        tensor[:-num_values] *= SHARPNESS
    return tensor


def random_vae(config: dict[str, Any], device: torch.device) -> AutoencoderKL:
    """An AutoencoderKL in fp32 with diffusers' initialisation."""
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []), device:
        torch.manual_seed(0)
        vae = AutoencoderKL(**config)
    return vae.eval().requires_grad_(False)
