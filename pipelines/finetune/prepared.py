"""Prepared examples on disk: parts, the index that is their commit, and batches in an order that hangs on the seed.

Which examples a step sees follows from (seed, worker, number of workers, step) alone: a training that is cut off goes
on with the very batch that would have come. Knows no torch and no Ray.
"""

from __future__ import annotations

import hashlib
import io
import json
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from omnigen_actor import uri
from omnigen_actor.errors import ConfigError, OutputError

INDEX = "index.json"
_MAX_PART_BYTES = 2**34
_PARTS_MIXED = 8
"""Rows of so many parts are mixed at a time: what a worker holds in memory."""

Row = dict[str, Any]
"""One row of the schema PREPARED."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Prepared:
    """A prepared set: the URIs of its parts with their numbers of good rows, in order."""

    parts: tuple[tuple[str, int], ...]

    @property
    def num_rows(self) -> int:
        """All rows that can be trained on."""
        return sum(rows for _, rows in self.parts)


def write_part(folder: str, rows: pa.Table) -> tuple[str, int]:
    """Write the good rows as a part whose name depends on their content; its key and how many they are."""
    good = rows.filter(pa.compute.is_null(rows["error_kind"]))
    name = hashlib.sha256("\0".join(good["row_hash"].to_pylist()).encode()).hexdigest()[:24]
    key = f"part-{name}.parquet"
    if good.num_rows:
        sink = pa.BufferOutputStream()
        pq.write_table(good, sink, compression="none")  # fp16 noise does not compress
        uri.write_bytes(uri.join(folder, key), sink.getvalue().to_pybytes())
    return key, good.num_rows


def write_index(folder: str, parts: dict[str, int], content: Row) -> None:
    """Commit the set. ``content`` says what it was made of."""
    listed = [[key, parts[key]] for key in sorted(parts)]
    uri.write_bytes(uri.join(folder, INDEX), (json.dumps({**content, "parts": listed}, indent=1) + "\n").encode())


def read_index(folder: str) -> tuple[Prepared, Row] | None:
    """A set that is whole, and what it was made of; None where there is none. Raises OutputError."""
    location = uri.join(folder, INDEX)
    if not uri.exists(location):
        return None
    try:
        found = json.loads(uri.read_bytes(location, max_bytes=2**30))
        parts = tuple((uri.join(folder, key), int(rows)) for key, rows in found.pop("parts"))
    except (ValueError, KeyError, TypeError) as error:
        raise OutputError(
            f"{uri.redact(location)} can't be read ({error}): remove it to prepare the set anew"
        ) from None
    return Prepared(parts=parts), found


def is_held_out(row_id: str, share: float) -> bool:
    """Whether a row is for validation, by its id alone, with all its samples."""
    digest = hashlib.sha256(f"held out\0{row_id}".encode()).digest()
    return int.from_bytes(digest[:8], "big") < share * 2**64


def read_rows(part: str) -> list[Row]:
    """All rows of one part."""
    rows: list[Row] = pq.read_table(io.BytesIO(uri.read_bytes(part, max_bytes=_MAX_PART_BYTES))).to_pylist()
    return rows


@dataclass(frozen=True, slots=True, kw_only=True)
class Order:
    """One worker's order of a set. ``num_rows`` rows make a batch; rows that fill none are left to a later epoch."""

    prepared: Prepared
    num_rows: int
    seed: int
    worker: int = 0
    num_workers: int = 1

    def __post_init__(self) -> None:
        if not self.batches_per_epoch:
            raise ConfigError(
                f"{self.prepared.num_rows} examples on {self.num_workers} workers do not fill a step of "
                f"{self.num_rows} rows: take fewer rows a step"
            )

    @property
    def batches_per_epoch(self) -> int:
        """The same for all workers and epochs: what the worker with the fewest rows has."""
        counts = [rows for _, rows in self.prepared.parts]
        return sum(counts) // self.num_workers // self.num_rows

    def batches(self, first: int) -> Iterator[list[Row]]:
        """Endless batches from number ``first``, counted from 0 over all epochs."""
        while True:
            epoch, skipped = divmod(first, self.batches_per_epoch)
            rows = self._rows(epoch, skipped * self.num_rows)
            for _ in range(skipped, self.batches_per_epoch):
                yield [next(rows) for _ in range(self.num_rows)]
                first += 1

    def _rows(self, epoch: int, skipped: int) -> Iterator[Row]:
        """This worker's rows of an epoch from number ``skipped`` on: every ``num_workers``-th of the mixed rows."""
        rng = np.random.default_rng([self.seed, epoch])
        order = rng.permutation(len(self.prepared.parts)).tolist()
        groups = [order[start : start + _PARTS_MIXED] for start in range(0, len(order), _PARTS_MIXED)]
        place = 0
        wanted: list[tuple[list[int], npt.NDArray[np.int64]]] = []
        for group in groups:
            mixed = rng.permutation(sum(self.prepared.parts[part][1] for part in group))
            mine = mixed[(self.worker - place) % self.num_workers :: self.num_workers]
            place += len(mixed)
            if skipped >= len(mine):
                skipped -= len(mine)
                continue
            wanted.append((group, mine[skipped:]))
            skipped = 0
        with ThreadPoolExecutor(1) as reader:  # the next group is read while this one is trained on
            loading = [reader.submit(self._load, wanted[0][0])] if wanted else []
            for number, (_, mine) in enumerate(wanted):
                rows = loading.pop().result()
                if number + 1 < len(wanted):
                    loading.append(reader.submit(self._load, wanted[number + 1][0]))
                yield from (rows[index] for index in mine.tolist())

    def _load(self, group: Sequence[int]) -> list[Row]:
        return [row for part in group for row in read_rows(self.prepared.parts[part][0])]
