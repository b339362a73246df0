"""A preference pair a row, as Parquet for Hugging Face ``datasets``. Pure functions.

Knows not how images lie in Parquet, nor how pairs are found.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pyarrow as pa

from pipelines.export.examples import PROVENANCE
from pipelines.export.format import Loaded, Shard
from pipelines.export.image_parquet import IMAGE, ImageParquet, cell

_SHARED = (
    *("steps", "guidance_scale", "img_guidance_scale", "negative_prompt", "model", "model_sha256", "approximations"),
    *("adapters", "input_references", "input_sha256", "parents"),
)
"""The columns of PROVENANCE that both images have in common."""

_COLUMNS = [
    ("id", pa.string()),
    ("task", pa.string()),
    ("input_images", pa.list_(IMAGE)),
    ("chosen_image", IMAGE),
    ("rejected_image", IMAGE),
    ("instruction", pa.string()),
    ("prompt", pa.string()),
    ("width", pa.int32()),
    ("height", pa.int32()),
    ("chosen_sample", pa.int32()),
    ("rejected_sample", pa.int32()),
    ("chosen_sha256", pa.string()),
    ("rejected_sha256", pa.string()),
    ("reason", pa.string()),
    ("margin", pa.float64()),
]


class Pairs(ImageParquet):
    """The format ``pairs``."""

    name = "pairs"

    def fields(self, scores: Sequence[pa.Field]) -> list[pa.Field]:
        """The columns; there are no scores, which would be of one image or the other."""
        assert not scores
        return [*map(pa.field, *zip(*_COLUMNS, strict=True)), *map(PROVENANCE.field, _SHARED)]

    def row(self, one: Loaded) -> dict[str, Any]:
        """The cells of one pair."""
        example, pair = one.example, one.example.pair
        assert pair
        assert one.chosen
        own = {name: getattr(example, name) for name in ("id", "task", "instruction", "prompt", "width", "height")}
        return own | {
            "input_images": [cell(file) for file in one.inputs],
            "chosen_image": cell(one.chosen),
            "rejected_image": cell(one.output),
            "chosen_sample": pair.chosen_sample,
            "rejected_sample": example.sample,
            "chosen_sha256": pair.chosen_sha256,
            "rejected_sha256": example.sha256,
            "reason": pair.rejected_for,
            "margin": pair.margin,
            **{name: example.provenance[name] for name in _SHARED},
        }

    def usage(self, shards: Sequence[Shard]) -> str:
        """With ``load_dataset``."""
        return (
            "    from datasets import load_dataset\n\n"
            f'    rows = load_dataset("DEST", split="{shards[0].split}")\n'
            '    rows[0]["chosen_image"], rows[0]["rejected_image"]   # PIL images\n'
            '    rows[0]["input_images"]                              # a list of them\n\n'
            "Both images of a row were made of the same prompt, inputs and settings, with other seeds. `reason` says "
            "why one was rejected, and `margin` by how much the score of the chosen one is higher."
        )
