"""Which records of a store are made again, and their input images as they are now. Knows no engine and no verdicts."""

from __future__ import annotations

import heapq
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import replace
from hashlib import blake2b
from typing import Any, NamedTuple

import pyarrow as pa

from omnigen_actor import uri
from omnigen_actor.allowed import Allowed
from omnigen_actor.errors import ConfigError
from omnigen_actor.images import EXTENSIONS
from omnigen_actor.schema import PLAN, RECORD
from pipelines import check, references
from pipelines.config import InputConfig
from pipelines.fetch import FetchImages
from pipelines.input_places import is_relative
from pipelines.places import allowed_of_run
from pipelines.rows import resolve_uris
from pipelines.run_info import PastRun

Record = Mapping[str, Any]


def named(tables: Iterable[pa.Table], names: Collection[str]) -> list[Record]:
    """The records of these rows, in the order of ids and samples: ``id`` for all samples, or ``id#sample`` for one.

    Raises ConfigError for a name that no record has.
    """
    missing, found = set(names), dict[tuple[str, int], Record]()
    for table in tables:
        keys = list(_keys(table))
        taken = [index for index, (one, sample) in enumerate(keys) if {one, f"{one}#{sample}"} & set(names)]
        for index in taken:
            one, sample = keys[index]
            missing -= {one, f"{one}#{sample}"}
        found |= {keys[index]: record for index, record in zip(taken, _rows(table, taken), strict=True)}
    if missing:
        raise ConfigError(f"no row {min(missing)!r} with an image in this store: give ids of its records of status ok")
    return [found[key] for key in sorted(found)]


def drawn(tables: Iterable[pa.Table], num_rows: int, seed: int) -> list[Record]:
    """``num_rows`` records at random, or all where there are fewer, in the order of ids and samples.

    The same rows for the same seed, however the store was made: each (id, sample) has a place of its own in a draw.
    """
    best: list[tuple[bytes, Record]] = []
    for table in tables:
        places = [blake2b(f"{seed}\0{sample}\0{one}".encode()).digest() for one, sample in _keys(table)]
        taken = heapq.nsmallest(num_rows, range(len(places)), key=places.__getitem__)
        best += zip((places[index] for index in taken), _rows(table, taken), strict=True)
        best = heapq.nsmallest(num_rows, best, key=lambda one: one[0])
    found = {(record["id"], record["sample"]): record for _, record in best}
    return [found[key] for key in sorted(found)]


def _keys(table: pa.Table) -> Iterator[tuple[str, int]]:
    return zip(table["id"].to_pylist(), table["sample"].to_pylist(), strict=True)


def _rows(table: pa.Table, indices: list[int]) -> list[Record]:
    rows: list[Record] = table.select(RECORD.names).take(pa.array(indices, pa.int64())).to_pylist()
    return rows


class Inputs(NamedTuple):
    """The input images of a row as they are now: raw pixels, sizes and sha256 as in FETCHED; or why there are none."""

    pixels: list[bytes]
    sizes: list[int]
    sha256: list[str]
    error: str | None


class InputReader:
    """Reads input images as the run that made a row did: by the same references, limits and permissions.

    ``image_root``: where relative references start and what may be read, in place of what ``run.json`` says.
    ``allow``: further places, as for a run.
    """

    def __init__(self, store_root: str, image_root: str | None, allow: tuple[str, ...]) -> None:
        self._store_root, self._image_root, self._allow = store_root, image_root, allow

    def __call__(self, record: Record, run: PastRun) -> Inputs:
        """The images of one record. Raises ConfigError for ``image_root`` or ``allow``."""
        if not record["images"]:
            return Inputs([], [], [], None)
        base = self._image_root or run.image_base
        if base is None and any(map(is_relative, record["images"])):
            return _missing("run.json does not say where relative references start: name the folder with --image-root")
        try:
            image_uris = resolve_uris(record["images"], base or self._store_root)
        except ValueError as error:
            return _missing(str(error))
        plan = {name: record.get(name) for name in PLAN.names} | {"image_uris": image_uris}
        table = pa.Table.from_pylist([plan], schema=PLAN)
        # The store has one image format, so a parent's file has the extension of its child's.
        table = references.to_store(table, self._store_root, EXTENSIONS[record["format"]])
        allowed = self._allowed(run)
        fetch = FetchImages(run.config.inputs, run.config.generation.max_input_image_size, allowed)
        (row,) = fetch(check.refuse_places(table, allowed)).to_pylist()
        return Inputs(row["pixels"], row["pixel_sizes"], row["image_sha256"], row["error"])

    def _allowed(self, run: PastRun) -> Allowed:
        if self._image_root is not None:
            inputs, home = InputConfig(image_root=self._image_root, allow=self._allow), self._image_root
        else:
            recorded = run.config.inputs
            inputs = replace(recorded, image_root=run.image_base, allow=(*recorded.allow, *self._allow))
            home = uri.parent(run.manifest) if run.manifest else self._store_root
        return allowed_of_run(inputs, home, self._store_root)


def _missing(message: str) -> Inputs:
    return Inputs([], [], [], message)
