"""The model of the CPU benchmarks: large enough to be bound by its products. Knows no libraries."""

from __future__ import annotations

from typing import Any

MODEL: dict[str, Any] = {
    "hidden_size": 768,
    "num_attention_heads": 8,
    "num_key_value_heads": 8,
    "num_layers": 6,
    "intermediate_size": 2048,
    "original_max_position_embeddings": 4096,
    "max_position_embeddings": 131072,
}
"""What differs from the tiny checkpoint's transformer/config.json."""
