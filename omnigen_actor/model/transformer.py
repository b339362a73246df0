"""OmniGen's transformer over packed tokens: weights, embeddings, rotary tables, layers. Knows no prompts and no steps.

The mathematics is that of diffusers' OmniGenTransformer2DModel; the sequence is not. Tokens of all rows and branches
are packed into one (tokens, hidden) matrix for the linear layers, and attention is given from outside as a callable.

Tensor suffixes: M packed tokens, N image tokens, T time steps, S key positions, C hidden, H heads, G key/value heads,
D head size.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor

Attend = Callable[[int, Tensor, Tensor, Tensor], Tensor]
"""(layer, query_MHD, key_MGD, value_MGD) -> attention output_MHD, with rotary embedding already applied."""


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


@dataclass(frozen=True, slots=True, kw_only=True)
class LayerWeights:
    """One block, with query, key and value fused into one matrix."""

    input_norm: Tensor
    qkv: Tensor
    out: Tensor
    post_norm: Tensor
    gate_up: Tensor
    down: Tensor


class Transformer:
    """The loaded weights and what is computed with them, one function per part of the model."""

    def __init__(self, config: TransformerConfig, tensors: dict[str, Tensor]) -> None:
        """Take over ``tensors`` (diffusers names), already on their device and in their dtype."""
        self.config = config
        self._layers = [_layer_weights(tensors, i) for i in range(config.num_layers)]
        self._tensors = {name: tensor for name, tensor in tensors.items() if not name.startswith("layers.")}
        side = config.pos_embed_max_size
        self._positions = self._tensors.pop("patch_embedding.pos_embed").reshape(side, side, config.hidden_size)
        self._inverse_frequencies = {
            False: self._frequencies(config.short_factor),
            True: self._frequencies(config.long_factor),
        }

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return self._positions.device

    @property
    def dtype(self) -> torch.dtype:
        """The dtype of the linear layers."""
        return self._tensors["proj_out.weight"].dtype

    # -- into the sequence ---------------------------------------------------------------------------------------------

    def embed_text(self, ids: tuple[int, ...]) -> Tensor:
        """Token ids -> (len(ids), C)."""
        return F.embedding(torch.tensor(ids, device=self.device), self._tensors["embed_tokens.weight"])

    def embed_latent(self, latent: Tensor, *, is_input: bool) -> Tensor:
        """A latent (channels, h, w) -> its image tokens (N, C), with the centre-cropped position table added."""
        name = f"patch_embedding.{'input' if is_input else 'output'}_image_proj"
        weight, bias = self._tensors[f"{name}.weight"], self._tensors[f"{name}.bias"]
        patches = F.conv2d(latent.to(self.dtype)[None], weight, bias, stride=self.config.patch_size)
        return patches[0].flatten(1).T + self._crop_positions(*patches.shape[-2:])

    def _crop_positions(self, height: int, width: int) -> Tensor:
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

    def rotary(self, positions: Tensor, *, long: bool) -> tuple[Tensor, Tensor]:
        """fp32 (cos, sin), each (positions, 1, D), of one regime of longrope."""
        angles = positions.float()[:, None] * self._inverse_frequencies[long]
        table = torch.cat((angles, angles), dim=-1)[:, None, :]
        scale = self._attention_scale()
        return table.cos() * scale, table.sin() * scale

    def _frequencies(self, factors: tuple[float, ...]) -> Tensor:
        dim = self.config.head_size
        exponents = torch.arange(0, dim, 2, dtype=torch.float32, device=self._positions.device) / dim
        factors_tensor = torch.tensor(factors, dtype=torch.float32, device=self._positions.device)
        return 1.0 / (factors_tensor * self.config.rope_base**exponents)

    def _attention_scale(self) -> float:
        original = self.config.original_max_position_embeddings
        scale = self.config.max_position_embeddings / original
        return 1.0 if scale <= 1.0 else math.sqrt(1 + math.log(scale) / math.log(original))

    # -- the blocks ----------------------------------------------------------------------------------------------------

    def project_qkv(
        self, layer: int, hidden_MC: Tensor, rotary: tuple[Tensor, Tensor]
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Norm, fused projection and rotary embedding: query (M, H, D), key and value (M, G, D)."""
        config, weights = self.config, self._layers[layer]
        normed = F.rms_norm(hidden_MC, (config.hidden_size,), weights.input_norm, config.rms_norm_eps)
        heads = F.linear(normed, weights.qkv).view(len(hidden_MC), -1, config.head_size)
        query, key, value = torch.split(heads, [config.num_heads, config.num_kv_heads, config.num_kv_heads], dim=1)
        return rotate(query, rotary), rotate(key, rotary), value

    def finish_layer(self, layer: int, hidden_MC: Tensor, attended_MHD: Tensor) -> Tensor:
        """Output projection, residuals and the gated feed-forward."""
        config, weights = self.config, self._layers[layer]
        hidden = hidden_MC + F.linear(attended_MHD.reshape(len(hidden_MC), -1), weights.out)
        normed = F.rms_norm(hidden, (config.hidden_size,), weights.post_norm, config.rms_norm_eps)
        gate, up = F.linear(normed, weights.gate_up).chunk(2, dim=-1)
        return hidden + F.linear(up * F.silu(gate), weights.down)

    def run_layers(self, hidden_MC: Tensor, rotary: tuple[Tensor, Tensor], attend: Attend) -> Tensor:
        """All blocks over packed tokens."""
        for layer in range(self.config.num_layers):
            query, key, value = self.project_qkv(layer, hidden_MC, rotary)
            hidden_MC = self.finish_layer(layer, hidden_MC, attend(layer, query, key, value))
        return hidden_MC

    # -- out of the sequence -------------------------------------------------------------------------------------------

    def project_out(self, hidden_MC: Tensor, shift_MC: Tensor, scale_MC: Tensor) -> Tensor:
        """Final norms and projection: packed tokens -> packed patches (M, patch² · channels), in fp32."""
        config = self.config
        hidden = F.rms_norm(hidden_MC, (config.hidden_size,), self._tensors["norm.weight"], config.rms_norm_eps)
        modulated = F.layer_norm(hidden, (config.hidden_size,), eps=1e-6) * (1 + scale_MC) + shift_MC
        return self._linear(modulated, "proj_out").float()

    def unpatch(self, patches: Tensor, height: int, width: int) -> Tensor:
        """(N, patch² · channels) of one image -> (channels, height, width) in latent cells."""
        p = self.config.patch_size
        grid = patches.reshape(height // p, width // p, p, p, -1)
        return grid.permute(4, 0, 2, 1, 3).reshape(-1, height, width)


def rotate(x_MHD: Tensor, rotary: tuple[Tensor, Tensor]) -> Tensor:
    """Apply rotary embedding in fp32 and return in the input's dtype."""
    cos, sin = rotary
    x = x_MHD.float()
    first, second = x.chunk(2, dim=-1)
    return (x * cos + torch.cat((-second, first), dim=-1) * sin).to(x_MHD.dtype)


def attention(query_NHD: Tensor, key_SGD: Tensor, value_SGD: Tensor, mask: Tensor | None = None) -> Tensor:
    """Scaled dot-product attention of one sequence, token-major in and out."""
    out = F.scaled_dot_product_attention(
        query_NHD.transpose(0, 1)[None],
        key_SGD.transpose(0, 1)[None],
        value_SGD.transpose(0, 1)[None],
        attn_mask=mask,
        enable_gqa=query_NHD.shape[1] != key_SGD.shape[1],
    )
    return out[0].transpose(0, 1)


def _layer_weights(tensors: dict[str, Tensor], index: int) -> LayerWeights:
    """Fuse one block, dropping the parts from ``tensors`` so that host memory holds one layer twice at most."""
    parts = iter_layer(tensors, f"layers.{index}.")
    layer = dict(parts)
    return LayerWeights(
        input_norm=layer["input_layernorm.weight"],
        qkv=torch.cat([layer[f"self_attn.to_{part}.weight"] for part in "qkv"]),
        out=layer["self_attn.to_out.0.weight"],
        post_norm=layer["post_attention_layernorm.weight"],
        gate_up=layer["mlp.gate_up_proj.weight"],
        down=layer["mlp.down_proj.weight"],
    )


def iter_layer(tensors: dict[str, Tensor], prefix: str) -> Iterator[tuple[str, Tensor]]:
    """Take the tensors under ``prefix`` out of the dictionary."""
    for name in [name for name in tensors if name.startswith(prefix)]:
        yield name.removeprefix(prefix), tensors.pop(name)
