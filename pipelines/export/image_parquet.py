"""Parquet with the images in it, as Hugging Face ``datasets`` and the viewer of its hub read it. Pure functions.

The ``huggingface`` key of the schema's metadata says which columns are images: without it they are bytes. Knows not
which columns a format has.
"""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from typing import Any

import pyarrow as pa

from pipelines.export import tables
from pipelines.export.examples import Example
from pipelines.export.format import Assembly, File, ImageFile, Loaded, Refusal, Shard

IMAGE = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
_DATASETS_NAMES = {"double": "float64", "float": "float32", "halffloat": "float16"}
_MAX_GROUP_ROWS = 100
_MAX_GROUP_BYTES = 256 * 2**20


class ImageParquet(ABC):
    """A format of one Parquet file for each shard."""

    name: str
    has_loose_images = False

    @abstractmethod
    def fields(self, scores: Sequence[pa.Field]) -> list[pa.Field]:
        """The columns; those of images are IMAGE, or lists of it."""

    @abstractmethod
    def row(self, one: Loaded) -> dict[str, Any]:
        """The cells of one example."""

    @abstractmethod
    def usage(self, shards: Sequence[Shard]) -> str:
        """With ``load_dataset``."""

    def group(self, task: str, num_inputs: int) -> str:  # noqa: ARG002
        """All rows have the same columns."""
        return ""

    def refuse(self, example: Example) -> Refusal | None:  # noqa: ARG002
        """There is nothing that it can't hold."""
        return None

    def write(self, shard: Shard, loaded: Sequence[Loaded], scores: Sequence[pa.Field]) -> list[File]:
        """One Parquet file, with rows or without: the names of the others say how many there are."""
        schema = with_features(self.fields(scores))
        groups = [tables.table_of([self.row(one) for one in some], schema) for some in _groups(loaded)]
        name = f"data/{shard.split}-{shard.index:05d}-of-{shard.count:05d}.parquet"
        plain = [field.name for field in schema if field.type in (IMAGE, pa.list_(IMAGE))]
        return [File(name, tables.to_parquet(groups, schema, plain=plain))]

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


def with_features(fields: Sequence[pa.Field]) -> pa.Schema:
    """A schema with the Features that ``datasets`` reads from the metadata."""
    told = json.dumps({"info": {"features": {field.name: feature_of(field.type) for field in fields}}})
    return pa.schema(fields, metadata={"huggingface": told})


def feature_of(kind: pa.DataType) -> dict[str, Any]:
    """The feature of ``datasets`` for an Arrow type; ``Sequence`` is what old and new versions read as a list."""
    if kind == IMAGE:
        return {"_type": "Image"}
    if pa.types.is_list(kind):
        return {"feature": feature_of(kind.value_type), "_type": "Sequence"}
    return {"dtype": _DATASETS_NAMES.get(str(kind), str(kind)), "_type": "Value"}


def cell(file: ImageFile) -> dict[str, Any]:
    """An image as IMAGE."""
    return {"bytes": file.data, "path": file.path.rpartition("/")[2]}


def _groups(loaded: Sequence[Loaded]) -> Iterator[list[Loaded]]:
    """By row group. The viewer reads a group at a time, and Arrow holds less than 2 GiB of bytes in a column."""
    some: list[Loaded] = []
    num_bytes = 0
    for one in loaded:
        some.append(one)
        num_bytes += sum(len(file.data) for file in one.images)
        if len(some) >= _MAX_GROUP_ROWS or num_bytes >= _MAX_GROUP_BYTES:
            yield some
            some, num_bytes = [], 0
    if some:
        yield some
