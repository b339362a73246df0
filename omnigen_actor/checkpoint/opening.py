"""Where a model comes from: hub id, folder or URI -> a local checkpoint whose files are known to be whole.

Reads configurations and safetensors headers only, so that a driver without a GPU finds a bad checkpoint in
milliseconds. Knows neither torch nor the mathematics of the model. Pickled weights are never read.
"""

from __future__ import annotations

from pathlib import Path

from omnigen_actor.checkpoint.fetching import MODEL_FILES, local_folder
from omnigen_actor.checkpoint.headers import TensorEntry, read_header
from omnigen_actor.checkpoint.layouts import SCHEDULER, TOKENIZER, TRANSFORMER, VAE, Checkpoint, read_layout
from omnigen_actor.checkpoint.reading import short
from omnigen_actor.checkpoint.tensors import Places, is_ignored
from omnigen_actor.errors import ModelError
from omnigen_actor.uri import redact

__all__ = ["SCHEDULER", "TOKENIZER", "TRANSFORMER", "VAE", "Checkpoint", "open_checkpoint"]


def open_checkpoint(model: str) -> Checkpoint:
    """Fetch ``model`` if it is not local, verify it, and return it.

    Raises ModelError, naming the model and the file, when there is no such model, or a file is missing, cut short,
    unreadable, or made for another kind of model.
    """
    label = f"model {redact(model)!r}"
    checkpoint = read_layout(model, label, local_folder(model, label, MODEL_FILES))
    _check_tensors(label, checkpoint.transformer_files, checkpoint.places)
    for path in checkpoint.vae_files:
        read_header(label, path)
    return checkpoint


def _check_tensors(label: str, files: tuple[Path, ...], places: Places) -> None:
    found: dict[str, TensorEntry] = {}
    for path in files:
        for tensor in read_header(label, path).tensors:
            if tensor.name in found:
                raise ModelError(f"{label}: tensor {tensor.name} is in two of its files, {short(path)} is one")
            if tensor.name not in places and not is_ignored(tensor.name):
                raise ModelError(f"{label}: {short(path)} has a tensor that OmniGen v1 does not have: {tensor.name}")
            found[tensor.name] = tensor
    for name, place in places.items():
        if name not in found:
            raise ModelError(f"{label} is incomplete: tensor {name} is in none of its files")
        if found[name].shape != place.shape:
            raise ModelError(
                f"{label}: tensor {name} has shape {list(found[name].shape)}, its config tells of {list(place.shape)}"
            )
