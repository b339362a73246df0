"""A verified checkpoint folder -> weights and tokenizer in memory. Knows no requests."""

from __future__ import annotations

import platform
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

import torch

from omnigen_actor.checkpoint import digests
from omnigen_actor.checkpoint.adapters import Adapter, merged_identity, open_adapters
from omnigen_actor.checkpoint.layouts import CONFIG, Checkpoint
from omnigen_actor.checkpoint.reading import read_json
from omnigen_actor.errors import ModelError, first_line
from omnigen_actor.model.lora import read_adapters
from omnigen_actor.model.prompt import Tokenize
from omnigen_actor.model.transformer import Transformer, TransformerConfig
from omnigen_actor.model.vae import Vae
from omnigen_actor.model.weights import Weights, read_weights

_DTYPES = {"bfloat16": torch.bfloat16, "float32": torch.float32}


def pick_device(device: str) -> torch.device:
    """``auto`` is cuda where there is one. Raises ModelError for a device that is not there."""
    if device == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if device.startswith("cuda") and not torch.cuda.is_available():
        raise ModelError(f"device {device!r}: this process sees no GPU; use cpu, or give the actor a GPU")
    return torch.device(device)


def device_name(device: torch.device) -> str:
    """What a record calls it: ``cpu``, or the GPU's name, since pixels depend on its kind."""
    return torch.cuda.get_device_name(device) if device.type == "cuda" else str(device)


def pick_dtype(dtype: str, device: torch.device) -> torch.dtype:
    """``auto`` is bfloat16 on a GPU and float32 on a CPU. Raises ModelError for an unknown name."""
    if dtype == "auto":
        return torch.bfloat16 if device.type == "cuda" else torch.float32
    if dtype not in _DTYPES:
        raise ModelError(f"dtype {dtype!r} is unknown; known: auto, {', '.join(_DTYPES)}")
    return _DTYPES[dtype]


@dataclass(frozen=True, slots=True, kw_only=True)
class LoadedModel:
    """What an engine is made of. ``sha256`` and ``adapters`` are of the bytes that were read: see ModelInfo."""

    transformer: Transformer
    vae: Vae
    sha256: str
    adapters: tuple[str, ...]


def load_model(
    checkpoint: Checkpoint,
    device: torch.device,
    dtype: torch.dtype,
    *,
    vae_dtype: torch.dtype = torch.float32,
    adapters: Sequence[str] = (),
    fp8: bool = False,
    compiled: bool = False,
) -> LoadedModel:
    """Read every weight file once, tensor by tensor, straight to the device, with ``adapters`` merged.

    ``fp8`` and ``compiled`` are those of Transformer. Raises ModelError.
    """
    opened = open_adapters(adapters, checkpoint)
    try:
        weights, sha256 = _read_transformer(checkpoint, opened, device, dtype)
        transformer = Transformer(
            TransformerConfig.from_json(checkpoint.transformer), weights.tensors, fp8=fp8, compiled=compiled
        )
        vae_weights = read_weights(checkpoint.label, checkpoint.vae_files, device, torch.float32)
        vae = Vae.build(read_json(checkpoint.label, checkpoint.vae / CONFIG), vae_weights.tensors, device, vae_dtype)
    except torch.OutOfMemoryError as error:
        raise ModelError(
            f"{checkpoint.label} does not fit on {device} ({first_line(error)}); use bfloat16, fp8, or a larger GPU"
        ) from None
    base = checkpoint.identity_of(weights.sha256 | vae_weights.sha256)
    return LoadedModel(
        transformer=transformer,
        vae=vae,
        sha256=merged_identity(base, opened, sha256),
        adapters=tuple(adapter.describe(adapter.identity_of(sha256)) for adapter in opened),
    )


def _read_transformer(
    checkpoint: Checkpoint, adapters: Sequence[Adapter], device: torch.device, dtype: torch.dtype
) -> tuple[Weights, dict[Path, str]]:
    """The transformer's tensors, and the sha256 of each file of the adapters that are merged into them."""
    merging = read_adapters(adapters, device)
    weights = read_weights(
        checkpoint.label,
        checkpoint.transformer_files,
        device,
        dtype,
        places=checkpoint.places,
        edits=merging.edits,
    )
    return weights, merging.sha256 | {adapter.config: digests.sha256(adapter.config) for adapter in adapters}


def load_tokenizer(checkpoint: Checkpoint) -> Tokenize:
    """The checkpoint's tokenizer.json as it is, which is how the model was trained.

    Not AutoTokenizer: from version 5 on it builds a Llama tokenizer anew where tokenizer_config.json names that class,
    and splits the text after special tokens otherwise.
    """
    from transformers import PreTrainedTokenizerFast

    tokenizer = PreTrainedTokenizerFast.from_pretrained(checkpoint.tokenizer, local_files_only=True)

    def tokenize(text: str) -> list[int]:
        ids: list[int] = tokenizer(text).input_ids
        return ids

    return tokenize


def library_versions() -> dict[str, str]:
    """Versions of what the pixels depend on."""
    names = ("torch", "transformers", "diffusers", "pillow")
    versions = {name: metadata.version(name) for name in names}
    return {"python": platform.python_version()} | versions | {"torch": torch.__version__}
