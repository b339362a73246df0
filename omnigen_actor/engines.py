"""Which engine a model name means. Knows no tables; torch is imported only when an engine that needs it is opened.

fake, fake:0.05          FakeEngine, with the seconds that each image takes
package.module:Class     anyone's engine, called as Class(device=…, dtype=…, cpu_threads=…): it gets no other setting
anything else            OmniGenEngine on a checkpoint: hub id, folder or URI, or mini, which the package brings
"""

from __future__ import annotations

import hashlib
import importlib
import re
import socket
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from omnigen_actor import uri
from omnigen_actor.engine_settings import EngineSettings
from omnigen_actor.errors import ModelError
from omnigen_actor.types import Engine

_FAKE = re.compile(r"fake(?::(\d+(?:\.\d+)?))?")
_CLASS = re.compile(r"([A-Za-z_][\w.]*):([A-Za-z_]\w*)")
_DEFAULTS = EngineSettings()


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineSpec:
    """What it takes to open an engine somewhere else: plain values that travel to an actor, which calls it there.

    ``expected_sha256`` is what ``verify_model`` said elsewhere: an engine with other weights is refused. Of someone
    else's class it knows the name alone, so nothing is compared there.
    """

    model: str
    settings: EngineSettings = _DEFAULTS
    expected_sha256: str | None = None

    def __call__(self) -> Engine:
        """Open the engine. Raises ModelError."""
        engine = open_engine(self.model, self.settings)
        if self.expected_sha256 is not None and not is_class(self.model):
            self._compare(engine, self.expected_sha256)
        return engine

    def _compare(self, engine: Engine, expected: str) -> None:
        found = engine.info.sha256
        if found != expected:
            engine.close()
            raise ModelError(
                f"model {uri.redact(self.model)!r} has weights of sha256 {found} on {socket.gethostname()}, and of "
                f"{expected} on the driver: give every node the same files"
            )


def open_engine(model: str, settings: EngineSettings = _DEFAULTS) -> Engine:
    """Open the engine that ``model`` names, on this machine. Raises ModelError."""
    if fake := _FAKE.fullmatch(model):
        from omnigen_actor.fake import FakeEngine

        return FakeEngine(seconds_per_image=float(fake[1] or 0), settings=settings)
    if is_class(model):
        opened: Engine = _import_class(model)(
            device=settings.device, dtype=settings.dtype, cpu_threads=settings.cpu_threads
        )
        return opened
    return _open_omnigen(model, settings)


def is_class(model: str) -> bool:
    """Whether a model name means a class of someone's own."""
    return _CLASS.fullmatch(model) is not None


def verify_model(model: str, adapters: Sequence[str] = ()) -> str:
    """The sha256 that tells this model's weights from any other's, without opening it. Raises ModelError.

    Equal to ``info.sha256`` of the opened engine. Of a class of someone else's only the name is known here; neither
    such a class nor the fake engine has adapters.
    """
    if _FAKE.fullmatch(model):
        from omnigen_actor.fake import FAKE_SHA256

        return FAKE_SHA256
    if is_class(model):
        _import_class(model)
        return hashlib.sha256(model.encode()).hexdigest()
    from omnigen_actor.checkpoint.adapters import model_identity

    return model_identity(model, adapters)


def weights_bytes(model: str, settings: EngineSettings) -> int | None:
    """What the weights of one engine take of a GPU, once they are loaded there; None where nobody knows.

    Adapters are merged, and take nothing. Reads headers alone. Raises ModelError.
    """
    if _FAKE.fullmatch(model) or _CLASS.fullmatch(model):
        return None
    from omnigen_actor.checkpoint.headers import num_elements
    from omnigen_actor.checkpoint.opening import open_checkpoint

    checkpoint = open_checkpoint(model)
    item = 1 if settings.fp8 else {"float32": 4}.get(settings.dtype, 2)
    vae_item = {"float32": 4}.get(settings.vae_dtype, 2)
    transformer = num_elements(checkpoint.label, checkpoint.transformer_files)
    return item * transformer + vae_item * num_elements(checkpoint.label, checkpoint.vae_files)


def _import_class(model: str) -> Callable[..., Any]:
    module, _, name = model.partition(":")
    try:
        found: Callable[..., Any] = getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError) as error:
        raise ModelError(f"no such engine: {model!r} ({error}); the form is package.module:Class") from None
    return found


def _open_omnigen(model: str, settings: EngineSettings) -> Engine:
    import torch

    from omnigen_actor.engine import OmniGenEngine

    torch.set_num_threads(settings.cpu_threads)
    opened: Engine = OmniGenEngine.from_pretrained(model, settings)
    return opened
