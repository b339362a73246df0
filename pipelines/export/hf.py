"""An image a row, as Parquet for Hugging Face ``datasets``. Pure functions; knows not how images lie in Parquet."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pyarrow as pa

from pipelines.export import tables
from pipelines.export.format import Loaded, Shard
from pipelines.export.image_parquet import IMAGE, ImageParquet, cell


class HuggingFace(ImageParquet):
    """The format ``hf``."""

    name = "hf"

    def fields(self, scores: Sequence[pa.Field]) -> list[pa.Field]:
        """All columns, with the images after the first ones."""
        fields = list(tables.columns_of(scores))
        images = [pa.field("input_images", pa.list_(IMAGE)), pa.field("output_image", IMAGE)]
        return [*fields[:3], *images, *fields[3:]]

    def row(self, one: Loaded) -> dict[str, Any]:
        """The cells of one example."""
        images = {"input_images": [cell(file) for file in one.inputs], "output_image": cell(one.output)}
        return tables.cells(one) | images

    def usage(self, shards: Sequence[Shard]) -> str:
        """With ``load_dataset``."""
        return (
            "    from datasets import load_dataset\n\n"
            f'    rows = load_dataset("DEST", split="{shards[0].split}")\n'
            '    rows[0]["output_image"]   # a PIL image; rows[0]["input_images"] is a list of them'
        )
