"""PEFT's adapter_config.json: what of it can be merged, and the scale of each module. Knows no tensors."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from typing import Any

from omnigen_actor.errors import ModelError

_CHANGES_THE_BASE = ("pissa", "olora", "corda", "loftq", "lora_ga")
"""Starts of init_lora_weights that also change the weights which the adapter was trained on."""

_UNUSABLE = ("use_dora", "use_qalora", "fan_in_fan_out", "lora_bias", "layer_replication", "modules_to_save",
             "target_parameters", "trainable_token_indices", "megatron_config", "alora_invocation_tokens")  # fmt: skip
"""Entries that mean something other than a low-rank addition to whole weights, unless empty or false."""


def check_config(label: str, config: Mapping[str, Any]) -> None:
    """Raise ModelError unless the adapter is plain LoRA, and names the entry that is not."""
    if config.get("peft_type") != "LORA":
        raise ModelError(f"{label}: peft_type is {config.get('peft_type')!r}; only LORA can be merged")
    for key in _UNUSABLE:
        if config.get(key):
            raise ModelError(f"{label}: {key}={config[key]!r} cannot be merged; only plain LoRA can")
    if config.get("bias", "none") != "none":
        raise ModelError(f"{label}: bias={config['bias']!r} cannot be merged; only bias='none' can")
    start = config.get("init_lora_weights")
    if isinstance(start, str) and start.lower().startswith(_CHANGES_THE_BASE):
        raise ModelError(
            f"{label}: init_lora_weights={start!r} belongs to other base weights; save it with PEFT's "
            "path_initial_model_for_weight_conversion"
        )


def scale_of(label: str, config: Mapping[str, Any], module: str) -> tuple[int, float]:
    """(rank, scale) of one module: alpha / rank, or alpha / √rank with use_rslora. Raises ModelError."""
    rank = _pattern(label, config, "rank_pattern", module, config.get("r"))
    alpha = _pattern(label, config, "alpha_pattern", module, config.get("lora_alpha"))
    if not isinstance(rank, int) or rank < 1:
        raise ModelError(f"{label}: the rank of {module} is {rank!r}; a positive whole number is needed")
    if not isinstance(alpha, int | float) or not math.isfinite(alpha):
        raise ModelError(f"{label}: lora_alpha of {module} is {alpha!r}; a finite number is needed")
    return rank, alpha / (math.sqrt(rank) if config.get("use_rslora") else rank)


def _pattern(label: str, config: Mapping[str, Any], key: str, module: str, default: Any) -> Any:
    """The value of the first pattern that matches the end of the module's name, as PEFT finds it."""
    patterns = config.get(key) or {}
    try:
        return next((value for end, value in patterns.items() if re.match(rf"(.*\.)?({end})$", module)), default)
    except (re.error, AttributeError) as error:
        raise ModelError(f"{label}: {key} is unusable ({error})") from None
