"""OmniGen's transformer as a module with gradients, over packed batches. The same mathematics as the engine's.

Its parameters have diffusers' names, so that what is trained here is saved and loaded as it is. Knows no prompts, no
noise and no optimizer.

Tensor suffixes: B rows, L places of the padded sequence, M tokens that are images, T noisy targets, C hidden.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from omnigen_actor.checkpoint.tensors import diffusers_places
from omnigen_actor.model.blocks import rotate
from omnigen_actor.model.rotary import rotary_table
from omnigen_actor.model.transformer import TransformerConfig
from omnigen_actor.training.packing import PackedBatch

POSITIONS = "patch_embedding.pos_embed"
_INPUT, _OUTPUT = "patch_embedding.input_image_proj", "patch_embedding.output_image_proj"
LORA_A, LORA_B = "lora_A.weight", "lora_B.weight"
"""PEFT's names for the low-rank factors of a module: (rank, inputs) and (outputs, rank)."""

_ZERO_AT_FIRST = ("norm_out.linear", "proj_out", "to_out.0", "down_proj")


class Network(nn.Module):
    """The weights, and velocities of noisy targets that share the prefix of their row.

    ``saves_memory``: blocks are computed again for their gradients. ``low_rank``: alpha of each linear layer that has
    low-rank factors beside its weight.
    """

    def __init__(self, config: Mapping[str, Any], *, saves_memory: bool = False) -> None:
        """``config``: diffusers' transformer/config.json. Weights are zero until ``load_state_dict`` or ``draw``."""
        super().__init__()
        self.config = TransformerConfig.from_json(config)
        self.saves_memory = saves_memory
        for name, place in diffusers_places(config).items():
            _register(self, name, torch.zeros(place.shape))
        self.low_rank: dict[str, float] = {}

    def draw(self, generator: torch.Generator) -> None:
        """Random weights to begin with. What writes into the residual stream begins at zero."""
        self.get_buffer(POSITIONS).copy_(_sincos(self.config.pos_embed_max_size, self.config.hidden_size))
        for name, parameter in self.named_parameters():
            if any(part in name for part in _ZERO_AT_FIRST) or name.endswith("bias"):
                parameter.data.zero_()
            elif parameter.dim() < 2:
                parameter.data.fill_(1.0)
            else:
                deviation = 0.5 if "embed_tokens" in name else parameter[0].numel() ** -0.5
                parameter.data.normal_(0.0, deviation, generator=generator)

    def attach(self, layer: str, a: Tensor, b: Tensor, alpha: float) -> None:
        """Add alpha / rank · B A to the weight of a linear layer, as two parameters; they stay fp32 whatever it is."""
        device = self._weight(f"{layer}.weight").device
        for name, factor in ((LORA_A, a), (LORA_B, b)):
            _register(self, f"{layer}.{name}", factor.to(device, torch.float32))
        self.low_rank[layer] = alpha

    def forward(self, batch: PackedBatch) -> Tensor:
        """Velocities of all noisy patches of the batch, (M, patch² · channels), in fp32."""
        hidden = self._embed(batch)
        rotary = self._rotary(batch)
        for index in range(self.config.num_layers):
            if self.saves_memory and torch.is_grad_enabled():
                hidden = checkpoint(self._block, index, hidden, rotary, batch.mask, use_reentrant=False)
            else:
                hidden = self._block(index, hidden, rotary, batch.mask)
        tokens = hidden.flatten(0, 1)[batch.noisy_places]
        tokens = F.rms_norm(tokens, tokens.shape[-1:], self._weight("norm.weight"), self.config.rms_norm_eps)
        shift, scale = self._modulation(batch.times)[batch.noisy_targets].chunk(2, dim=-1)
        tokens = F.layer_norm(tokens, tokens.shape[-1:], eps=1e-6) * (1 + scale) + shift
        return self._linear(tokens, "proj_out").float()

    # -- into the sequence ---------------------------------------------------------------------------------------------

    def _embed(self, batch: PackedBatch) -> Tensor:
        ids = batch.ids
        text = F.embedding(ids, self._weight("embed_tokens.weight")).flatten(0, 1)
        hidden = text * batch.is_text.flatten()[:, None].to(text.dtype)
        inputs = self._patches(batch.input_patches, _INPUT) + self._crop(batch.input_cells, text.dtype)
        noisy = self._patches(batch.noisy_patches, _OUTPUT) + self._crop(batch.noisy_cells, text.dtype)
        times = self._embed_time(batch.times, "time_token")
        places = torch.cat((batch.input_places, batch.noisy_places, batch.time_places))
        tokens = torch.cat((inputs, noisy, times))
        return hidden.index_add(0, places, tokens.to(hidden.dtype)).view(*ids.shape, -1)

    def _patches(self, patches: Tensor, name: str) -> Tensor:
        """Patches (M, patch² · channels), in the order of proj_out's outputs, as tokens (M, C)."""
        weight = self._weight(f"{name}.weight").permute(0, 2, 3, 1).flatten(1)
        return F.linear(patches.to(weight.dtype), weight, self._weight(f"{name}.bias"))

    def _crop(self, cells: Tensor, dtype: torch.dtype) -> Tensor:
        """The rows of the 2-D position table at these cells, counted from its top left."""
        return self.get_buffer(POSITIONS)[0][cells].to(dtype)

    def _modulation(self, times: Tensor) -> Tensor:
        return self._linear(F.silu(self._embed_time(times, "t_embedder")), "norm_out.linear")

    def _embed_time(self, times: Tensor, name: str) -> Tensor:
        config = self.config
        half = config.time_step_dim // 2
        exponents = torch.arange(half, dtype=torch.float32, device=times.device) * -math.log(10000)
        angles = times.float()[:, None] * torch.exp(exponents / (half - config.downscale_freq_shift))
        waves = (angles.cos(), angles.sin()) if config.flip_sin_to_cos else (angles.sin(), angles.cos())
        hidden = torch.cat(waves, dim=-1).to(self._weight(f"{name}.linear_1.weight").dtype)
        return self._linear(F.silu(self._linear(hidden, f"{name}.linear_1")), f"{name}.linear_2")

    def _rotary(self, batch: PackedBatch) -> tuple[Tensor, Tensor]:
        """cos and sin, (B, L, 1, D / 2), each row in its own regime."""
        short, long = (rotary_table(self.config, batch.positions, long=long) for long in (False, True))
        is_long = (batch.num_positions > self.config.original_max_position_embeddings)[:, None, None]
        cos, sin = (torch.where(is_long, b, a)[:, :, None] for a, b in zip(short, long, strict=True))
        return cos, sin

    # -- blocks --------------------------------------------------------------------------------------------------------

    def _block(self, index: int, hidden: Tensor, rotary: tuple[Tensor, Tensor], mask: Tensor) -> Tensor:
        name, eps = f"layers.{index}", self.config.rms_norm_eps
        normed = F.rms_norm(hidden, hidden.shape[-1:], self._weight(f"{name}.input_layernorm.weight"), eps)
        hidden = hidden + self._attend(f"{name}.self_attn", normed, rotary, mask)
        normed = F.rms_norm(hidden, hidden.shape[-1:], self._weight(f"{name}.post_attention_layernorm.weight"), eps)
        gate, up = self._linear(normed, f"{name}.mlp.gate_up_proj").chunk(2, dim=-1)
        return hidden + self._linear(F.silu(gate) * up, f"{name}.mlp.down_proj")

    def _attend(self, name: str, normed: Tensor, rotary: tuple[Tensor, Tensor], mask: Tensor) -> Tensor:
        size = self.config.head_size
        projected = (self._linear(normed, f"{name}.to_{part}") for part in "qkv")
        query, key, value = (part.view(*part.shape[:2], -1, size) for part in projected)
        attended = F.scaled_dot_product_attention(
            rotate(query, rotary).transpose(1, 2),
            rotate(key, rotary).transpose(1, 2),
            value.transpose(1, 2),
            attn_mask=mask,
            enable_gqa=self.config.num_kv_heads != self.config.num_heads,
        )
        return self._linear(attended.transpose(1, 2).flatten(2), f"{name}.to_out.0")

    def _linear(self, x: Tensor, name: str) -> Tensor:
        bias = self._weight(f"{name}.bias") if f"{name}.bias" in self._parameter_names else None
        out = F.linear(x, self._weight(f"{name}.weight"), bias)
        if name in self.low_rank:
            a, b = (self._weight(f"{name}.{factor}").to(x.dtype) for factor in (LORA_A, LORA_B))
            out = out + F.linear(F.linear(x, a), b) * (self.low_rank[name] / len(a))
        return out

    def _weight(self, name: str) -> Tensor:
        return self.get_parameter(name)

    @property
    def _parameter_names(self) -> frozenset[str]:
        names: frozenset[str] | None = self.__dict__.get("_names")
        if names is None:
            names = self.__dict__["_names"] = frozenset(name for name, _ in self.named_parameters())
        return names


