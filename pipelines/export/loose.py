"""What the formats with loose images share: the images' files, and the parts of their tables. Pure functions."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

import pyarrow as pa

from pipelines.export import tables
from pipelines.export.format import Assembly, File, Loaded, Shard

PATHS = pa.schema([("input_images", tables.STRINGS), ("output_image", pa.string())])
"""Columns that join a table of provenance to rows, by the path of the image."""

ABOUT_PROVENANCE = (
    "`provenance/` has the same images with their ids, seeds, models and scores; the column `output_image` joins them."
)


def image_files(loaded: Sequence[Loaded], folder: str = "") -> list[File]:
    """Each image once, below ``folder``."""
    found = {file.path: file.data for one in loaded for file in (*one.inputs, one.output)}
    return [File(f"{folder}{path}", data) for path, data in sorted(found.items())]


def to_jsonl(rows: Sequence[Mapping[str, Any]]) -> bytes:
    """A line of JSON for each row."""
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows).encode()


def provenance(shard: Shard, loaded: Sequence[Loaded], scores: Sequence[pa.Field]) -> File:
    """A shard's part of the table that says where the images came from."""
    schema = pa.schema([*PATHS, *tables.columns_of(scores)])
    rows = [_paths(one) | tables.cells(one) for one in loaded]
    return File(shard.part("provenance.parquet"), tables.to_parquet([tables.table_of(rows, schema)], schema))


def _paths(one: Loaded) -> dict[str, Any]:
    return {"input_images": [file.path for file in one.inputs], "output_image": one.output.path}


def provenance_files(shards: Sequence[Shard]) -> list[Assembly]:
    """One table for each split."""
    splits = dict.fromkeys(shard.split for shard in shards)
    return [
        Assembly(
            f"provenance/{split}.parquet", [one.part("provenance.parquet") for one in shards if one.split == split]
        )
        for split in splits
    ]


def provenance_configs(shards: Sequence[Shard]) -> list[dict[str, Any]]:
    """``configs`` of the card for these tables."""
    splits = dict.fromkeys(shard.split for shard in shards)
    files = [{"split": split, "path": f"provenance/{split}.parquet"} for split in splits]
    return [{"config_name": "provenance", "data_files": files}]
