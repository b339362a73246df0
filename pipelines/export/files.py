"""Images as files with a table beside them, which ``datasets`` reads as an image folder. Pure functions."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pyarrow as pa

from pipelines.export import loose, tables
from pipelines.export.examples import Example
from pipelines.export.format import Assembly, File, Loaded, Refusal, Shard

_PATHS = [("output_image_file_name", pa.string()), ("input_images_file_names", tables.STRINGS)]
"""Names by which an image folder's reader knows columns that name files."""


class Files:
    """The format ``files``."""

    name = "files"
    has_loose_images = True

    def group(self, task: str, num_inputs: int) -> str:  # noqa: ARG002
        """All rows have the same columns."""
        return ""

    def refuse(self, example: Example) -> Refusal | None:  # noqa: ARG002
        """There is nothing that it can't hold."""
        return None

    def write(self, shard: Shard, loaded: Sequence[Loaded], scores: Sequence[pa.Field]) -> list[File]:
        """The images, and parts of both tables."""
        large = [field.name for field in scores if pa.types.is_uint64(field.type)]
        fields = [field.with_type(pa.string()) if field.name in large else field for field in scores]
        schema = pa.schema([*_PATHS, *tables.columns_of(fields)])
        rows = [_as_text(_paths(one) | tables.cells(one), large) for one in loaded]
        table = tables.to_parquet([tables.table_of(rows, schema)], schema)
        parts = [File(shard.part("rows.jsonl"), loose.to_jsonl(rows)), File(shard.part("rows.parquet"), table)]
        return [*loose.image_files(loaded, f"{shard.split}/"), *parts]

    def assemble(self, shards: Sequence[Shard]) -> list[Assembly]:
        """A table for each split, as Parquet and as JSON lines."""
        splits = dict.fromkeys(shard.split for shard in shards)
        return [
            Assembly(f"{split}/{name}", [one.part(part) for one in shards if one.split == split])
            for split in splits
            for name, part in (("metadata.parquet", "rows.parquet"), ("rows.jsonl", "rows.jsonl"))
        ]

    def texts(self, shards: Sequence[Shard]) -> list[File]:  # noqa: ARG002
        """None."""
        return []

    def configs(self, shards: Sequence[Shard]) -> list[dict[str, Any]]:
        """One, with all splits."""
        splits = dict.fromkeys(shard.split for shard in shards)
        return [
            {
                "config_name": "default",
                "data_files": [
                    {"split": split, "path": [f"{split}/metadata.parquet", f"{split}/images/**"]} for split in splits
                ],
            }
        ]

    def usage(self, shards: Sequence[Shard]) -> str:
        """With ``load_dataset``, or any reader of tables."""
        split = shards[0].split
        return (
            "    from datasets import load_dataset\n\n"
            f'    rows = load_dataset("imagefolder", data_dir="DEST/{split}", split="train")\n'
            '    rows[0]["output_image"]   # a PIL image; rows[0]["input_images"] is a list of them\n\n'
            f"or read `{split}/metadata.parquet` or `{split}/rows.jsonl`, whose paths start at `{split}/`."
        )


def _paths(one: Loaded) -> dict[str, Any]:
    return {
        "output_image_file_name": one.output.path,
        "input_images_file_names": [file.path for file in one.inputs],
    }


def _as_text(row: dict[str, Any], names: Sequence[str]) -> dict[str, Any]:
    """Numbers of 64 bits as text: an image folder's reader takes whole numbers for signed, and JSON's for floats."""
    return row | {name: None if row[name] is None else str(row[name]) for name in names}
