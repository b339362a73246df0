"""Scores of a store as columns of an export. Knows not what they say."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

import pyarrow as pa

from omnigen_actor.errors import OutputError
from pipelines.export.examples import STAGED
from pipelines.export.keys import Lookup
from pipelines.scores.scorer import ID_COLUMNS
from pipelines.scores.stored import keys_of, read_description, read_scores

_RESERVED = frozenset([*STAGED.names, "input_images", "output_image", "scores", "images"])


class ScoreColumns:
    """The columns of some scores. One that two scores have, or the export itself, gets the score's name in front."""

    def __init__(self, read: dict[str, pa.Table], told: dict[str, Any] | None = None) -> None:
        counted = Counter(column for table in read.values() for column in _own(table).column_names)
        self._lookups = [Lookup(keys_of(table), _own(table)) for table in read.values()]
        self.fields = [
            field.with_name(
                f"{name}_{field.name}" if counted[field.name] > 1 or field.name in _RESERVED else field.name
            )
            for name, table in read.items()
            for field in _own(table).schema
        ]
        self.told = told or {}

    @classmethod
    def read(cls, store_root: str, names: Sequence[str]) -> ScoreColumns:
        """Raises OutputError for a score that the store does not have, and for one that can't be read."""
        read = {name: read_scores(store_root, [name]) for name in names}
        for name, table in read.items():
            _check(name, _own(table).schema)
        return cls(read, {name: read_description(store_root, name) for name in names})

    def of(self, images: pa.Table) -> list[pa.ChunkedArray]:
        """The columns for current images, null where an image has no score."""
        if not self._lookups:
            return []
        keys = keys_of(images)
        return [column for lookup in self._lookups for column in lookup.rows(keys).columns]


_FIRST = len(ID_COLUMNS)


def _own(table: pa.Table) -> pa.Table:
    """The scorer's own columns: the keys come before them, and why there is no score after them."""
    return table.select(list(range(_FIRST, table.num_columns - 1))).replace_schema_metadata(None)


def _check(name: str, schema: pa.Schema) -> None:
    for field in schema:
        kind = field.type
        if not (pa.types.is_primitive(kind) or pa.types.is_string(kind)) or pa.types.is_temporal(kind):
            raise OutputError(f"scores {name!r}: the column {field.name!r} is {kind}; an export takes numbers and text")
