"""OmniGen's transformer over packed tokens: embeddings, rotary tables, blocks, output. Knows no prompts and no steps.

The mathematics is that of diffusers' OmniGenTransformer2DModel; the sequence is not. Tokens of all rows and branches
are packed into one (tokens, hidden) matrix for the linear layers, and what attends to what is the caller's.

Tensor suffixes: M packed tokens, N image tokens, T time steps, C hidden.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor

from omnigen_actor.model.blocks import (
    Blocks,
    BlockShape,
    InPlaceBlocks,
    LayerWeights,
    Rotary,
    compile_blocks,
    num_outputs,
)
from omnigen_actor.model.fp8 import Fp8Weight, quantize
from omnigen_actor.model.rotary import rotary_table

_INPUT_PATCH, _OUTPUT_PATCH = "patch_embedding.input_image_proj", "patch_embedding.output_image_proj"
_FIRST_POSITIONS = 4096
"""Positions that the rotary tables begin with; longer sequences double them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TransformerConfig:
    """The part of transformer/config.json that the mathematics needs."""

    hidden_size: int
    num_layers: int
    num_heads: int
    num_kv_heads: int
    patch_size: int
    in_channels: int
    rms_norm_eps: float
    max_position_embeddings: int
    original_max_position_embeddings: int
    rope_base: float
    short_factor: tuple[float, ...]
    long_factor: tuple[float, ...]
    pos_embed_max_size: int
    time_step_dim: int
    flip_sin_to_cos: bool
    downscale_freq_shift: float

    @classmethod
    def from_json(cls, config: Mapping[str, Any]) -> TransformerConfig:
        """Read a diffusers transformer/config.json."""
        return cls(
            hidden_size=config["hidden_size"],
            num_layers=config["num_layers"],
            num_heads=config["num_attention_heads"],
            num_kv_heads=config["num_key_value_heads"],
            patch_size=config["patch_size"],
            in_channels=config["in_channels"],
            rms_norm_eps=config["rms_norm_eps"],
            max_position_embeddings=config["max_position_embeddings"],
            original_max_position_embeddings=config["original_max_position_embeddings"],
            rope_base=config["rope_base"],
            short_factor=tuple(config["rope_scaling"]["short_factor"]),
            long_factor=tuple(config["rope_scaling"]["long_factor"]),
            pos_embed_max_size=config["pos_embed_max_size"],
            time_step_dim=config["time_step_dim"],
            flip_sin_to_cos=config["flip_sin_to_cos"],
            downscale_freq_shift=config["downscale_freq_shift"],
        )

    @property
    def head_size(self) -> int:
        """Size of one attention head."""
        return self.hidden_size // self.num_heads

    def is_long(self, num_positions: int) -> bool:
        """Whether a sequence of that many positions uses the long rotary factors."""
        return num_positions > self.original_max_position_embeddings