def _register(root: nn.Module, name: str, tensor: Tensor) -> None:
    """Register a tensor under its dotted name: the position table as a buffer, all others as parameters."""
    *path, last = name.split(".")
    module = root
    for part in path:
        if part not in dict(module.named_children()):
            module.add_module(part, nn.Module())
        module = module.get_submodule(part)
    if name == POSITIONS:
        module.register_buffer(last, tensor)
    else:
        module.register_parameter(last, nn.Parameter(tensor))


def _sincos(side: int, hidden: int, base_side: int = 64) -> Tensor:
    """The 2-D table of diffusers' OmniGenPatchEmbed, (1, side², hidden): half of it for x, half for y."""
    grid = torch.arange(side, dtype=torch.float64) / (side / base_side)
    halves = torch.stack([_waves(grid, hidden // 2)] * 2)
    along_x = halves[0][None, :].expand(side, side, -1)
    along_y = halves[1][:, None].expand(side, side, -1)
    return torch.cat((along_x, along_y), dim=-1).reshape(1, side * side, hidden).float()


def _waves(places: Tensor, width: int) -> Tensor:
    frequencies = 10000.0 ** -(torch.arange(width // 2, dtype=torch.float64) / (width / 2))
    angles = places[:, None] * frequencies
    return torch.cat((angles.sin(), angles.cos()), dim=-1)


def trainable(network: nn.Module) -> Iterator[nn.Parameter]:
    """The parameters that take part in training."""
    return (parameter for parameter in network.parameters() if parameter.requires_grad)
