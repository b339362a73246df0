"""Writes LoRA adapters as PEFT saves them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor

Pairs = dict[str, tuple[Tensor, Tensor]]
"""Module -> (A, B)."""


def random_pairs(shapes: dict[str, tuple[int, ...]], rank: int = 3, seed: int = 0) -> Pairs:
    """Matrices for modules whose weights have these shapes; two dimensions more for a convolution."""
    generator = torch.Generator().manual_seed(seed)
    return {
        module: (
            0.3 * torch.randn(rank, *shape[1:], generator=generator),
            0.3 * torch.randn(shape[0], rank, *(1 for _ in shape[2:]), generator=generator),
        )
        for module, shape in shapes.items()
    }


def write_adapter(folder: Path, pairs: Pairs, prefix: str = "base_model.model.", **config: Any) -> Path:
    """adapter_config.json and adapter_model.safetensors in ``folder``."""
    folder.mkdir(parents=True, exist_ok=True)
    content = {"peft_type": "LORA", "r": 3, "lora_alpha": 6, "bias": "none", "use_dora": False, "target_modules": ["x"]}
    (folder / "adapter_config.json").write_text(json.dumps(content | config))
    tensors = {}
    for module, (a, b) in pairs.items():
        tensors |= {f"{prefix}{module}.lora_A.weight": a, f"{prefix}{module}.lora_B.weight": b}
    save_file(tensors, folder / "adapter_model.safetensors")
    return folder
