"""Levels of a plan: rows that refer to rows wait until all that they may refer to have a record. Knows no Ray.

All levels go through one pipeline, so engines stay open. A stage holds back the parts of a level until the driver,
which counts what is done, writes the level's mark; before that it marks the rows whose parents got no image.
"""

from __future__ import annotations

import io
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

import pyarrow as pa
import pyarrow.parquet as pq

from omnigen_actor import uri
from pipelines import references

PART = pa.schema(
    [
        pa.field("part", pa.string(), nullable=False),
        pa.field("mark", pa.string()),  # what must be there before the part is read; null: nothing
    ]
)
"""A table that names staged parts of a plan by their URI."""

_MAX_PART_BYTES = 2**32
_SHORTEST_WAIT_S, _LONGEST_WAIT_S = 0.05, 0.5


@dataclass(frozen=True, slots=True, kw_only=True)
class Level:
    """Rows of one depth that a run has to do: their parts of the plan, and how many they are."""

    depth: int
    folder: str
    parts: tuple[str, ...]
    num_rows: int

    @property
    def mark(self) -> str:
        """The file whose presence says that the level may be read."""
        return uri.join(self.folder, "ready")


@dataclass(slots=True)
class Progress:
    """How far the levels are; opens the next one as soon as the one before is complete."""

    levels: Sequence[Level]
    causes: dict[str, str] = field(default_factory=dict)
    """``id#sample`` of each row without an image -> that of the row whose failure began it."""

    _left: dict[int, int] = field(init=False)
    _num_open: int = field(init=False, default=1)

    def __post_init__(self) -> None:
        self._left = {level.depth: level.num_rows for level in self.levels}

    def parts(self) -> Iterator[pa.Table]:
        """A PART table for each part, lowest level first."""
        for number, level in enumerate(self.levels):
            for part in level.parts:
                yield pa.table({"part": [part], "mark": [level.mark if number else None]}, PART)

    def add(self, depth: int, num_rows: int, lost: Sequence[str]) -> None:
        """So many rows of a depth have a record, of which ``lost`` have no image."""
        self._left[depth] -= num_rows
        for row in lost:
            self.causes.setdefault(row, row)
        while self._num_open < len(self.levels) and not self._left[self.levels[self._num_open - 1].depth]:
            self._open(self.levels[self._num_open])
            self._num_open += 1

    def _open(self, level: Level) -> None:
        if self.causes:
            skip_orphans(level.parts, self.causes)
        uri.write_bytes(level.mark, b"")


@dataclass(frozen=True, slots=True)
class AwaitMarks:
    """PART in, PART out, once every mark in it is there. Waits for as long as it takes: the run ends it.

    ``stop``: a mark that ends the waiting, too: nothing more is read then.
    """

    sleep: Callable[[float], None] = time.sleep
    stop: str | None = None

    def __call__(self, table: pa.Table) -> pa.Table:
        """Raises UriFailed where the store can't be asked."""
        for mark in filter(None, table["mark"].to_pylist()):
            wait_s = _SHORTEST_WAIT_S
            while not (uri.exists(mark) or self._is_stopped()):
                self.sleep(wait_s)
                wait_s = min(2 * wait_s, _LONGEST_WAIT_S)
        return table

    def _is_stopped(self) -> bool:
        return self.stop is not None and uri.exists(self.stop)


def read_part(part: str) -> pa.Table:
    """The planned rows of one part. Raises UriNotFound, UriFailed."""
    return pq.read_table(io.BytesIO(uri.read_bytes(part, max_bytes=_MAX_PART_BYTES)))


def skip_orphans(parts: Sequence[str], causes: dict[str, str]) -> None:
    """Write the parts anew in which rows have lost a parent; ``causes`` as in ``references.skip_children``."""
    for part in parts:
        planned = read_part(part)
        marked = references.skip_children(planned, causes)
        if marked is not planned:
            sink = pa.BufferOutputStream()
            pq.write_table(marked, sink, compression="zstd")
            uri.write_bytes(part, sink.getvalue().to_pybytes())
