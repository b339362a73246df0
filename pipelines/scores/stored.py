"""Scores in a run store: where they lie, what they were made with, reading them. Knows neither scorers nor Ray.

    scores/<name>/scorer.json               what made them; written first
    scores/<name>/part-<digest>.parquet     scores of some images; named by them: a retried task overwrites
    scores/<name>/_plan/                    while a scoring goes on: what it is to do; readers pass over such names

A score belongs to one image file, by its sha256. Several scores of one file are equal, unless one could not be made:
then the other counts. Scores of files that are no longer in the store stay, and belong to nothing.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from hashlib import blake2b
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from omnigen_actor import store, uri
from omnigen_actor.errors import OutputError, first_line
from pipelines.scores.scorer import ERROR_COLUMN, ID_COLUMNS

SCORER_KEY = "scorer.json"
PLAN = "_plan"

_KEYS = list(ID_COLUMNS)
_MAX_BYTES = 2**20
_READERS = 16
_PLACES = frozenset({"model"})
"""Settings that say where something is: what it is says its sha256."""

Keys = npt.NDArray[np.bytes_]
"""16 bytes for each image: a digest of id, sample and sha256."""


def scores_folder(root: str, name: str) -> str:
    """Where the scores of this name are."""
    return uri.join(root, store.SCORES, name)


def part_key(name: str, keys: Iterable[tuple[str, int, str]]) -> str:
    """The key in the store of the scores of these (id, sample, sha256)."""
    digest = hashlib.sha256()
    for row_id, sample, sha256 in keys:
        digest.update(f"{len(row_id)}:{row_id}\0{sample}\0{sha256}\0".encode())
    return f"{store.SCORES}/{name}/part-{digest.hexdigest()[:24]}.parquet"


def keys_of(table: pa.Table) -> Keys:
    """The keys of a table with id, sample and sha256."""
    columns = (table[name].to_pylist() for name in _KEYS)
    found = [
        blake2b(f"{sample}\0{sha256}\0{row_id}".encode(), digest_size=16).digest()
        for row_id, sample, sha256 in zip(*columns, strict=True)
    ]
    return np.frombuffer(b"".join(found), "S16")


def part_files(root: str, name: str) -> list[str]:
    """The files with scores of this name, sorted."""
    folder = scores_folder(root, name)
    return [file for file in uri.list_files(folder, suffix=".parquet") if file.startswith(f"{folder}/part-")]


class Scored:
    """Which images have a score of this name, 17 bytes for each. Raises OutputError for a file that can't be read."""

    def __init__(self, root: str, name: str) -> None:
        keys, errors = [np.empty(0, "S16")], [np.empty(0, np.bool_)]
        for table in _read_all(part_files(root, name), [*_KEYS, ERROR_COLUMN]):
            keys.append(keys_of(table))
            errors.append(pc.is_valid(table[ERROR_COLUMN]).to_numpy())
        key, has_error = np.concatenate(keys), np.concatenate(errors)
        order = np.lexsort((has_error, key))
        key, has_error = key[order], has_error[order]
        is_first = np.append(np.ones(min(1, len(key)), np.bool_), key[1:] != key[:-1])
        self._keys, self._has_error = key[is_first], has_error[is_first]

    def look_up(self, keys: Keys) -> tuple[npt.NDArray[np.bool_], npt.NDArray[np.bool_]]:
        """For each key: whether it has a score, and whether it has an error in its place."""
        if not len(self._keys):
            return np.zeros(len(keys), np.bool_), np.zeros(len(keys), np.bool_)
        position = np.minimum(np.searchsorted(self._keys, keys), len(self._keys) - 1)
        is_there = self._keys[position] == keys
        has_error = self._has_error[position]
        return is_there & ~has_error, is_there & has_error


def read_scores(root: str, names: Sequence[str]) -> pa.Table:
    """One table of these scores, a row for each image file that has any: id, sample, sha256, the scorers' columns.

    Sorted by the key. A column that several of them have is ``<name>_<column>`` of each, and ``<name>_score_error``
    says why an image has no score; null where a score is missing. Rows may be of image files that are gone: join them
    with the current records. Raises OutputError for a name without scores, and for a file that can't be read.
    """
    tables = [_newest(root, name) for name in names]
    if not tables:
        raise OutputError("no scores to read: name some")
    every = pa.concat_tables([table.select(_KEYS) for table in tables]).group_by(_KEYS).aggregate([])
    every = every.select(_KEYS).sort_by([(name, "ascending") for name in _KEYS])
    wanted = keys_of(every)
    columns = [column for table in tables for column in table.column_names]
    for name, table in zip(names, tables, strict=True):
        found = table.take(_positions(keys_of(table), wanted))
        for column in (one for one in table.column_names if one not in _KEYS):
            every = every.append_column(_title(name, column, columns), found[column])
    return every


