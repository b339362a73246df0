"""Which current images of a store are exported, as rows of STAGED; and which chosen ones can't be. Knows no shards."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from omnigen_actor import store, uri
from omnigen_actor.errors import OutputError
from pipelines.export.examples import PAIRED, STAGED, published
from pipelines.export.format import Format, Refusal
from pipelines.export.score_columns import ScoreColumns
from pipelines.export.selections import DEFAULT_SPLIT, Selection, no_pairs
from pipelines.export.staging import Staging
from pipelines.input_places import InputPlaces
from pipelines.ledger import Ledger, digest
from pipelines.stored import current_images


@dataclass(frozen=True, slots=True)
class LeftOut:
    """An image that was chosen and is not exported."""

    id: str
    sample: int
    refusal: Refusal


@dataclass(slots=True)
class Chosen:
    """``left_out``: the images that are known not to be exportable before any is read."""

    left_out: list[LeftOut] = field(default_factory=list)


def choose(
    places: InputPlaces, fmt: Format, selection: Selection | None, scores: ScoreColumns, staging: Staging
) -> Chosen:
    """Put the chosen images into ``staging``. Raises OutputError, ConfigError."""
    ledger = Ledger.load(places.root)
    chosen = Chosen()
    for images in current_images(places.root, ledger):
        splits = selection.splits(images) if selection else [DEFAULT_SPLIT] * images.num_rows
        taken = images.filter(pa.array([split is not None for split in splits]))
        pairs = selection.pairs(taken) if selection else no_pairs(taken.num_rows)
        kept = [split for split in splits if split is not None]
        staging.add(_staged(taken, kept, pairs, places=places, fmt=fmt, scores=scores))
    if selection:
        chosen.left_out += [LeftOut(*one) for one in selection.left_out()]
    else:
        chosen.left_out += [LeftOut(*key, _DOUBLED) for key in _torn(places.root, ledger)]
    staging.end()
    if not staging.num_rows and not chosen.left_out:
        raise OutputError("nothing to export: the store has no image, or the selection keeps none or has no pair")
    return chosen


_DOUBLED = Refusal("doubled", "the store has two records of it that contradict each other: run the manifest again")


def _torn(store_root: str, ledger: Ledger) -> list[tuple[str, int]]:
    """The (id, sample) of which nobody can say whose image the store has; in nearly every store none."""
    torn, found = frozenset(ledger.torn.tolist()), set[tuple[str, int]]()
    for file in uri.list_files(uri.join(store_root, store.RECORDS), suffix=".parquet") if torn else ():
        with uri.open_read(file) as stream:
            table = pq.ParquetFile(stream).read(columns=["id", "sample", "row_hash"])
        keys = zip(table["id"].to_pylist(), table["sample"].to_pylist(), strict=True)
        found |= {key for key, mark in zip(keys, digest(table)["key"].tolist(), strict=True) if mark in torn}
    return sorted(found)


def _staged(
    images: pa.Table, splits: list[str], pairs: pa.Table, *, places: InputPlaces, fmt: Format, scores: ScoreColumns
) -> pa.Table:
    rows: list[dict[str, Any]] = images.select(_READ).to_pylist()
    own = {
        "split": splits,
        "group": [fmt.group(row["task"], len(row["images"])) for row in rows],
        "image_uris": [places.uris(row) for row in rows],
        "input_references": [[published(text) for text in row["images"]] for row in rows],
        "input_sha256": [_as_many(row["image_sha256"], row["images"]) for row in rows],
        "output_sha256": [row["sha256"] for row in rows],
        "finished_at": [row["finished_at"].isoformat() for row in rows],
    }
    columns = [
        pa.chunked_array([pa.array(own[name], kind.type)]) if name in own else images[name].cast(kind.type)
        for name, kind in ((field.name, field) for field in STAGED if field.name not in PAIRED.names)
    ]
    return pa.table([*columns, *pairs.columns, *scores.of(images)], schema=schema_of(scores))


_READ = ["id", "task", "images", "image_sha256", "sha256", "format", "run_id", "finished_at"]


def _as_many(digests: list[str], references: list[str]) -> list[str]:
    """A digest for each reference; an empty one, which no file has, where the record lacks it."""
    return (digests + [""] * len(references))[: len(references)]


def schema_of(scores: ScoreColumns) -> pa.Schema:
    """STAGED and the columns of the scores."""
    return pa.schema([*STAGED, *scores.fields])