class Transformer:
    """The loaded weights and what is computed with them, one function per part of the model."""

    def __init__(
        self, config: TransformerConfig, tensors: dict[str, Tensor], *, fp8: bool = False, compiled: bool = False
    ) -> None:
        """Take over ``tensors``, already on their device and in their dtype, and empty the dictionary.

        Names are diffusers', with query, key and value of a layer fused into ``self_attn.qkv.weight``. ``fp8`` rounds
        the blocks' matrices; ``compiled`` compiles the blocks where that is possible.
        """
        self.config = config
        layers = [_layer_weights(tensors, i, fp8=fp8) for i in range(config.num_layers)]
        self.activations_per_token = (
            3 * config.hidden_size + num_outputs(layers[0].qkv) + num_outputs(layers[0].gate_up)
        )
        self._tensors = dict(tensors)
        tensors.clear()
        side = config.pos_embed_max_size
        self._positions = self._tensors.pop("patch_embedding.pos_embed").reshape(side, side, config.hidden_size)
        # As a matrix, its columns in the order of proj_out's outputs: (patch row, patch column, channel).
        self._patch_weight = self._tensors[f"{_OUTPUT_PATCH}.weight"].permute(0, 2, 3, 1).flatten(1).contiguous()
        self._rotary = {long: self._rotary_table(_FIRST_POSITIONS, long=long) for long in (False, True)}
        shape = BlockShape(
            num_heads=config.num_heads,
            num_kv_heads=config.num_kv_heads,
            head_size=config.head_size,
            eps=config.rms_norm_eps,
        )
        self.blocks: Blocks = compile_blocks(layers, shape, self.dtype) if compiled else InPlaceBlocks(layers, shape)

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return self._positions.device

    @property
    def dtype(self) -> torch.dtype:
        """The dtype of the linear layers."""
        return self._tensors["proj_out.weight"].dtype

    @property
    def bytes_per_cached_token(self) -> int:
        """Bytes of one token's keys and values in all layers."""
        config = self.config
        return 2 * config.num_kv_heads * config.head_size * config.num_layers * self.dtype.itemsize

    # -- into the sequence ---------------------------------------------------------------------------------------------

    def embed_text(self, ids: tuple[int, ...]) -> Tensor:
        """Token ids -> (len(ids), C)."""
        return F.embedding(torch.tensor(ids, device=self.device), self._tensors["embed_tokens.weight"])

    def embed_input(self, latent: Tensor) -> Tensor:
        """The latent of an input image (channels, h, w) -> its image tokens (N, C)."""
        weight, bias = self._tensors[f"{_INPUT_PATCH}.weight"], self._tensors[f"{_INPUT_PATCH}.bias"]
        patches = F.conv2d(latent.to(self.dtype)[None], weight, bias, stride=self.config.patch_size)
        return patches[0].flatten(1).T + self.crop_positions(*patches.shape[-2:])

    def embed_patches(self, patches: Tensor, positions_NC: Tensor) -> Tensor:
        """Patches (N, patch² · channels) of noisy images, and their part of the position table -> tokens (N, C)."""
        bias = self._tensors[f"{_OUTPUT_PATCH}.bias"]
        return F.linear(patches.to(self.dtype), self._patch_weight, bias) + positions_NC

    def crop_positions(self, height: int, width: int) -> Tensor:
        """The centre of the 2-D position table, (height · width, C); sides in patches."""
        side = self.config.pos_embed_max_size
        top, left = (side - height) // 2, (side - width) // 2
        return self._positions[top : top + height, left : left + width].reshape(height * width, -1)

    def time_tokens(self, times_T: Tensor) -> Tensor:
        """Times in [0, 1] -> the sequence's time tokens (T, C)."""
        return self._embed_time(times_T, "time_token")

    def modulation(self, times_T: Tensor) -> tuple[Tensor, Tensor]:
        """Times in [0, 1] -> (shift, scale) of the output norm, each (T, C)."""
        embedding = F.silu(self._embed_time(times_T, "t_embedder"))
        linear = self._linear(embedding, "norm_out.linear")
        shift, scale = linear.chunk(2, dim=-1)
        return shift, scale

    def _embed_time(self, times_T: Tensor, name: str) -> Tensor:
        half = self.config.time_step_dim // 2
        exponents = torch.arange(half, dtype=torch.float32, device=self.device) * -math.log(10000)
        angles = times_T.float()[:, None] * torch.exp(exponents / (half - self.config.downscale_freq_shift))
        waves = (angles.cos(), angles.sin()) if self.config.flip_sin_to_cos else (angles.sin(), angles.cos())
        hidden = self._linear(torch.cat(waves, dim=-1).to(self.dtype), f"{name}.linear_1")
        return self._linear(F.silu(hidden), f"{name}.linear_2")

    def _linear(self, x: Tensor, name: str) -> Tensor:
        return F.linear(x, self._tensors[f"{name}.weight"], self._tensors[f"{name}.bias"])

    # -- rotary embedding ----------------------------------------------------------------------------------------------

    def rotary(self, first: int, num_positions: int, *, long: bool) -> Rotary:
        """The tables of positions first … first + num_positions - 1 in one regime of longrope, as views."""
        end = first + num_positions
        if end > len(self._rotary[long][0]):
            self._rotary[long] = self._rotary_table(1 << (end - 1).bit_length(), long=long)
        cos, sin = self._rotary[long]
        return cos[first:end], sin[first:end]

    def _rotary_table(self, num_positions: int, *, long: bool) -> Rotary:
        positions = torch.arange(num_positions, device=self._positions.device)[:, None]
        return rotary_table(self.config, positions, long=long)

    # -- out of the sequence -------------------------------------------------------------------------------------------

    def project_out(self, hidden_MC: Tensor, shift_MC: Tensor, scale_MC: Tensor) -> Tensor:
        """Final norms and projection: packed tokens -> packed patches (M, patch² · channels), in fp32."""
        config = self.config
        hidden = F.rms_norm(hidden_MC, (config.hidden_size,), self._tensors["norm.weight"], config.rms_norm_eps)
        modulated = F.layer_norm(hidden, (config.hidden_size,), eps=1e-6) * (1 + scale_MC) + shift_MC
        return self._linear(modulated, "proj_out").float()

    def patch(self, latent: Tensor) -> Tensor:
        """A latent (channels, height, width) -> its patches (N, patch² · channels)."""
        p = self.config.patch_size
        channels, height, width = latent.shape
        grid = latent.reshape(channels, height // p, p, width // p, p)
        return grid.permute(1, 3, 2, 4, 0).reshape(-1, p * p * channels)

    def unpatch(self, patches: Tensor, height: int, width: int) -> Tensor:
        """Patches (N, patch² · channels) -> the latent (channels, height, width); sides in latent cells."""
        p = self.config.patch_size
        grid = patches.reshape(height // p, width // p, p, p, -1)
        return grid.permute(4, 0, 2, 1, 3).reshape(-1, height, width)


def _layer_weights(tensors: dict[str, Tensor], index: int, *, fp8: bool) -> LayerWeights:
    """Take one block's tensors out of ``tensors``; matrices turn fp8 one by one: both copies exist of one only."""

    def take(name: str) -> Tensor:
        return tensors.pop(f"layers.{index}.{name}.weight")

    def take_matrix(name: str) -> Tensor | Fp8Weight:
        return quantize(take(name)) if fp8 else take(name)

    return LayerWeights(
        input_norm=take("input_layernorm"),
        qkv=take_matrix("self_attn.qkv"),
        out=take_matrix("self_attn.to_out.0"),
        post_norm=take("post_attention_layernorm"),
        gate_up=take_matrix("mlp.gate_up_proj"),
        down=take_matrix("mlp.down_proj"),
    )