def read_description(root: str, name: str) -> dict[str, Any] | None:
    """What scorer.json says; None where there is none. Raises OutputError where it can't be read."""
    place = uri.join(scores_folder(root, name), SCORER_KEY)
    try:
        return dict(json.loads(uri.read_bytes(place, max_bytes=_MAX_BYTES)))
    except uri.UriNotFound:
        return None
    except (OSError, ValueError, TypeError) as error:
        raise OutputError(f"{uri.redact(place)} can't be read ({first_line(error)}); --replace makes it anew") from None


def write_description(root: str, description: dict[str, Any]) -> None:
    """Write scorer.json. Raises UriFailed."""
    text = json.dumps(description, indent=2, sort_keys=True) + "\n"
    uri.write_bytes(uri.join(scores_folder(root, str(description["name"])), SCORER_KEY), text.encode())


def check_description(root: str, expected: dict[str, Any]) -> None:
    """Raises OutputError where the store has scores of this name that something else made."""
    name = str(expected["name"])
    found = read_description(root, name)
    if found is None:
        if part_files(root, name):
            raise OutputError(f"scores {name!r} have no {SCORER_KEY}: nobody knows what made them; give --replace")
        return
    found_facts, expected_facts = _facts(found), _facts(expected)
    different = sorted(
        key for key in found_facts.keys() | expected_facts if found_facts.get(key) != expected_facts.get(key)
    )
    if different:
        changes = ", ".join(f"{key}={found_facts.get(key)!r} (now {expected_facts.get(key)!r})" for key in different)
        raise OutputError(
            f"scores {name!r} of this store were made with {changes}: "
            "keep the new ones under another name, NAME=SCORER, or give --replace"
        )


def _facts(description: dict[str, Any]) -> dict[str, Any]:
    """What must agree, flat. A model may lie elsewhere, as long as its bytes are known to be the same."""
    settings = dict(description.get("settings") or {})
    if "weights_sha256" in settings:
        settings = {key: value for key, value in settings.items() if key not in _PLACES}
    return settings | {key: description.get(key) for key in ("version", "columns")}


def _newest(root: str, name: str) -> pa.Table:
    """All scores of one name, one row for each key: one without an error if there is one, else the last by its file."""
    tables = list(_read_all(part_files(root, name)))
    if not tables:
        raise OutputError(f"this store has no scores {name!r}: make them with python -m jobs.score")
    table = pa.concat_tables(tables)
    key, has_error = keys_of(table), pc.is_valid(table[ERROR_COLUMN]).to_numpy()
    order = np.lexsort((np.arange(len(key)), ~has_error, key))
    is_last = np.append(key[order][1:] != key[order][:-1], np.ones(min(1, len(key)), np.bool_))
    return table.take(pa.array(np.sort(order[is_last])))


def _positions(keys: Keys, wanted: Keys) -> pa.Array:
    """Where each of ``wanted`` is in ``keys``, null where it is not."""
    order = np.argsort(keys, kind="stable")
    position = order[np.minimum(np.searchsorted(keys[order], wanted), len(keys) - 1)]
    return pa.array(position, mask=keys[position] != wanted)


def _title(name: str, column: str, columns: Sequence[str]) -> str:
    if column == ERROR_COLUMN:
        return f"{name}_{ERROR_COLUMN}"
    return column if columns.count(column) == 1 else f"{name}_{column}"


def _read_all(files: Sequence[str], columns: list[str] | None = None) -> Iterator[pa.Table]:
    """The tables of these files, in order, a few read at a time."""
    with ThreadPoolExecutor(_READERS) as readers:
        for start in range(0, len(files), 4 * _READERS):
            yield from readers.map(lambda file: _read(file, columns), files[start : start + 4 * _READERS])


def _read(file: str, columns: list[str] | None) -> pa.Table:
    try:
        with uri.open_read(file) as stream:
            return pq.ParquetFile(stream).read(columns=columns)
    except (OSError, ValueError, KeyError, pa.ArrowException) as error:
        raise OutputError(
            f"scores file {uri.redact(file)} can't be read: {first_line(error)}; "
            "remove it, and its images are scored again"
        ) from None
