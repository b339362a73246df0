"""What rows must not have in common: ids, output files, outputs in two splits, near-duplicates in two splits.

A row is 32 bytes for each of these, whatever it says; they are compared once all rows are there. Knows no images.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterator
from hashlib import blake2b
from typing import Any

import numpy as np
import numpy.typing as npt

from pipelines.verify.findings import Finding, FindingKind
from pipelines.verify.sets.rows import Checked

_PLACE = np.dtype([("key", "S16"), ("split", "i4"), ("file", "i4"), ("number", "i8")])


class Across:
    """Takes the rows one after the other; ``findings`` at the end. ``radius``: of near-duplicates; None: not at all."""

    def __init__(self, radius: int | None) -> None:
        self._radius = radius
        self._files = _Names()
        self._splits = _Names()
        self._ids, self._paths, self._outputs = (_Keys() for _ in range(3))
        self._hashes = array("Q")
        self._hashed = _Keys()

    def add(self, checked: Checked) -> None:
        """One more row."""
        row = checked.member
        place = (self._splits.number(row.split), self._files.number(row.file), row.number)
        if row.id is not None:
            self._ids.add(f"{row.id}#{row.sample}".encode(errors="surrogatepass"), place)
        if checked.output_path is not None:
            self._paths.add(checked.output_path.encode(errors="surrogatepass"), place)
        for output in filter(None, (checked.output, checked.chosen)):
            if key := output.pixels or (output.sha256 and output.sha256.encode()):
                self._outputs.add(key, place)
            if output.phash is not None:
                self._hashes.append(output.phash)
                self._hashed.add(output.pixels or b"", place)

    def findings(self) -> Iterator[Finding]:
        """What rows have in common."""
        for kind, keys, what in (
            (FindingKind.DUPLICATE_ID, self._ids, "the same id"),
            (FindingKind.OUTPUT_SHARED, self._paths, "the same output file"),
        ):
            for first, other in keys.pairs():
                yield self._finding(kind, other, f"{what} as {self._shown(first)}")
        for first, other in self._outputs.pairs():
            if first["split"] != other["split"]:
                yield self._finding(FindingKind.IN_TWO_SPLITS, other, f"the same image as {self._told(first)}")
        yield from self._near()

    def _near(self) -> Iterator[Finding]:
        if self._radius is None or not len(self._hashes):
            return
        from pipelines.scores import hamming

        groups = hamming.group(np.array(self._hashes, np.uint64), self._radius)
        places = self._hashed.table()
        order = np.argsort(groups.number, kind="stable")
        ends = np.flatnonzero(np.diff(groups.number[order])) + 1
        for members in np.split(order, ends):
            first = places[members[0]]
            for other in places[members[1:]]:
                if other["split"] != first["split"] and other["key"] != first["key"]:
                    yield self._finding(FindingKind.NEAR_DUPLICATE, other, f"it looks like {self._told(first)}")

    def _finding(self, kind: FindingKind, place: Any, message: str) -> Finding:
        return Finding(kind=kind, key=self._shown(place), message=message)

    def _shown(self, place: Any) -> str:
        return f"{self._files.name(int(place['file']))}:{int(place['number'])}"

    def _told(self, place: Any) -> str:
        return f"{self._shown(place)} of the split {self._splits.name(int(place['split']))!r}"


class _Keys:
    """Keys and where they are."""

    def __init__(self) -> None:
        self._data = bytearray()

    def add(self, key: bytes, place: tuple[int, int, int]) -> None:
        """One more. The digest is made so that it does not end in a zero, which numpy takes for its end."""
        digest = blake2b(key, digest_size=15).digest() + b"."
        self._data += np.array((digest, *place), _PLACE).tobytes()

    def table(self) -> npt.NDArray[np.void]:
        """All of them, in the order in which they came."""
        return np.frombuffer(bytes(self._data), _PLACE)

    def pairs(self) -> Iterator[tuple[Any, Any]]:
        """The first of each key with each further one."""
        places = self.table()
        places = places[np.argsort(places["key"], kind="stable")]
        if len(places) < 2:
            return
        is_same = places["key"][1:] == places["key"][:-1]
        starts = np.flatnonzero(~np.concatenate([[False], is_same]))
        for number in np.flatnonzero(is_same) + 1:
            yield places[starts[np.searchsorted(starts, number, side="right") - 1]], places[number]


class _Names:
    """Texts as numbers."""

    def __init__(self) -> None:
        self._numbers: dict[str, int] = {}
        self._names: list[str] = []

    def number(self, name: str) -> int:
        if name not in self._numbers:
            self._numbers[name] = len(self._names)
            self._names.append(name)
        return self._numbers[name]

    def name(self, number: int) -> str:
        return self._names[number]
