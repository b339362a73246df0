"""Single columns of the scores of a store, for images in any order. Knows no scorers.

A score is that of an image file: what was found for another image of the same row is not found. Memory: 16 bytes for
each scored image, and the columns that are asked for.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from omnigen_actor import store, uri
from omnigen_actor.errors import OutputError, first_line
from pipelines.scores.scorer import ERROR_COLUMN, ID_COLUMNS
from pipelines.scores.stored import Keys, keys_of, read_description
from pipelines.selection.terms import Kind, kind_of

_PART = "part-"
_READERS = 16


@dataclass(frozen=True, slots=True)
class ScoreFiles:
    """The files of one score. ``scorer``: what made it, as its scorer.json has it."""

    name: str
    files: tuple[str, ...]
    schemas: tuple[pa.Schema, ...]
    scorer: dict[str, Any]

    @property
    def own_schemas(self) -> list[pa.Schema]:
        """Of the columns beside the key."""
        return [pa.schema([field for field in one if field.name not in ID_COLUMNS]) for one in self.schemas]


def list_scores(root: str) -> dict[str, ScoreFiles]:
    """All scores of a store by name. Raises OutputError for a file that can't be read."""
    folder = uri.join(root, store.SCORES)
    by_name: dict[str, list[str]] = {}
    for file in uri.list_files(folder, suffix=".parquet"):
        name, _, key = file.removeprefix(folder).lstrip("/").partition("/")
        if key.startswith(_PART):  # other names are of a scoring that goes on
            by_name.setdefault(name, []).append(file)
    return {
        name: ScoreFiles(name, tuple(files), schemas(files), read_description(root, name) or {"name": name})
        for name, files in by_name.items()
    }


def schemas(files: Sequence[str]) -> tuple[pa.Schema, ...]:
    """The schema of each Parquet file. Raises OutputError."""
    with ThreadPoolExecutor(_READERS) as readers:
        return tuple(readers.map(_schema, files))


class Scored:
    """Some columns of one score, by image."""

    def __init__(self, score: ScoreFiles, columns: Sequence[str]) -> None:
        """``columns``: names, each in a file of the score. Raises OutputError."""
        wanted = pa.schema([(name, _common_type(name, score.schemas)) for name in columns])
        keys, is_good, parts = [np.empty(0, "S16")], [np.empty(0, np.bool_)], [wanted.empty_table()]
        for table in _read(score.files, wanted):
            keys.append(keys_of(table))
            is_good.append(table[ERROR_COLUMN].is_null().to_numpy())
            parts.append(table.select(columns))
        # Of several for one image the last good one is found.
        whole = np.concatenate(keys)
        order = np.lexsort((np.concatenate(is_good), whole))
        self._keys = whole[order]
        self._table = pa.concat_tables(parts).take(pa.array(order)).combine_chunks()

    def find(self, wanted: Keys) -> pa.Table:
        """The columns for these keys, null where there is no score."""
        position = np.searchsorted(self._keys, wanted, side="right") - 1
        is_found = position >= 0
        is_found[is_found] = self._keys[position[is_found]] == wanted[is_found]
        return self._table.take(pa.array(position, mask=~is_found))


def _common_type(name: str, files: Sequence[pa.Schema]) -> pa.DataType:
    """Of a column in files of one kind: numbers of several types are float64."""
    types = {one.field(name).type for one in files if name in one.names} - {pa.null()}
    if len(types) > 1:
        return pa.float64() if all(kind_of(one) is Kind.NUMBER for one in types) else pa.string()
    return types.pop() if types else pa.null()


def _read(files: Sequence[str], wanted: pa.Schema) -> Iterator[pa.Table]:
    """The key, the error and the wanted columns of each file; null where it does not have one."""
    every = pa.schema([*wanted, (ERROR_COLUMN, pa.string())]) if ERROR_COLUMN not in wanted.names else wanted
    for file in files:
        try:
            with uri.open_read(file) as stream:
                parquet = pq.ParquetFile(stream)
                present = set(parquet.schema_arrow.names)
                table = parquet.read(columns=[name for name in (*ID_COLUMNS, *every.names) if name in present])
            columns = {name: table[name] for name in ID_COLUMNS}
            for field in every:
                is_there = field.name in present
                values = table[field.name] if is_there else pa.nulls(table.num_rows, field.type)
                columns[field.name] = values.cast(field.type)
            yield pa.table(columns)
        except (OSError, ValueError, KeyError, pa.ArrowException) as error:
            raise _broken(file, error) from None


def _schema(file: str) -> pa.Schema:
    try:
        with uri.open_read(file) as stream:
            return pq.read_schema(stream)
    except (OSError, ValueError, pa.ArrowException) as error:
        raise _broken(file, error) from None


def _broken(file: str, error: Exception) -> OutputError:
    return OutputError(f"{uri.redact(file)} can't be read: {first_line(error)}; if it is damaged, remove it")
