"""The pairs of a selection as a Selection: the rejected images, each with the one that was chosen instead of it.

A pair stays only while the store's records still have both images, made of the same. Knows no formats, and decides
nothing about which image is better.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from hashlib import blake2b
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from pipelines.export.examples import PAIRED
from pipelines.export.format import Refusal
from pipelines.export.selections import CHANGED, LeftOutOfIt, Selection, check_splits, read_files
from pipelines.scores.stored import Keys, keys_of
from pipelines.selection.pairs import PAIRS
from pipelines.selection.written import PAIRS_KEY
from pipelines.stored import current_images

_SAME = [
    *("task", "instruction", "prompt", "image_sha256", "width", "height", "steps", "guidance_scale"),
    *("img_guidance_scale", "negative_prompt", "model_sha256", "approximations"),
]
"""What both records must say alike: else an image would be preferred for what was asked of it."""

_KEY = ["id", "sample", "sha256"]
Marks = npt.NDArray[np.bytes_]


def read_pairs(store_root: str, name: str) -> Selection:
    """The pairs of a selection, found by their rejected images. Reads the records once.

    Memory: the table of pairs, and about 100 bytes for each of them. Raises ConfigError where the selection has no
    pairs, OutputError where these or the records are damaged.
    """
    told, pairs = read_files(store_root, name, PAIRS_KEY, PAIRS.names)
    chosen, rejected = (keys_of(_named(pairs, f"{role}_")) for role in ("chosen", "rejected"))
    images, places = np.unique(np.concatenate([chosen, rejected]), return_inverse=True)
    marks = _marks(images, current_images(store_root))[places]
    left_out = _left_out(pairs, marks[: len(chosen)], marks[len(chosen) :])
    stays = np.ones(pairs.num_rows, bool)
    stays[list(left_out)] = False
    kept = pairs.filter(pa.array(stays))
    columns = dict(zip(PAIRED.names, ("chosen_sample", "chosen_key", "chosen_sha256", "reason", "margin"), strict=True))
    staged = {"split": kept["split"], **{name: kept[column] for name, column in columns.items()}}
    check_splits(name, kept["split"])
    own = dict(zip(_KEY, _named(kept, "rejected_").columns, strict=True))
    return Selection(pa.table({**own, **staged}), told, list(left_out.values()))


def _named(pairs: pa.Table, role: str) -> pa.Table:
    """The keys of one of the two images of each pair."""
    return pairs.select(["id", f"{role}sample", f"{role}sha256"]).rename_columns(_KEY)


def _marks(wanted: Keys, records: Iterable[pa.Table]) -> Marks:
    """A digest of what each image was made of; empty where the records have no such image. ``wanted``: sorted."""
    marks = np.zeros(len(wanted), "S16")
    for images in records if len(wanted) else ():
        keys = keys_of(images)
        places = np.minimum(np.searchsorted(wanted, keys), len(wanted) - 1)
        is_wanted = wanted[places] == keys
        rows = images.select(_SAME).filter(pa.array(is_wanted)).to_pylist()
        marks[places[is_wanted]] = [_mark(row) for row in rows]
    return marks


def _mark(row: dict[str, Any]) -> bytes:
    return blake2b(json.dumps(list(row.values())).encode(), digest_size=16).digest()


def _left_out(pairs: pa.Table, chosen: Marks, rejected: Marks) -> dict[int, LeftOutOfIt]:
    """By their number the pairs that are none any more, under the names of their rejected images."""
    numbers = np.flatnonzero((chosen != rejected) | (chosen == b""))
    rows: list[dict[str, Any]] = pairs.take(pa.array(numbers)).to_pylist()
    return {
        number: (row["id"], row["rejected_sample"], _refusal(row, chosen[number], rejected[number]))
        for number, row in zip(numbers.tolist(), rows, strict=True)
    }


def _refusal(row: dict[str, Any], chosen: bytes, rejected: bytes) -> Refusal:
    if not rejected:
        return CHANGED
    other = f"{row['id']}#{row['chosen_sample']}"
    if not chosen:
        return Refusal(CHANGED.reason, f"{other}, which was chosen instead of it, is another image now, or gone")
    return Refusal("pair_differs", f"it and {other} were not made of the same prompt, inputs and settings")
