"""The two published layouts of OmniGen v1, read into the same facts. Knows files and names; computes nothing.

diffusers   Shitao/OmniGen-v1-diffusers: model_index.json, transformer/, vae/, tokenizer/, scheduler/
original    Shitao/OmniGen-v1: model.safetensors and a Phi-3 config.json, the tokenizer's files beside them, vae/
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from omnigen_actor.checkpoint import digests
from omnigen_actor.checkpoint.headers import TensorEntry, read_header
from omnigen_actor.checkpoint.reading import read_json, short
from omnigen_actor.checkpoint.tensors import Places, diffusers_places, original_places
from omnigen_actor.errors import ModelError

TRANSFORMER, VAE, TOKENIZER, SCHEDULER = "transformer", "vae", "tokenizer", "scheduler"
MODEL_INDEX, CONFIG, SCHEDULER_CONFIG = "model_index.json", "config.json", "scheduler_config.json"
TOKENIZER_FILE = "tokenizer.json"
ORIGINAL_STEM, DIFFUSERS_STEM = "model", "diffusion_pytorch_model"

PIPELINE = {
    "_class_name": "OmniGenPipeline",
    "_diffusers_version": "0.36.0",
    "scheduler": ["diffusers", "FlowMatchEulerDiscreteScheduler"],
    "tokenizer": ["transformers", "PreTrainedTokenizerFast"],
    "transformer": ["diffusers", "OmniGenTransformer2DModel"],
    "vae": ["diffusers", "AutoencoderKL"],
}
"""model_index.json of a checkpoint in diffusers' layout."""

_SIZES = ("hidden_size", "intermediate_size", "num_attention_heads", "num_key_value_heads", "num_layers", "vocab_size",
          "in_channels", "patch_size", "pos_embed_max_size", "time_step_dim", "max_position_embeddings",
          "original_max_position_embeddings")  # fmt: skip

