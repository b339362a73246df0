"""A manifest's planned rows, each id once: what repeats a row is left out, what contradicts one is an error.

Knows no records and no parts of a plan. Of each manifest row 32 bytes are kept, of a large manifest's on disk.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from hashlib import blake2b
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from omnigen_actor import schema
from omnigen_actor.errors import ManifestError
from omnigen_actor.tasks import TaskTable
from pipelines import values
from pipelines.check import Checked, check_parts
from pipelines.config import GenerationConfig
from pipelines.first_seen import VALUE, FirstSeen
from pipelines.ledger import digest
from pipelines.manifest import Manifest

ROWS_PER_TABLE = 4096


class Planned(NamedTuple):
    """Planned rows, and lists of the hashes that they had with each of the earlier settings."""

    table: pa.Table
    earlier: Sequence[Sequence[str]]


@dataclass(slots=True)
class UniqueRows:
    """The planned rows of a manifest, and how many rows it has. To be read once, to its end.

    ``earlier``: settings that rows of the store were made with before, beside ``generation``.
    """

    manifest: Manifest
    generation: GenerationConfig
    tasks: TaskTable
    earlier: Sequence[GenerationConfig] = ()
    num_rows: int = 0
    num_duplicates: int = 0
    _seen: FirstSeen = field(default_factory=FirstSeen)

    def __iter__(self) -> Iterator[Planned]:
        """Raises ManifestError when two rows of different content share an id, or for a manifest that can't be read."""
        for batch in self.manifest.batches():
            for checked, *others in zip(*(self._check(batch, one) for one in self._settings()), strict=True):
                is_new = self._find_new(checked, batch)
                self.num_duplicates += int(np.sum(~is_new))
                mask = pa.array(is_new[checked.combination])
                table = checked.table if is_new.all() else checked.table.filter(mask)
                yield Planned(table, [one.table["row_hash"].filter(mask).to_pylist() for one in others])
            self.num_rows += batch.num_rows

    def _settings(self) -> list[GenerationConfig]:
        samples = self.generation.num_samples
        return [self.generation, *(replace(one, num_samples=samples) for one in self.earlier)]

    def _check(self, batch: pa.Table, generation: GenerationConfig) -> Iterator[Checked]:
        return check_parts(batch, generation, self.manifest.base_folder, self.tasks, rows_per_part=ROWS_PER_TABLE)

    def _find_new(self, checked: Checked, batch: pa.Table) -> npt.NDArray[np.bool_]:
        """For each combination of a part: whether its id is new. Remembers its row's number and content by the id."""
        _, first = np.unique(checked.combination, return_index=True)
        rows = checked.row_index[first]
        num_samples = np.diff(first, append=len(checked.combination))
        digests = digest(checked.table)[first]
        own = np.empty(len(rows), VALUE)
        own["number"] = self.num_rows + rows + 1
        users = zip(*_user_cells(checked.table, first), strict=True)
        described = zip(_chunks(digests["content"]), num_samples.tolist(), strict=True)
        own["content"] = [_content(row_hash, samples, next(users, ())) for row_hash, samples in described]
        earlier = self._seen.add(np.ascontiguousarray(digests["key"]), own)
        is_new: npt.NDArray[np.bool_] = earlier["number"] == own["number"]
        for position in np.flatnonzero(~is_new & (earlier["content"] != own["content"]))[:1].tolist():
            row_id = checked.table.column("id")[int(first[position])].as_py()
            numbers = int(earlier["number"][position]), int(own["number"][position])
            raise ManifestError(_clash(row_id, *numbers, has_id=_has_id(batch, int(rows[position]))))
        return is_new


def _content(row_hash: bytes, num_samples: int, user_cells: tuple[object, ...]) -> int:
    text = repr((row_hash, num_samples, user_cells))
    return int.from_bytes(blake2b(text.encode(errors="surrogatepass"), digest_size=8).digest(), "big")


def _chunks(digests: npt.NDArray[np.bytes_]) -> list[bytes]:
    """The digests as bytes, with the trailing zeros that numpy's own items lose."""
    whole = np.ascontiguousarray(digests).tobytes()
    return [whole[start : start + 16] for start in range(0, len(whole), 16)]


def _user_cells(table: pa.Table, positions: npt.NDArray[np.int64]) -> list[list[object]]:
    users = table.select([one.name for one in schema.user_fields(table.schema)]).take(positions)
    return [values.read_column(users, index) for index in range(users.num_columns)]


def _has_id(batch: pa.Table, row: int) -> bool:
    return "id" in batch.column_names and batch.column("id")[row].is_valid


def _clash(row_id: str, earlier: int, number: int, *, has_id: bool) -> str:
    if has_id:
        return (
            f"rows {earlier} and {number} of the manifest have the same id {row_id!r} and different content; rename one"
        )
    return (
        f"rows {earlier} and {number} of the manifest ask for the same image, have no id (made from their content: "
        f"{row_id!r}) and differ in other columns; give them ids"
    )
