"""The step ``near_duplicates``: images of a whole store that look alike, from their perceptual hashes. Runs no Ray.

It reads the scores ``phash`` and writes the scores ``near_duplicates`` for every current image, anew each time, in one
file that takes the place of the last one at once. A group is a chain: each image is within the radius of another one of
its group. Its name is ``id#sample`` of the smallest image in it, by id and then by sample, whatever the order in which
images were made. 1 000 000 images take about 1 GiB of memory.
"""

from __future__ import annotations

import dataclasses
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from omnigen_actor import uri
from omnigen_actor.errors import OutputError
from pipelines.scores import hamming, phash, registry
from pipelines.scores.scorer import ERROR_COLUMN, ID_COLUMNS, ScorerSpec, describe, score_schema
from pipelines.scores.stored import (
    check_description,
    keys_of,
    part_files,
    read_scores,
    scores_folder,
    write_description,
)
from pipelines.stored import current_images

COLUMNS = pa.schema(
    [
        ("duplicate_group", pa.string()),  # id#sample of the smallest image of the group; null: alone
        ("duplicate_distance", pa.int32()),  # bits to the nearest other image of the group; null: alone
    ]
)
NO_HASH = "it has no phash: score the store with phash first"

_FILE = "part-all.parquet"
_ROWS_PER_GROUP = 100_000


@dataclass(frozen=True, slots=True, kw_only=True)
class NearDuplicates:
    """What the step found. ``num_in_groups`` counts every image of a group, ``num_without_hash`` those left out."""

    num_images: int
    num_groups: int
    num_in_groups: int
    num_without_hash: int

    def line(self) -> str:
        """The counts on one line."""
        found = f"{self.num_images} images: {self.num_in_groups} of them in {self.num_groups} groups of near-duplicates"
        return f"{found}, {self.num_without_hash} without a hash" if self.num_without_hash else found


def near_duplicates(
    store_root: str,
    radius: int = hamming.DEFAULT_RADIUS,
    *,
    name: str = registry.NEAR_DUPLICATES,
    hashes: str = registry.PHASH,
    replace: bool = False,
) -> NearDuplicates:
    """Find the groups and write them as the scores ``name``; ``hashes``: the name of the scores to read.

    Raises ConfigError for a radius that is out of bounds, OutputError where the store has no hashes, or has scores of
    this name with another radius and not ``replace``.
    """
    hamming.check_radius(radius)
    description = describe(spec(radius, name=name), COLUMNS)
    if not replace:
        check_description(store_root, description)
    if not part_files(store_root, hashes):
        raise OutputError(f"the store has no scores {hashes!r}: give --scorers {hashes},{name}")
    images = _with_hashes(_images(store_root), read_scores(store_root, [hashes]))
    table = label(images, radius)
    write_description(store_root, description)
    _write(store_root, name, table)
    return _summary(table)


def spec(radius: int, *, name: str = registry.NEAR_DUPLICATES) -> ScorerSpec:
    """What the registry makes of ``near_duplicates:RADIUS``."""
    return dataclasses.replace(registry.parse(f"{registry.NEAR_DUPLICATES}:{radius}"), name=name)


def label(images: pa.Table, radius: int) -> pa.Table:
    """The scores of a table with id, sample, sha256 and phash, sorted by id and sample.

    The result hangs on the rows and not on their order. A row whose phash is null has ``score_error``.
    """
    images = images.sort_by([(column, "ascending") for column in ID_COLUMNS])
    has_hash = pc.is_valid(images[phash.COLUMN]).to_numpy()
    groups = hamming.group(images[phash.COLUMN].filter(pa.array(has_hash)).to_numpy(), radius)
    distance = np.full(images.num_rows, hamming.NONE, np.int32)
    distance[has_hash] = groups.distance
    first = np.zeros(images.num_rows, np.int64)
    first[has_hash] = np.flatnonzero(has_hash)[_first_of(groups.number)]
    is_alone = distance == hamming.NONE
    names = pc.binary_join_element_wise(images["id"], images["sample"].cast(pa.string()), "#")
    errors = pa.array([None if has else NO_HASH for has in has_hash.tolist()], pa.string())
    columns = {
        **{column: images[column] for column in ID_COLUMNS},
        "duplicate_group": names.take(pa.array(first, mask=is_alone)),
        "duplicate_distance": pa.array(distance, mask=is_alone),
        ERROR_COLUMN: errors,
    }
    return pa.table(columns, schema=score_schema(COLUMNS))


def _first_of(number: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """For each row the first row of its group."""
    _, first, place = np.unique(number, return_index=True, return_inverse=True)
    found: npt.NDArray[np.int64] = first[place]
    return found


def _images(root: str) -> pa.Table:
    empty = pa.table({field.name: pa.array([], field.type) for field in list(score_schema(COLUMNS))[: len(ID_COLUMNS)]})
    return pa.concat_tables([empty, *_keys(root)])


def _keys(root: str) -> Iterator[pa.Table]:
    for table in current_images(root):
        yield table.select(list(ID_COLUMNS))


def _with_hashes(images: pa.Table, scores: pa.Table) -> pa.Table:
    """The images with the hash of the same file, null where there is none: an older image's hash is not its."""
    wanted, known = keys_of(images), keys_of(scores)
    order = np.argsort(known, kind="stable")
    place = order[np.minimum(np.searchsorted(known, wanted, sorter=order), len(known) - 1)] if len(known) else None
    if place is None:
        return images.append_column(phash.COLUMN, pa.nulls(images.num_rows, pa.uint64()))
    return images.append_column(phash.COLUMN, scores[phash.COLUMN].take(pa.array(place, mask=known[place] != wanted)))


def _write(root: str, name: str, table: pa.Table) -> None:
    place = uri.join(scores_folder(root, name), _FILE)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / _FILE
        pq.write_table(table, path, row_group_size=_ROWS_PER_GROUP)
        uri.write_file(place, path)
    for other in part_files(root, name):
        if other != place:
            uri.remove(other)


def _summary(table: pa.Table) -> NearDuplicates:
    group = table["duplicate_group"]
    return NearDuplicates(
        num_images=table.num_rows,
        num_groups=pc.count_distinct(group, mode="only_valid").as_py(),
        num_in_groups=table.num_rows - group.null_count,
        num_without_hash=table.num_rows - table[ERROR_COLUMN].null_count,
    )