_ORIGINAL_SCHEDULER = {"invert_sigmas": True, "num_train_timesteps": 1, "shift": 1.0}
"""The original repository has no file for it: OmniGenScheduler's own values, in the words of diffusers."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Checkpoint:
    """A verified local checkpoint, told in the same words whichever layout it has.

    ``transformer`` and ``scheduler`` are configurations with diffusers' keys; ``places`` tells where each tensor of
    ``transformer_files`` belongs; ``vae`` and ``tokenizer`` are folders.
    """

    name: str
    label: str
    folder: Path
    transformer: dict[str, Any]
    scheduler: dict[str, Any]
    places: Places
    transformer_files: tuple[Path, ...]
    vae: Path
    vae_files: tuple[Path, ...]
    tokenizer: Path

    @property
    def weights(self) -> tuple[Path, ...]:
        """All weight files: the transformer's, then the VAE's."""
        return (*self.transformer_files, *self.vae_files)

    @property
    def identity(self) -> str:
        """sha256 over names and bytes of all weight files, which are read in full unless it is known. See digests."""
        return self.identity_of({path: digests.sha256(path) for path in self.weights})

    def identity_of(self, sha256: Mapping[Path, str]) -> str:
        """``identity``, from the sha256 of each weight file."""
        return digests.combine((path.relative_to(self.folder).as_posix(), sha256[path]) for path in self.weights)


def read_layout(name: str, label: str, folder: Path) -> Checkpoint:
    """The checkpoint in a local folder; its tensors are not checked yet. Raises ModelError."""
    if (folder / TRANSFORMER).is_dir() or (folder / MODEL_INDEX).is_file():
        return _read_diffusers(name, label, folder)
    if (folder / CONFIG).is_file() or any(folder.glob(f"{ORIGINAL_STEM}.*")):
        return _read_original(name, label, folder)
    raise ModelError(
        f"{label} has neither published layout: no {MODEL_INDEX} with {TRANSFORMER}/, {VAE}/, {TOKENIZER}/ and "
        f"{SCHEDULER}/, and no {ORIGINAL_STEM}.safetensors with {CONFIG}"
    )


def _read_diffusers(name: str, label: str, folder: Path) -> Checkpoint:
    read_json(label, folder / MODEL_INDEX)
    transformer = read_json(label, folder / TRANSFORMER / CONFIG)
    scheduler = read_json(label, folder / SCHEDULER / SCHEDULER_CONFIG)
    _check_kind(label, transformer, scheduler)
    _check_config(label, f"{TRANSFORMER}/{CONFIG}", transformer)
    return Checkpoint(
        name=name,
        label=label,
        folder=folder,
        transformer=transformer,
        scheduler=scheduler,
        places=diffusers_places(transformer),
        transformer_files=weight_files(label, folder / TRANSFORMER, DIFFUSERS_STEM),
        vae=folder / VAE,
        vae_files=_vae_files(label, folder / VAE),
        tokenizer=_tokenizer(label, folder / TOKENIZER),
    )


def _read_original(name: str, label: str, folder: Path) -> Checkpoint:
    files = weight_files(label, folder, ORIGINAL_STEM)
    config = _diffusers_config(label, read_json(label, folder / CONFIG), files)
    _check_config(label, CONFIG, config)
    return Checkpoint(
        name=name,
        label=label,
        folder=folder,
        transformer=config,
        scheduler=dict(_ORIGINAL_SCHEDULER),
        places=original_places(config),
        transformer_files=files,
        vae=folder / VAE,
        vae_files=_vae_files(label, folder / VAE),
        tokenizer=_tokenizer(label, folder),
    )


def weight_files(label: str, folder: Path, stem: str) -> tuple[Path, ...]:
    """The safetensors files of one part: those of its index, or the only one. Raises ModelError."""
    index = folder / f"{stem}.safetensors.index.json"
    if index.is_file():
        shards = read_json(label, index).get("weight_map")
        if not isinstance(shards, dict) or not shards or not all(isinstance(shard, str) for shard in shards.values()):
            raise ModelError(f"{label}: {short(index)} has no weight_map")
        return tuple(folder / Path(shard).name for shard in sorted(set(shards.values())))
    single = folder / f"{stem}.safetensors"
    if not single.is_file():
        pickled = next((path for path in folder.glob("*") if path.suffix in {".bin", ".pt", ".pth", ".ckpt"}), None)
        why = f"only {pickled.name}, which is pickled and never read" if pickled else "no such file"
        raise ModelError(f"{label} is incomplete: {short(single)}: {why}")
    return (single,)


def _vae_files(label: str, folder: Path) -> tuple[Path, ...]:
    if not folder.is_dir():
        raise ModelError(
            f"{label} is incomplete: {VAE}/{CONFIG} is missing; put the {VAE}/ folder of Shitao/OmniGen-v1 there, or "
            "the files of stabilityai/sdxl-vae, which the original code takes when there is none"
        )
    read_json(label, folder / CONFIG)
    return weight_files(label, folder, DIFFUSERS_STEM)


def _tokenizer(label: str, folder: Path) -> Path:
    if not (folder / TOKENIZER_FILE).is_file():
        raise ModelError(f"{label} is incomplete: {short(folder / TOKENIZER_FILE)} is missing")
    return folder


def _diffusers_config(label: str, phi3: dict[str, Any], files: tuple[Path, ...]) -> dict[str, Any]:
    """A Phi-3 configuration in diffusers' keys. What the original code has as constants is read off the tensors."""
    if phi3.get("model_type") != "phi3":
        raise ModelError(f"{label} is of model_type {phi3.get('model_type')!r}; OmniGen v1 has phi3")
    found = {tensor.name: tensor for path in files for tensor in read_header(label, path).tensors}
    patches = _shape(label, found, "x_embedder.proj.weight", 4)
    rope = phi3.get("rope_scaling") or phi3.get("rope_parameters") or {}
    config = {key: phi3.get(key) for key in _SIZES} | {
        "num_layers": phi3.get("num_hidden_layers"),
        "in_channels": patches[1],
        "patch_size": patches[2],
        "pos_embed_max_size": math.isqrt(_shape(label, found, "pos_embed", 3)[1]),
        "time_step_dim": _shape(label, found, "t_embedder.mlp.0.weight", 2)[1],
        "rms_norm_eps": phi3.get("rms_norm_eps", 1e-5),
        "rope_base": phi3.get("rope_theta", rope.get("rope_theta", 10000)),
        "rope_scaling": rope,
        "flip_sin_to_cos": True,
        "downscale_freq_shift": 0,
    }
    if config["original_max_position_embeddings"] is None:
        config["original_max_position_embeddings"] = rope.get("original_max_position_embeddings")
    return config


def _shape(label: str, found: Mapping[str, TensorEntry], name: str, num_dims: int) -> tuple[int, ...]:
    if name not in found:
        raise ModelError(f"{label} is incomplete: tensor {name} is in none of its files")
    if len(found[name].shape) != num_dims:
        raise ModelError(
            f"{label}: tensor {name} has shape {list(found[name].shape)}, not one of {num_dims} dimensions"
        )
    return found[name].shape


def _check_kind(label: str, transformer: dict[str, Any], scheduler: dict[str, Any]) -> None:
    kind = transformer.get("_class_name")
    if kind != "OmniGenTransformer2DModel":
        raise ModelError(f"{label} is of kind {kind!r}; this engine runs OmniGenTransformer2DModel checkpoints")
    if not scheduler.get("invert_sigmas", False) or scheduler.get("num_train_timesteps") != 1:
        raise ModelError(
            f"{label}: the scheduler must have invert_sigmas=true and num_train_timesteps=1, as OmniGen's has"
        )


def _check_config(label: str, file: str, config: dict[str, Any]) -> None:
    for key in _SIZES:
        if not isinstance(config.get(key), int) or config[key] < 1:
            raise ModelError(f"{label}: {file} has {key}={config.get(key)!r}; a positive whole number is needed")
    num_factors = config["hidden_size"] // config["num_attention_heads"] // 2
    rope = config.get("rope_scaling") or {}
    for key in ("short_factor", "long_factor"):
        if not isinstance(rope.get(key), list) or len(rope[key]) != num_factors:
            raise ModelError(f"{label}: {file} needs rope_scaling.{key} with {num_factors} numbers")
