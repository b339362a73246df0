"""LoRA adapters in PEFT's format, found and verified before any weight is read. Knows neither torch nor the merging.

An adapter is named ``folder_or_hub_id_or_uri[@weight]``; it is an adapter_config.json and an adapter_model.safetensors.
Its modules may have the names of either layout. Whatever cannot be merged exactly is an error that names the key.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from omnigen_actor.checkpoint import digests
from omnigen_actor.checkpoint.fetching import local_folder
from omnigen_actor.checkpoint.headers import TensorEntry, read_header
from omnigen_actor.checkpoint.layouts import Checkpoint
from omnigen_actor.checkpoint.lora_config import check_config, scale_of
from omnigen_actor.checkpoint.opening import open_checkpoint
from omnigen_actor.checkpoint.reading import read_json
from omnigen_actor.checkpoint.tensors import Place, Places, diffusers_places, original_places
from omnigen_actor.errors import ModelError
from omnigen_actor.uri import redact

CONFIG, WEIGHTS = "adapter_config.json", "adapter_model.safetensors"

_KEY = re.compile(r"(?:base_model\.model\.)?(?P<module>.+)\.lora_(?P<side>[AB])\.weight")
_NO_LORA = {"embed_tokens", "llm.embed_tokens"}


@dataclass(frozen=True, slots=True)
class LowRank:
    """One pair of matrices: ``scale`` · B A, in rows of the canonical tensor ``place.name``. Names are the file's."""

    place: Place
    name_a: str
    name_b: str
    scale: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Adapter:
    """A verified adapter. ``weight`` multiplies all of it and is not yet in the scale of its parts."""

    name: str
    label: str
    weight: float
    config: Path
    weights: Path
    parts: tuple[LowRank, ...]

    def identity_of(self, sha256: Mapping[Path, str]) -> str:
        """sha256 over names and bytes of both files, from the sha256 of each."""
        return digests.combine((path.name, sha256[path]) for path in (self.config, self.weights))

    def describe(self, identity: str) -> str:
        """What a record says of it: name, weight, and the first digits of its identity."""
        return f"{self.name}@{self.weight:g}#{identity[:12]}"


def model_identity(model: str, adapters: Sequence[str] = ()) -> str:
    """The sha256 that tells this model with these adapters from any other, without torch. Raises ModelError."""
    checkpoint = open_checkpoint(model)
    opened = open_adapters(adapters, checkpoint)
    files = [path for adapter in opened for path in (adapter.config, adapter.weights)]
    return merged_identity(checkpoint.identity, opened, {path: digests.sha256(path) for path in files})


def merged_identity(base: str, adapters: Sequence[Adapter], sha256: Mapping[Path, str]) -> str:
    """The base's identity with no adapter; else one that also depends on their bytes, their weights and their order."""
    if not adapters:
        return base
    merged = [(f"{adapter.weight!r}", adapter.identity_of(sha256)) for adapter in adapters]
    return digests.combine([("base", base), *merged])


def open_adapters(specs: Iterable[str], checkpoint: Checkpoint) -> tuple[Adapter, ...]:
    """Fetch and verify every adapter for this checkpoint. Raises ModelError."""
    places = _modules(checkpoint.transformer)
    return tuple(_open_adapter(*parse_adapter(spec), places) for spec in specs)


def parse_adapter(spec: str) -> tuple[str, float]:
    """``name@0.8`` -> name and weight; 1 without one. An ``@`` that no number follows belongs to the name."""
    name, mark, number = spec.rpartition("@")
    try:
        weight = float(number)
    except ValueError:
        name, mark = spec, ""
    if not mark:
        name, weight = spec, 1.0
    if not name.strip() or not math.isfinite(weight):
        raise ModelError(
            f"adapter {redact(spec)!r}: write a folder, hub id or URI, then @ and a finite weight if not 1"
        )
    return name, weight


def _open_adapter(name: str, weight: float, places: Places) -> Adapter:
    label = f"adapter {redact(name)!r}"
    folder = local_folder(name, label, (CONFIG, WEIGHTS))
    config = read_json(label, folder / CONFIG)
    check_config(label, config)
    if not (folder / WEIGHTS).is_file():
        raise ModelError(f"{label} is incomplete: {WEIGHTS} is missing; pickled adapters are never read")
    tensors = {tensor.name: tensor for tensor in read_header(label, folder / WEIGHTS).tensors}
    return Adapter(
        name=redact(name),
        label=label,
        weight=weight,
        config=folder / CONFIG,
        weights=folder / WEIGHTS,
        parts=_pair(label, config, tensors, places),
    )


def _modules(config: Mapping[str, Any]) -> Places:
    """Every linear layer and convolution by its module's name in either layout. An embedding has other adapters."""
    return {
        name.removesuffix(".weight"): place
        for name, place in (diffusers_places(config) | original_places(config)).items()
        if name.endswith(".weight") and len(place.shape) > 1 and name.removesuffix(".weight") not in _NO_LORA
    }


def _pair(
    label: str, config: Mapping[str, Any], tensors: Mapping[str, TensorEntry], places: Places
) -> tuple[LowRank, ...]:
    halves: dict[str, dict[str, TensorEntry]] = {}
    for key, tensor in tensors.items():
        match = _KEY.fullmatch(key)
        if not match or _plain_module(match["module"]) not in places:
            raise ModelError(f"{label}: {key} is no LoRA matrix of a linear layer or convolution of OmniGen v1")
        halves.setdefault(match["module"], {})[match["side"]] = tensor
    if not halves:
        raise ModelError(f"{label}: {WEIGHTS} holds no tensors")
    return tuple(
        _low_rank(label, found, places[_plain_module(module)], *scale_of(label, config, module))
        for module, found in halves.items()
    )


def _plain_module(module: str) -> str:
    return module.removeprefix("transformer.").replace(".attn.", ".self_attn.")


def _low_rank(label: str, halves: Mapping[str, TensorEntry], place: Place, rank: int, scale: float) -> LowRank:
    if len(halves) != 2:
        raise ModelError(f"{label}: {next(iter(halves.values())).name} is there without its other half")
    a, b = halves["A"], halves["B"]
    kernel = tuple(1 for _ in place.shape[2:])
    for tensor, shape in ((a, (rank, *place.shape[1:])), (b, (place.shape[0], rank, *kernel))):
        if tensor.shape != shape:
            raise ModelError(f"{label}: {tensor.name} has shape {list(tensor.shape)}, needed is {list(shape)}")
    return LowRank(place, a.name, b.name, scale)
