"""Examples as Arrow tables and Parquet bytes: the same columns in every format, and the same bytes for the same rows.

Knows no format and no files.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from pipelines.export.examples import PROVENANCE
from pipelines.export.format import Loaded

COLUMNS = pa.schema(
    [
        ("id", pa.string()),
        ("sample", pa.int32()),
        ("task", pa.string()),
        ("instruction", pa.string()),
        ("prompt", pa.string()),
        ("width", pa.int32()),
        ("height", pa.int32()),
    ]
)
"""The columns of an example beside its images; those of PROVENANCE and of the scores follow."""

STRINGS = pa.list_(pa.string())


def columns_of(scores: Sequence[pa.Field]) -> pa.Schema:
    """COLUMNS, PROVENANCE and the scores."""
    return pa.schema([*COLUMNS, *PROVENANCE, *scores])


def cells(loaded: Loaded) -> dict[str, Any]:
    """The cells of one example for ``columns_of``."""
    example = loaded.example
    own = {name: getattr(example, name) for name in COLUMNS.names}
    return own | example.provenance | example.scores


def table_of(rows: Sequence[Mapping[str, Any]], schema: pa.Schema) -> pa.Table:
    """A table of these rows."""
    return pa.Table.from_pylist(list(rows), schema=schema)


def to_parquet(tables: Sequence[pa.Table], schema: pa.Schema, *, plain: Sequence[str] = ()) -> bytes:
    """One Parquet file, a row group for each table. ``plain``: columns that hold images, which do not compress."""
    sink = pa.BufferOutputStream()
    with open_writer(sink, schema, plain=plain) as writer:
        for table in tables:
            writer.write_table(table, row_group_size=max(1, table.num_rows))
    data: bytes = sink.getvalue().to_pybytes()
    return data


def open_writer(sink: object, schema: pa.Schema, *, plain: Sequence[str] = ()) -> Any:
    """A Parquet writer with every setting that bytes depend on named here."""
    texts = [name for name in schema.names if name not in plain]
    return pq.ParquetWriter(
        sink,
        schema,
        version="2.6",
        data_page_version="1.0",
        compression="zstd",
        compression_level=1,
        use_dictionary=texts,
        write_statistics=texts,
        data_page_size=1 << 20,
    )
