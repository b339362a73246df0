"""A verified checkpoint folder -> weights and tokenizer in memory. Knows no requests."""

from __future__ import annotations

import platform
from importlib import metadata

import torch
from safetensors import safe_open
from torch import Tensor

from omnigen_actor.checkpoint.opening import TOKENIZER, TRANSFORMER, Checkpoint
from omnigen_actor.errors import ModelError
from omnigen_actor.model.prompt import Tokenize
from omnigen_actor.model.transformer import Transformer, TransformerConfig

_DTYPES = {"bfloat16": torch.bfloat16, "float32": torch.float32}


def pick_device(device: str) -> torch.device:
    """``auto`` is cuda where there is one. Raises ModelError for a device that is not there."""
    if device == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if device.startswith("cuda") and not torch.cuda.is_available():
        raise ModelError(f"device {device!r}: this process sees no GPU; use cpu, or give the actor a GPU")
    return torch.device(device)


def pick_dtype(dtype: str, device: torch.device) -> torch.dtype:
    """``auto`` is bfloat16 on a GPU and float32 on a CPU. Raises ModelError for an unknown name."""
    if dtype == "auto":
        return torch.bfloat16 if device.type == "cuda" else torch.float32
    if dtype not in _DTYPES:
        raise ModelError(f"dtype {dtype!r} is unknown; known: auto, {', '.join(_DTYPES)}")
    return _DTYPES[dtype]


def load_transformer(checkpoint: Checkpoint, device: torch.device, dtype: torch.dtype) -> Transformer:
    """Read the transformer's safetensors files tensor by tensor, straight to the device."""
    tensors: dict[str, Tensor] = {}
    for path in checkpoint.weights:
        if path.parent.name == TRANSFORMER:
            with safe_open(path, framework="pt", device=str(device)) as file:
                tensors |= {name: file.get_tensor(name).to(dtype) for name in file.keys()}  # noqa: SIM118
    return Transformer(TransformerConfig.from_json(checkpoint.transformer), tensors)


def load_tokenizer(checkpoint: Checkpoint) -> Tokenize:
    """The checkpoint's own tokenizer, as diffusers would load it."""
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(checkpoint.folder / TOKENIZER, local_files_only=True)

    def tokenize(text: str) -> list[int]:
        ids: list[int] = tokenizer(text).input_ids
        return ids

    return tokenize


def library_versions() -> dict[str, str]:
    """Versions of what the pixels depend on."""
    names = ("torch", "transformers", "diffusers", "pillow")
    versions = {name: metadata.version(name) for name in names}
    return {"python": platform.python_version()} | versions | {"torch": torch.__version__}
