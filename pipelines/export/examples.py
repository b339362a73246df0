"""What is exported of one image: the row of its record as an Example, and the columns that tell where it came from.

Knows no files and no formats.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any, NamedTuple

import pyarrow as pa

from omnigen_actor import uri
from pipelines import references

_STRINGS = pa.list_(pa.string())

PROVENANCE = pa.schema(
    [
        ("seed", pa.int64()),
        ("steps", pa.int32()),
        ("guidance_scale", pa.float64()),
        ("img_guidance_scale", pa.float64()),
        ("negative_prompt", pa.string()),
        ("model", pa.string()),
        ("model_sha256", pa.string()),
        ("approximations", _STRINGS),
        ("adapters", _STRINGS),
        ("input_references", _STRINGS),  # as the manifest wrote them, without the folders of one machine
        ("input_sha256", _STRINGS),  # of the files that the model read
        ("output_sha256", pa.string()),
        ("parents", _STRINGS),
        ("device", pa.string()),
        ("attempt", pa.int32()),
        ("row_hash", pa.string()),
        ("run_id", pa.string()),
        ("finished_at", pa.string()),
    ]
)
"""The columns that say where an image came from; names and types are the same in every format that has them."""

PAIRED = pa.schema(
    [
        ("chosen_sample", pa.int32()),
        ("chosen_key", pa.string()),  # its path inside the store
        ("chosen_sha256", pa.string()),
        ("rejected_for", pa.string()),
        ("pair_margin", pa.float64()),
    ]
)
"""Of preference pairs, whose rejected image is the Example: the one that was chosen instead. Null in other formats."""

_OWN = [
    ("id", pa.string()),
    ("sample", pa.int32()),
    ("split", pa.string()),
    ("group", pa.string()),  # what may be in one file with it: see Format.group
    ("task", pa.string()),
    ("instruction", pa.string()),
    ("prompt", pa.string()),
    ("image_uris", _STRINGS),  # where the inputs are read, absolute
    ("output_key", pa.string()),
    ("format", pa.string()),
    ("num_bytes", pa.int64()),
    ("width", pa.int32()),
    ("height", pa.int32()),
]
STAGED = pa.schema([*_OWN, *PROVENANCE, *PAIRED])
"""A row of the plan; the columns of scores follow."""


class Input(NamedTuple):
    """One input image: where it is, and the sha256 of its file. ``is_own``: an image of this very store."""

    uri: str
    sha256: str
    is_own: bool


class Pair(NamedTuple):
    """The columns of PAIRED."""

    chosen_sample: int
    chosen_key: str
    chosen_sha256: str
    rejected_for: str
    margin: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Example:
    """One image with what it was made from. ``provenance`` has the columns of PROVENANCE. ``pair``: it is the rejected
    image of one.
    """

    id: str
    sample: int
    split: str
    task: str
    instruction: str
    prompt: str
    inputs: tuple[Input, ...]
    output_key: str
    image_format: str
    sha256: str
    width: int
    height: int
    provenance: dict[str, Any]
    scores: dict[str, Any]
    pair: Pair | None = None


def example_of(row: dict[str, Any], score_names: Sequence[str] = ()) -> Example:
    """The Example of a row of STAGED. A task without an instruction has an empty one."""
    own = [text.startswith(references.PREFIX) for text in row["input_references"]]
    return Example(
        id=row["id"],
        sample=row["sample"],
        split=row["split"],
        task=row["task"],
        instruction=row["instruction"] or "",
        prompt=row["prompt"],
        inputs=tuple(Input(*one) for one in zip(row["image_uris"], row["input_sha256"], own, strict=True)),
        output_key=row["output_key"],
        image_format=row["format"],
        sha256=row["output_sha256"],
        width=row["width"],
        height=row["height"],
        provenance={name: row[name] for name in PROVENANCE.names},
        scores={name: row[name] for name in score_names},
        pair=Pair(*(row[name] for name in PAIRED.names)) if row.get("chosen_sample") is not None else None,
    )


def published(reference: str) -> str:
    """A reference as a stranger may read it: of a place on one machine the file's name alone, and no secrets."""
    if reference.startswith(references.PREFIX):
        return reference
    if reference.startswith("data:"):
        return "data:"
    if _is_bare(reference):
        return reference
    return PurePosixPath(reference).name if uri.is_local(reference) else uri.redact(reference)


def _is_bare(reference: str) -> bool:
    """Whether a reference is a relative path and nothing else: no scheme, no root."""
    if reference.startswith("/"):
        return False
    return uri.is_local(reference) and not re.match(r"(?i)(file|local):", reference)
