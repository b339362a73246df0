"""Parquet with the images in it, as Hugging Face ``datasets`` and the viewer of its hub read it. Pure functions.

The ``huggingface`` key of the schema's metadata says which columns are images: without it they are bytes.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from typing import Any

import pyarrow as pa

from pipelines.export import tables
from pipelines.export.examples import Example
from pipelines.export.format import Assembly, File, ImageFile, Loaded, Refusal, Shard

_IMAGE = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
_DATASETS_NAMES = {"double": "float64", "float": "float32", "halffloat": "float16"}
_MAX_GROUP_ROWS = 100
_MAX_GROUP_BYTES = 256 * 2**20


class HuggingFace:
    """The format ``hf``."""

    name = "hf"
    has_loose_images = False

    def group(self, task: str, num_inputs: int) -> str:  # noqa: ARG002
        """All rows have the same columns."""
        return ""

    def refuse(self, example: Example) -> Refusal | None:  # noqa: ARG002
        """There is nothing that it can't hold."""
        return None

    def write(self, shard: Shard, loaded: Sequence[Loaded], scores: Sequence[pa.Field]) -> list[File]:
        """One Parquet file, with rows or without: the names of the others say how many there are."""
        schema = schema_of(scores)
        groups = [tables.table_of(rows, schema) for rows in _groups(loaded)]
        name = f"data/{shard.split}-{shard.index:05d}-of-{shard.count:05d}.parquet"
        return [File(name, tables.to_parquet(groups, schema, plain=("input_images", "output_image")))]

    def assemble(self, shards: Sequence[Shard]) -> list[Assembly]:  # noqa: ARG002
        """Nothing is put together."""
        return []

    def texts(self, shards: Sequence[Shard]) -> list[File]:  # noqa: ARG002
        """None."""
        return []

    def configs(self, shards: Sequence[Shard]) -> list[dict[str, Any]]:
        """One, with all splits."""
        splits = dict.fromkeys(shard.split for shard in shards)
        files = [{"split": split, "path": f"data/{split}-*.parquet"} for split in splits]
        return [{"config_name": "default", "data_files": files}]

    def usage(self, shards: Sequence[Shard]) -> str:
        """With ``load_dataset``."""
        return (
            "    from datasets import load_dataset\n\n"
            f'    rows = load_dataset("DEST", split="{shards[0].split}")\n'
            '    rows[0]["output_image"]   # a PIL image; rows[0]["input_images"] is a list of them'
        )


def schema_of(scores: Sequence[pa.Field]) -> pa.Schema:
    """The columns, with the Features that ``datasets`` reads from the metadata."""
    fields = list(tables.columns_of(scores))
    first = [pa.field("input_images", pa.list_(_IMAGE)), pa.field("output_image", _IMAGE)]
    fields = [*fields[:3], *first, *fields[3:]]
    features = {field.name: feature_of(field.type) for field in fields}
    told = json.dumps({"info": {"features": features}})
    return pa.schema(fields, metadata={"huggingface": told})


def feature_of(kind: pa.DataType) -> dict[str, Any]:
    """The feature of ``datasets`` for an Arrow type; ``Sequence`` is what old and new versions read as a list."""
    if kind == _IMAGE:
        return {"_type": "Image"}
    if pa.types.is_list(kind):
        return {"feature": feature_of(kind.value_type), "_type": "Sequence"}
    return {"dtype": _DATASETS_NAMES.get(str(kind), str(kind)), "_type": "Value"}


def _groups(loaded: Sequence[Loaded]) -> Iterator[list[dict[str, Any]]]:
    """Rows by row group. The viewer reads a group at a time, and Arrow holds less than 2 GiB of bytes in a column."""
    rows: list[dict[str, Any]] = []
    num_bytes = 0
    for one in loaded:
        rows.append(_row(one))
        num_bytes += len(one.output.data) + sum(len(file.data) for file in one.inputs)
        if len(rows) >= _MAX_GROUP_ROWS or num_bytes >= _MAX_GROUP_BYTES:
            yield rows
            rows, num_bytes = [], 0
    if rows:
        yield rows


def _row(one: Loaded) -> dict[str, Any]:
    images = {"input_images": [_cell(file) for file in one.inputs], "output_image": _cell(one.output)}
    return tables.cells(one) | images


def _cell(file: ImageFile) -> dict[str, Any]:
    return {"bytes": file.data, "path": file.path.rpartition("/")[2]}
