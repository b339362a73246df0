"""What torch sees of this machine's GPUs: whether there are any, how much of their memory is free. Knows no models."""

from __future__ import annotations

import platform
from typing import NamedTuple


class Gpu(NamedTuple):
    """One GPU of a node, in bytes; ``fault`` says why torch finds none, and is empty otherwise."""

    node: str
    name: str = ""
    free: int = 0
    total: int = 0
    fault: str = ""


def look_here() -> Gpu:
    """The first GPU that this process may use."""
    import torch

    if not torch.cuda.is_available():
        return Gpu(platform.node(), fault=f"torch {torch.__version__} finds no CUDA device there")
    free, total = torch.cuda.mem_get_info(0)
    return Gpu(platform.node(), torch.cuda.get_device_name(0), free, total)
