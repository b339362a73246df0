"""A scoring model in memory: weights, image processor and tokenizer by transformers' own classes, without remote code.

Image processors are those that Pillow and numpy are enough for: the same scores with torchvision and without it. Knows
not what a model says of an image.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from transformers import AutoImageProcessor, AutoTokenizer
from transformers.utils import logging as transformers_logging

from omnigen_actor import uri
from omnigen_actor.errors import ModelError, first_line
from pipelines.scores.weights import find_weights


@dataclass(frozen=True, slots=True)
class Pretrained:
    """A model ready to run on ``device``, in float32. ``tokenizer`` is None where none was asked for."""

    label: str
    network: Any
    image_processor: Any
    tokenizer: Any
    device: torch.device

    def run(self, method: Callable[..., Any], pictures: Sequence[Any], **more: Any) -> Any:
        """What ``method`` of the network gives for these RGB pictures; ``more`` is for the image processor."""
        tensors = self.image_processor(images=list(pictures), return_tensors="pt", **more)
        with torch.inference_mode():
            return method(**{name: value.to(self.device) for name, value in tensors.items()})


def open_pretrained(options: Mapping[str, Any], model_class: Any, *, has_text: bool = False) -> Pretrained:
    """The model that ``options`` name, ready to run.

    Options: ``model``, a folder, URI or hub id; ``weights_sha256``, which it must have where that is given; ``device``,
    cuda or cpu, or auto for what there is. Raises ModelError for a model that is missing, of another kind or with other
    weights.
    """
    model = str(options["model"])
    label = f"scoring model {uri.redact(model)!r}"
    folder = find_weights(model, options.get("weights_sha256")).folder
    device = _device(str(options.get("device") or "auto"))
    with _quiet():
        network = _load(label, model_class, folder, use_safetensors=True, dtype=torch.float32)
        image_processor = _load(label, AutoImageProcessor, folder, backend="pil")
        tokenizer = _load(label, AutoTokenizer, folder) if has_text else None
    return Pretrained(label, network.to(device).eval(), image_processor, tokenizer, device)


def _load(label: str, wanted: Any, folder: Any, **more: Any) -> Any:
    try:
        return wanted.from_pretrained(str(folder), local_files_only=True, trust_remote_code=False, **more)
    except Exception as error:  # a folder of another kind of model makes it raise nearly anything
        raise ModelError(f"{label} can't be loaded by {wanted.__name__}: {first_line(error)}") from None


def _device(name: str) -> torch.device:
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    return torch.device(name)


@contextmanager
def _quiet() -> Iterator[None]:
    """Neither bars nor advice of the library: what a user needs to know is raised."""
    level = transformers_logging.get_verbosity()
    has_bars = transformers_logging.is_progress_bar_enabled()
    transformers_logging.set_verbosity(logging.CRITICAL)
    transformers_logging.disable_progress_bar()
    try:
        yield
    finally:
        transformers_logging.set_verbosity(level)
        if has_bars:
            transformers_logging.enable_progress_bar()
