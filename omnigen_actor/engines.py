"""Which engine a model name means. Knows no tables; torch is imported only when an engine that needs it is opened.

fake, fake:0.05          FakeEngine, with the seconds that each image takes
package.module:Class     anyone's engine, called as Class(device=…, dtype=…, cpu_threads=…)
anything else            OmniGenEngine on a checkpoint: hub id, folder or URI
"""

from __future__ import annotations

import hashlib
import importlib
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from omnigen_actor.errors import ModelError
from omnigen_actor.types import Engine

_FAKE = re.compile(r"fake(?::(\d+(?:\.\d+)?))?")
_CLASS = re.compile(r"([A-Za-z_][\w.]*):([A-Za-z_]\w*)")


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineSpec:
    """What it takes to open an engine somewhere else: plain values that travel to an actor, which calls it there."""

    model: str
    device: str = "auto"
    dtype: str = "auto"
    cpu_threads: int = 1

    def __call__(self) -> Engine:
        """Open the engine. Raises ModelError."""
        return open_engine(self.model, device=self.device, dtype=self.dtype, cpu_threads=self.cpu_threads)


def open_engine(model: str, *, device: str = "auto", dtype: str = "auto", cpu_threads: int = 1) -> Engine:
    """Open the engine that ``model`` names, on this machine. Raises ModelError."""
    if fake := _FAKE.fullmatch(model):
        from omnigen_actor.fake import FakeEngine

        return FakeEngine(seconds_per_image=float(fake[1] or 0))
    if _CLASS.fullmatch(model):
        opened: Engine = _import_class(model)(device=device, dtype=dtype, cpu_threads=cpu_threads)
        return opened
    return _open_omnigen(model, device, dtype, cpu_threads)


def verify_model(model: str) -> str:
    """The sha256 that tells this model's weights from any other's, without opening it. Raises ModelError.

    Of a class of someone else's only the name is known here.
    """
    if _FAKE.fullmatch(model):
        from omnigen_actor.fake import FAKE_SHA256

        return FAKE_SHA256
    if _CLASS.fullmatch(model):
        _import_class(model)
        return hashlib.sha256(model.encode()).hexdigest()
    from omnigen_actor.checkpoint.opening import open_checkpoint

    return open_checkpoint(model).identity


def _import_class(model: str) -> Callable[..., Any]:
    module, _, name = model.partition(":")
    try:
        found: Callable[..., Any] = getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError) as error:
        raise ModelError(f"no such engine: {model!r} ({error}); the form is package.module:Class") from None
    return found


def _open_omnigen(model: str, device: str, dtype: str, cpu_threads: int) -> Engine:
    import torch

    from omnigen_actor.engine import OmniGenEngine

    torch.set_num_threads(cpu_threads)
    opened: Engine = OmniGenEngine.from_pretrained(model, device=device, dtype=dtype)
    return opened
