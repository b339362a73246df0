"""A checkpoint in diffusers layout, written again in the original layout or in shards. Moves bytes; computes nothing.

Rows that are concatenated are bytes that are concatenated, so the weights stay the same to the bit.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from omnigen_actor.checkpoint.headers import TensorEntry, read_header
from omnigen_actor.checkpoint.layouts import CONFIG, DIFFUSERS_STEM, ORIGINAL_STEM, TOKENIZER, TRANSFORMER, VAE
from omnigen_actor.checkpoint.reading import read_json
from omnigen_actor.checkpoint.tensors import diffusers_places, original_places

Tensors = dict[str, tuple[TensorEntry, bytes]]


def write_original_layout(source: Path, target: Path) -> None:
    """Write a diffusers folder (its transformer in one file) as the original repository has it, to a new folder."""
    config = read_json("model", source / TRANSFORMER / CONFIG)
    shutil.copytree(source / TOKENIZER, target)
    shutil.copytree(source / VAE, target / VAE)
    (target / CONFIG).write_text(json.dumps(_phi3_config(config), indent=2) + "\n", encoding="utf-8")
    tensors = read_tensors(source / TRANSFORMER / f"{DIFFUSERS_STEM}.safetensors")
    write_tensors(target / f"{ORIGINAL_STEM}.safetensors", _renamed(tensors, config))


def split_into_shards(file: Path, num_shards: int) -> None:
    """Replace a safetensors file by shards of about the same size, and their index."""
    tensors = read_tensors(file)
    total = sum(len(data) for _, data in tensors.values())
    shards: list[Tensors] = [{} for _ in range(num_shards)]
    end = 0
    for name, (entry, data) in tensors.items():
        shards[min(end * num_shards // total, num_shards - 1)][name] = (entry, data)
        end += len(data)
    names = [f"{file.stem}-{i + 1:05}-of-{num_shards:05}.safetensors" for i in range(num_shards)]
    for name, shard in zip(names, shards, strict=True):
        write_tensors(file.with_name(name), shard)
    weight_map = {key: name for name, shard in zip(names, shards, strict=True) for key in shard}
    index = {"metadata": {"total_size": total}, "weight_map": weight_map}
    file.with_name(f"{file.name}.index.json").write_text(json.dumps(index, indent=2) + "\n", encoding="utf-8")
    file.unlink()


def read_tensors(file: Path) -> Tensors:
    """All tensors of a small safetensors file, as bytes."""
    header, content = read_header("model", file), file.read_bytes()
    found, start = {}, len(header.raw)
    for entry in header.tensors:
        found[entry.name] = (entry, content[start : start + entry.num_bytes])
        start += entry.num_bytes
    return found


def write_tensors(file: Path, tensors: Tensors) -> None:
    """Write a safetensors file with the tensors in the given order."""
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    end = 0
    for name, (entry, data) in tensors.items():
        header[name] = {"dtype": entry.dtype, "shape": entry.shape, "data_offsets": [end, end + len(data)]}
        end += len(data)
    raw = json.dumps(header).encode()
    raw += b" " * (-len(raw) % 8)
    with file.open("wb") as output:
        output.write(len(raw).to_bytes(8, "little") + raw)
        output.writelines(data for _, data in tensors.values())


def _renamed(tensors: Tensors, config: Mapping[str, Any]) -> Tensors:
    parts: dict[str, list[tuple[int, str]]] = {}
    for name, place in diffusers_places(config).items():
        parts.setdefault(place.name, []).append((place.first_row, name))
    names = {place.name: (name, place.shape) for name, place in original_places(config).items()}
    renamed = {}
    for canonical, rows in sorted(parts.items()):
        name, shape = names[canonical]
        found = [tensors[part] for _, part in sorted(rows)]
        renamed[name] = (TensorEntry(name, found[0][0].dtype, shape), b"".join(data for _, data in found))
    return renamed


def _phi3_config(config: Mapping[str, Any]) -> dict[str, Any]:
    same = (
        "hidden_size",
        "intermediate_size",
        "max_position_embeddings",
        "num_attention_heads",
        "num_key_value_heads",
        "original_max_position_embeddings",
        "pad_token_id",
        "rms_norm_eps",
        "rope_scaling",
        "vocab_size",
    )
    return {key: config[key] for key in same} | {
        "architectures": ["Phi3ForCausalLM"],
        "model_type": "phi3",
        "hidden_act": "silu",
        "num_hidden_layers": config["num_layers"],
        "rope_theta": float(config["rope_base"]),
        "torch_dtype": "float32",
    }
