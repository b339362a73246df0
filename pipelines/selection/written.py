"""A selection's files in a store: selection.parquet, and selection.json, which is written last. Decides nothing.

selections/<name>/selection.parquet   what became of every image
selections/<name>/pairs.parquet       rejected samples, each with the one that was kept instead; where asked for
selections/<name>/selection.json      the settings and the counts: the selection is whole
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from omnigen_actor import store, uri
from omnigen_actor.errors import ConfigError, OutputError, first_line
from pipelines.selection.best import NO_RANK
from pipelines.selection.decide import Verdict
from pipelines.selection.gather import Images
from pipelines.selection.splits import Splits

TABLE_KEY, PAIRS_KEY, MARKER_KEY = "selection.parquet", "pairs.parquet", "selection.json"
SELECTION = pa.schema(
    [
        pa.field("id", pa.string(), nullable=False),
        pa.field("sample", pa.int32(), nullable=False),
        pa.field("sha256", pa.string(), nullable=False),
        pa.field("is_kept", pa.bool_(), nullable=False),
        pa.field("reason", pa.string()),  # null where it is kept
        pa.field("split", pa.string()),  # null where it is rejected
        pa.field("rank", pa.int32()),  # within its row, 1 is the best; null where it was not ranked
    ]
)
"""One line for each current image of the store, in the order of (id, sample)."""
_ROWS_PER_TABLE = 65536
_MAX_MARKER_BYTES = 16 << 20


def folder(root: str, name: str) -> str:
    """Where a selection lies."""
    return uri.join(root, store.SELECTIONS, name)


def check_settings(root: str, name: str, settings: dict[str, Any], *, replace: bool) -> None:
    """Raises ConfigError where there is a selection of this name with other settings, which is not to be replaced."""
    try:
        found = json.loads(uri.read_bytes(uri.join(folder(root, name), MARKER_KEY), max_bytes=_MAX_MARKER_BYTES))
    except uri.UriNotFound:
        return
    except ValueError:
        found = {}
    other = [key for key, value in settings.items() if not isinstance(found, dict) or found.get(key) != value]
    if other and not replace:
        raise ConfigError(
            f"the store has a selection {name!r} with another {', '.join(other)}; take another name, or --replace"
        )


def write(root: str, name: str, tables: dict[str, Iterator[pa.Table]], marker: dict[str, Any]) -> None:
    """Write the tables by their keys, then the marker; a selection of this name is replaced. Raises OutputError."""
    place = folder(root, name)
    try:
        uri.remove(uri.join(place, MARKER_KEY))
        for key in (TABLE_KEY, PAIRS_KEY):
            if key in tables:
                _write_parquet(uri.join(place, key), tables[key])
            else:
                uri.remove(uri.join(place, key))
        text = json.dumps(marker, indent=2, ensure_ascii=False) + "\n"
        uri.write_bytes(uri.join(place, MARKER_KEY), text.encode())
    except OSError as error:
        raise OutputError(f"the selection can't be written: {first_line(error)}") from None


def selection_tables(images: Images, verdict: Verdict, splits: Splits) -> Iterator[pa.Table]:
    """SELECTION, in parts."""
    for start in range(0, max(len(images.sample), 1), _ROWS_PER_TABLE):
        yield _selection_table(images, verdict, splits, slice(start, start + _ROWS_PER_TABLE))


def _selection_table(images: Images, verdict: Verdict, splits: Splits, part: slice) -> pa.Table:
    is_kept = verdict.is_kept[part]
    rank = verdict.rank[part]
    columns = {
        "id": images.id[part].cast(pa.string()),
        "sample": images.sample[part],
        "sha256": pa.array([digest.hex() for digest in images.sha256[part].to_pylist()], pa.string()),
        "is_kept": is_kept,
        "reason": _reasons(images, verdict, part),
        "split": pa.array(splits.names).take(pa.array(verdict.split[part], mask=~is_kept)),
        "rank": pa.array(rank, mask=rank == NO_RANK),
    }
    return pa.table(columns, schema=SELECTION)


def _reasons(images: Images, verdict: Verdict, part: slice) -> pa.Array:
    """As text; a duplicate's names the image that stays."""
    numbers, instead = verdict.reason[part], verdict.instead[part]
    texts = pa.array(verdict.reasons, pa.string()).take(pa.array(numbers, mask=verdict.is_kept[part]))
    others = pa.array(instead, mask=instead < 0)
    samples = pa.array(images.sample).take(others).cast(pa.string())
    named = pc.binary_join_element_wise("duplicate of ", images.id.take(others).cast(pa.string()), "#", samples, "")
    return pc.if_else(pa.array(instead >= 0), named, texts)


def _write_parquet(place: str, tables: Iterator[pa.Table]) -> None:
    with tempfile.TemporaryDirectory() as scratch:
        path = Path(scratch) / "table.parquet"
        first = next(tables)
        with pq.ParquetWriter(path, first.schema, compression="zstd") as writer:
            writer.write_table(first)
            for table in tables:
                writer.write_table(table)
        uri.write_file(place, path)


def to_strings(digests: pa.Array, positions: np.ndarray[Any, Any]) -> list[str]:
    """sha256 of some images as 64 digits."""
    return [digest.hex() for digest in digests.take(pa.array(positions)).to_pylist()]
