"""The tensors of an OmniGen transformer: their shapes, and their names in both published layouts. Reads no files.

The canonical names, which the engine uses, are those of diffusers, except that query, key and value of a layer are the
rows of one ``layers.N.self_attn.qkv.weight``. The original repository's names follow diffusers' own conversion
(scripts/convert_omnigen_to_diffusers.py): it renames and splits and changes no number. Both keep shift before scale in
the output norm's modulation, gate before up in the feed-forward, and the position table in the file.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

Shape = tuple[int, ...]

QKV = "self_attn.qkv.weight"

_ORIGINAL = {
    "embed_tokens": "llm.embed_tokens",
    "norm": "llm.norm",
    "norm_out.linear": "final_layer.adaLN_modulation.1",
    "proj_out": "final_layer.linear",
    "patch_embedding.output_image_proj": "x_embedder.proj",
    "patch_embedding.input_image_proj": "input_x_embedder.proj",
    "time_token.linear_1": "time_token.mlp.0",
    "time_token.linear_2": "time_token.mlp.2",
    "t_embedder.linear_1": "t_embedder.mlp.0",
    "t_embedder.linear_2": "t_embedder.mlp.2",
}
_ORIGINAL_IN_LAYER = {"self_attn.qkv": "self_attn.qkv_proj", "self_attn.to_out.0": "self_attn.o_proj"}
_POSITIONS = {"patch_embedding.pos_embed": "pos_embed"}


@dataclass(frozen=True, slots=True)
class Place:
    """Where a file's tensor of ``shape`` belongs: in the canonical tensor ``name``, from ``first_row`` on."""

    name: str
    shape: Shape
    first_row: int = 0


Places = dict[str, Place]
"""The name of each tensor in the files -> its place."""


def canonical_shapes(config: Mapping[str, Any]) -> dict[str, Shape]:
    """Names and shapes of every tensor of a transformer with this configuration (diffusers' keys)."""
    hidden, channels = config["hidden_size"], config["in_channels"]
    patch = config["patch_size"]
    shapes: dict[str, Shape] = {
        "embed_tokens.weight": (config["vocab_size"], hidden),
        "norm.weight": (hidden,),
        "norm_out.linear.weight": (2 * hidden, hidden),
        "norm_out.linear.bias": (2 * hidden,),
        "proj_out.weight": (patch**2 * channels, hidden),
        "proj_out.bias": (patch**2 * channels,),
        "patch_embedding.pos_embed": (1, config["pos_embed_max_size"] ** 2, hidden),
    }
    for side in ("output", "input"):
        shapes[f"patch_embedding.{side}_image_proj.weight"] = (hidden, channels, patch, patch)
        shapes[f"patch_embedding.{side}_image_proj.bias"] = (hidden,)
    for embedder in ("time_token", "t_embedder"):
        shapes[f"{embedder}.linear_1.weight"] = (hidden, config["time_step_dim"])
        shapes[f"{embedder}.linear_2.weight"] = (hidden, hidden)
        shapes |= {f"{embedder}.linear_{i}.bias": (hidden,) for i in (1, 2)}
    for i in range(config["num_layers"]):
        shapes |= {f"layers.{i}.{name}": shape for name, shape in _layer_shapes(config).items()}
    return shapes


def _layer_shapes(config: Mapping[str, Any]) -> dict[str, Shape]:
    hidden, ffn = config["hidden_size"], config["intermediate_size"]
    return {
        "input_layernorm.weight": (hidden,),
        "post_attention_layernorm.weight": (hidden,),
        QKV: (sum(rows for _, rows in _qkv_rows(config)), hidden),
        "self_attn.to_out.0.weight": (hidden, hidden),
        "mlp.gate_up_proj.weight": (2 * ffn, hidden),
        "mlp.down_proj.weight": (hidden, ffn),
    }


def _qkv_rows(config: Mapping[str, Any]) -> list[tuple[str, int]]:
    head = config["hidden_size"] // config["num_attention_heads"]
    key_rows = head * config["num_key_value_heads"]
    return [("to_q", config["hidden_size"]), ("to_k", key_rows), ("to_v", key_rows)]


def diffusers_places(config: Mapping[str, Any]) -> Places:
    """The tensors of an OmniGenTransformer2DModel as diffusers saves it."""
    places: Places = {}
    for name, shape in canonical_shapes(config).items():
        if name.endswith(QKV):
            places |= dict(_qkv_parts(name, config))
        else:
            places[name] = Place(name, shape)
    return places


def _qkv_parts(name: str, config: Mapping[str, Any]) -> Iterator[tuple[str, Place]]:
    first_row = 0
    for part, rows in _qkv_rows(config):
        yield name.replace("qkv", part), Place(name, (rows, config["hidden_size"]), first_row)
        first_row += rows


def original_places(config: Mapping[str, Any]) -> Places:
    """The tensors of the original repository's model.safetensors."""
    return {original_name(name): Place(name, shape) for name, shape in canonical_shapes(config).items()}


def original_name(name: str) -> str:
    """The original repository's name of a canonical tensor."""
    if name in _POSITIONS:
        return _POSITIONS[name]
    module, _, kind = name.rpartition(".")
    if not module.startswith("layers."):
        return f"{_ORIGINAL[module]}.{kind}"
    _, index, part = module.split(".", 2)
    return f"llm.layers.{index}.{_ORIGINAL_IN_LAYER.get(part, part)}.{kind}"


def is_ignored(name: str) -> bool:
    """Whether a tensor without a place is known to be of no use: rotary tables are computed."""
    return name.endswith("rotary_emb.inv_freq")
