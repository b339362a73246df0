"""The Arrow schemas that flow between the stages and lie on disk: the only file that spells column names.

    MANIFEST  what a user may write        ─► check ─►
    PLAN      one line per (id, sample)    ─► fetch ─►
    FETCHED   PLAN + pixels                ─► generate ─►
    RECORD    what is committed

Each schema lists the columns that this project owns. A user's own columns travel at the end of the table, untouched;
one whose name this project owns is renamed ``manifest_<name>``. Columns are only ever added, or the pixels dropped.
"""

from __future__ import annotations

from collections.abc import Iterable

import pyarrow as pa

MANIFEST_REQUIRED = ("task", "instruction")

MANIFEST = pa.schema(
    [
        ("id", pa.string()),
        ("task", pa.string()),
        ("instruction", pa.string()),
        ("images", pa.list_(pa.string())),
        ("width", pa.int64()),
        ("height", pa.int64()),
        ("seed", pa.int64()),
        ("num_samples", pa.int64()),
        ("steps", pa.int64()),
        ("guidance_scale", pa.float64()),
        ("img_guidance_scale", pa.float64()),
        ("negative_prompt", pa.string()),
    ]
)
"""What a manifest may bring; only MANIFEST_REQUIRED must be there."""

LINE_ERROR = pa.field("__line_error__", pa.struct([("line", pa.int64()), ("message", pa.string())]))
"""Filled by a reader for a line that it can't read as a row; the check makes a failed row of it."""

_STRINGS = pa.list_(pa.string())

_IDENTITY = [
    pa.field("id", pa.string(), nullable=False),
    pa.field("sample", pa.int32(), nullable=False),
    pa.field("attempt", pa.int32(), nullable=False),
    pa.field("row_hash", pa.string(), nullable=False),  # sha256 over the row's content; a changed row is a new row
]
_ERROR = [
    pa.field("error_kind", pa.string()),
    pa.field("error_stage", pa.string()),
    pa.field("error", pa.string()),
]
_ASKED = [
    pa.field("task", pa.string()),
    pa.field("instruction", pa.string()),
    pa.field("prompt", pa.string()),  # what the model reads, placeholders normalised
    pa.field("images", _STRINGS, nullable=False),  # as the manifest wrote them
    pa.field("width", pa.int32()),  # null: the size of the first input image
    pa.field("height", pa.int32()),
    pa.field("seed", pa.int64()),
    pa.field("steps", pa.int32()),
    pa.field("guidance_scale", pa.float64()),
    pa.field("img_guidance_scale", pa.float64()),
    pa.field("negative_prompt", pa.string()),
]

_LINEAGE = [
    pa.field("parents", _STRINGS, nullable=False),  # id#sample of the rows that its images refer to
    pa.field("depth", pa.int32(), nullable=False),  # 0: refers to none; else one more than its deepest parent
]

PLAN = pa.schema([*_IDENTITY, *_ERROR, *_ASKED, *_LINEAGE, pa.field("image_uris", _STRINGS, nullable=False)])
"""A checked row: every default filled in, the prompt written, image URIs resolved; or the error that it already has."""

FETCHED = pa.schema(
    [
        *PLAN,
        pa.field("image_sha256", _STRINGS, nullable=False),  # of the files as fetched
        pa.field("pixels", pa.list_(pa.large_binary()), nullable=False),  # RGB, row-major, fitted to the model
        pa.field("pixel_sizes", pa.list_(pa.int32()), nullable=False),  # width, height of each, flattened
        pa.field("fetch_seconds", pa.float64(), nullable=False),
    ]
)
"""A row with its input images decoded, turned, cropped and ready for the engine."""

RECORD = pa.schema(
    [
        *_IDENTITY,
        pa.field("status", pa.string(), nullable=False),  # ok | failed | skipped
        *_ERROR,
        *_ASKED,
        *_LINEAGE,
        pa.field("image_sha256", _STRINGS, nullable=False),
        pa.field("output_key", pa.string()),  # path inside the run store, so that a store can be moved
        pa.field("format", pa.string()),
        pa.field("num_bytes", pa.int64()),
        pa.field("sha256", pa.string()),  # of the output file
        pa.field("model", pa.string(), nullable=False),
        pa.field("model_sha256", pa.string(), nullable=False),
        pa.field("approximations", _STRINGS, nullable=False),  # those that were on; empty: exact
        pa.field("adapters", _STRINGS, nullable=False),  # LoRA adapters in the weights
        pa.field("device", pa.string()),  # cpu, or the GPU's name; null: of an older version
        pa.field("num_tokens", pa.int32()),
        pa.field("fetch_seconds", pa.float64(), nullable=False),
        pa.field("generate_seconds", pa.float64(), nullable=False),
        pa.field("write_seconds", pa.float64(), nullable=False),
        pa.field("finished_at", pa.timestamp("us", tz="UTC"), nullable=False),
        pa.field("run_id", pa.string(), nullable=False),
    ]
)
"""One committed outcome. Exactly one current record exists for each (id, sample) of the manifest."""

PREPARED = pa.schema(
    [
        pa.field("id", pa.string(), nullable=False),
        pa.field("sample", pa.int32(), nullable=False),
        pa.field("row_hash", pa.string(), nullable=False),
        *_ERROR,
        pa.field("task", pa.string()),
        pa.field("prompt", pa.string()),
        pa.field("latents", pa.list_(pa.large_binary()), nullable=False),  # fp16; the input images', the target's last
        pa.field("latent_sizes", pa.list_(pa.int32()), nullable=False),  # channels, height, width of each, flattened
    ]
)
"""An example to train on: its prompt, and its pictures as latents; or the error that keeps it from being one."""

TIMING_COLUMNS = ("fetch_seconds", "generate_seconds", "write_seconds", "finished_at", "run_id")
"""The only columns of a record that may differ between two runs of the same rows on one kind of device."""

PROVENANCE_COLUMNS = (
    *(
        "id",
        "sample",
        "row_hash",
        "task",
        "instruction",
        "prompt",
        "negative_prompt",
        "images",
        "image_sha256",
        "parents",
    ),
    *("seed", "steps", "guidance_scale", "img_guidance_scale", "width", "height"),
    *("model", "model_sha256", "approximations", "adapters"),
)
"""The columns of a record that the image's own file has, too: those that follow from the row and the weights."""

OWNED_COLUMNS = frozenset([*MANIFEST.names, LINE_ERROR.name]) | frozenset(FETCHED.names) | frozenset(RECORD.names)


class Status:
    """Values of ``status``."""

    OK = "ok"
    FAILED = "failed"
    SKIPPED = "skipped"


def user_fields(schema: pa.Schema) -> list[pa.Field]:
    """The fields of a table that are the user's own."""
    return [field for field in schema if field.name not in OWNED_COLUMNS]


def with_user_fields(own: pa.Schema, users: Iterable[pa.Field]) -> pa.Schema:
    """``own`` followed by the user's fields."""
    return pa.schema([*own, *users])


def table_from_rows(rows: list[dict[str, object]], own: pa.Schema, source: pa.Table) -> pa.Table:
    """Build a table of schema ``own`` from ``rows``, followed by the user's columns of ``source``, row for row.

    Raises ValueError when the number of rows differs: a stage gives exactly one row for one row.
    """
    if len(rows) != source.num_rows:
        raise ValueError(f"{len(rows)} rows out of {source.num_rows} rows in: a stage keeps every row")
    table = pa.Table.from_pylist(rows, schema=own)
    for field in user_fields(source.schema):
        table = table.append_column(field, source.column(field.name))
    return table
