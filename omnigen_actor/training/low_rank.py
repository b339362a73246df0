"""LoRA for a network in training: low-rank factors beside frozen weights, written and read as PEFT's folders.

Source: LoRA (arXiv 2106.09685); names, configuration and first values are those of PEFT. Knows no optimizer and no
data.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor

from omnigen_actor.checkpoint.adapters import CONFIG, WEIGHTS
from omnigen_actor.checkpoint.lora_config import check_config, scale_of
from omnigen_actor.checkpoint.reading import read_json
from omnigen_actor.errors import ConfigError, ModelError
from omnigen_actor.model.weights import read_weights
from omnigen_actor.training.network import LORA_A, LORA_B, Network

TARGETS = ("to_q", "to_k", "to_v", "to_out.0", "gate_up_proj", "down_proj")
"""The linear layers of a block, by the ends of their names."""

_PREFIX = "base_model.model."
_KEY = re.compile(rf"(?:{re.escape(_PREFIX)})?(?:transformer\.)?(?P<layer>.+)\.(?P<factor>lora_[AB]\.weight)")


def is_factor(name: str) -> bool:
    """Whether a parameter is a low-rank factor."""
    return name.endswith((LORA_A, LORA_B))


def add_low_rank(
    network: Network, rank: int, alpha: float, targets: Sequence[str] = TARGETS, *, generator: torch.Generator
) -> None:
    """Freeze all weights, and add factors to each linear layer whose name is, or ends with, one of ``targets``.

    A is uniform within 1 / √inputs and B zero, so that nothing changes at first. Raises ConfigError for a rank below 1,
    for a target that names no linear layer, and where there are factors already.
    """
    if rank < 1:
        raise ConfigError(f"rank {rank}: low-rank factors need a rank of at least 1")
    shapes = _linear_layers(network)
    for target in targets:
        if not any(_matches(layer, target) for layer in shapes):
            raise ConfigError(f"target {target!r} ends the name of no linear layer; usual are {', '.join(TARGETS)}")
    _freeze(network)
    for layer, (num_outputs, num_inputs) in shapes.items():
        if any(_matches(layer, target) for target in targets):
            bound = num_inputs**-0.5
            a = torch.empty(rank, num_inputs).uniform_(-bound, bound, generator=generator)
            network.attach(layer, a, torch.zeros(num_outputs, rank), alpha)


def write_adapter(folder: Path, network: Network, *, base: str | None = None) -> None:
    """adapter_model.safetensors and adapter_config.json, as PEFT saves them. ``base``: the model that it is for."""
    assert network.low_rank, "a network without low-rank factors"
    folder.mkdir(parents=True, exist_ok=True)
    tensors = {
        f"{_PREFIX}{name}": parameter.detach().to("cpu").contiguous()
        for name, parameter in network.named_parameters()
        if is_factor(name)
    }
    save_file(tensors, folder / WEIGHTS, metadata={"format": "pt"})
    text = json.dumps(_peft_config(network, base), indent=2) + "\n"
    (folder / CONFIG).write_text(text, encoding="utf-8")


def load_adapter(network: Network, folder: Path) -> None:
    """Freeze all weights, and add the factors of a PEFT folder to go on training them.

    Raises ModelError for an adapter that is not plain LoRA on this network's linear layers, by diffusers' names, and
    ConfigError where there are factors already.
    """
    label = f"adapter {str(folder)!r}"
    config = read_json(label, folder / CONFIG)
    check_config(label, config)
    found: dict[str, dict[str, Tensor]] = {}
    for key, tensor in read_weights(label, [folder / WEIGHTS], torch.device("cpu"), torch.float32).tensors.items():
        match = _KEY.fullmatch(key)
        if not match:
            raise ModelError(f"{label}: {key} is no LoRA matrix")
        found.setdefault(match["layer"], {})[match["factor"]] = tensor
    if not found:
        raise ModelError(f"{label}: {WEIGHTS} holds no tensors")
    shapes = _linear_layers(network)
    checked = {layer: _checked(label, config, layer, factors, shapes) for layer, factors in found.items()}
    _freeze(network)
    for layer, (a, b, alpha) in checked.items():
        network.attach(layer, a, b, alpha)


def _linear_layers(network: Network) -> dict[str, tuple[int, int]]:
    """(outputs, inputs) of each linear layer. An embedding is none, and a convolution has more dimensions."""
    return {
        name.removesuffix(".weight"): (parameter.shape[0], parameter.shape[1])
        for name, parameter in network.named_parameters()
        if name.endswith(".weight") and parameter.dim() == 2 and name != "embed_tokens.weight" and not is_factor(name)
    }


def _matches(layer: str, target: str) -> bool:
    return layer == target or layer.endswith(f".{target}")


def _freeze(network: Network) -> None:
    if network.low_rank:
        raise ConfigError("the network has low-rank factors already; add them once, to the weights alone")
    network.requires_grad_(False)


def _peft_config(network: Network, base: str | None) -> dict[str, Any]:
    """Rank and alpha of the first layer for all, and patterns where they differ, as those of a loaded adapter may."""
    alphas = network.low_rank
    ranks = {layer: len(network.get_parameter(f"{layer}.{LORA_A}")) for layer in alphas}
    rank, alpha = next(iter(ranks.values())), next(iter(alphas.values()))
    return {
        "peft_type": "LORA",
        "task_type": None,
        "base_model_name_or_path": base,
        "inference_mode": True,
        "r": rank,
        "lora_alpha": alpha,
        "rank_pattern": {layer: own for layer, own in ranks.items() if own != rank},
        "alpha_pattern": {layer: own for layer, own in alphas.items() if own != alpha},
        "target_modules": list(alphas),
        "modules_to_save": None,
        "lora_dropout": 0.0,
        "bias": "none",
        "fan_in_fan_out": False,
        "init_lora_weights": True,
        "use_rslora": False,
        "use_dora": False,
    }


def _checked(
    label: str,
    config: Mapping[str, Any],
    layer: str,
    factors: Mapping[str, Tensor],
    shapes: Mapping[str, tuple[int, int]],
) -> tuple[Tensor, Tensor, float]:
    """A, B and alpha of one layer. Raises ModelError."""
    if layer not in shapes:
        raise ModelError(
            f"{label}: {layer} is no linear layer of this network; only diffusers' names can be trained on"
        )
    if len(factors) != 2:
        raise ModelError(f"{label}: {layer} has {next(iter(factors))} without its other half")
    a, b = factors[LORA_A], factors[LORA_B]
    rank, scale = scale_of(label, config, layer)
    num_outputs, num_inputs = shapes[layer]
    for name, tensor, shape in ((LORA_A, a, (rank, num_inputs)), (LORA_B, b, (num_outputs, rank))):
        if tensor.shape != shape:
            raise ModelError(f"{label}: {layer}.{name} has shape {list(tensor.shape)}, needed is {list(shape)}")
    return a, b, scale * rank
