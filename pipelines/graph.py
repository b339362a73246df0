"""Which row needs which: depths, and contents that follow the contents of parents. Knows digests, no images.

Of each planned row 32 bytes are kept, on disk; memory grows by about 500 for each that refers to others.
"""

from __future__ import annotations

import hashlib
import tempfile
import weakref
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from omnigen_actor.errors import ManifestError
from pipelines.ledger import DIGEST, Digests, key_digest

MAX_NAMED = 5

Names = Callable[[Sequence[int]], list[str]]
"""Numbers of rows that refer to others -> their ids."""

Pick = Callable[[npt.NDArray[np.bytes_], Sequence[str]], str]
"""A row's key, an array of one, and the hashes that it may have -> the one that it has."""


class Settled(NamedTuple):
    """For each row that refers to others, in order: its depth, and its hash with those of all that it comes from.

    ``child`` has the numbers of these rows among all, ``parent`` those of their parents, of row i from ``first[i]`` to
    ``first[i + 1]``; ``digests`` are those of all rows.
    """

    depth: npt.NDArray[np.int32]
    row_hash: list[str]
    child: npt.NDArray[np.int64]
    parent: npt.NDArray[np.int64]
    first: npt.NDArray[np.int64]
    digests: Digests


class Graph:
    """Planned rows as they come, then all at once."""

    def __init__(self) -> None:
        self._digests = tempfile.TemporaryFile(prefix="omnigen-batch-plan-")  # noqa: SIM115
        weakref.finalize(self, self._digests.close)
        self._num_rows = 0
        self._children: list[int] = []
        self._hashes: list[tuple[str, ...]] = []
        self._parent_keys: list[bytes] = []
        self._first: list[int] = []

    @property
    def num_children(self) -> int:
        """Rows so far that refer to others."""
        return len(self._children)

    def add(self, planned: pa.Table, digests: Digests, earlier: Sequence[Sequence[str]] = ()) -> npt.NDArray[np.bool_]:
        """Take in planned rows and their digests. Returns which of them refer to others.

        ``earlier``: lists of the hashes that the rows had with earlier settings.
        """
        digests.tofile(self._digests)
        parents = planned["parents"].to_pylist()
        hashes = [planned["row_hash"].to_pylist(), *earlier]
        for index, texts in enumerate(parents):
            if texts:
                self._children.append(self._num_rows + index)
                self._hashes.append(tuple(dict.fromkeys(one[index] for one in hashes)))
                self._first.append(len(self._parent_keys))
                self._parent_keys += [_key(text) for text in texts]
        self._num_rows += planned.num_rows
        return np.array([bool(texts) for texts in parents], dtype=bool)

    def settle(self, names: Names, pick: Pick | None = None) -> Settled:
        """Depths and contents. Raises ManifestError that names rows with unknown parents, or rows in a cycle.

        ``pick`` is asked where a row has hashes of earlier settings; the first that it is given is the present one.
        """
        digests = self._all_digests()
        parent = self._find_parents(digests["key"], names) if self._children else np.empty(0, np.int64)
        first = np.array(self._first, dtype=np.int64)
        children = np.array(self._children, dtype=np.int64)
        depth = np.zeros(len(digests), dtype=np.int32)
        is_settled = np.ones(len(digests), dtype=bool)
        is_settled[children] = False
        row_hash = [hashes[0] for hashes in self._hashes]
        left = np.arange(len(children))
        ends = np.append(first[1:], len(parent))
        while len(left):
            is_ready = np.logical_and.reduceat(is_settled[parent], first)[left]
            if not is_ready.any():
                raise ManifestError(_cycle(left, parent, first, children, names))
            for child in left[is_ready].tolist():
                own = parent[first[child] : ends[child]]
                chained = [_chained(one, digests["content"][own]) for one in self._hashes[child]]
                row_hash[child] = chained[0]
                if pick and len(chained) > 1:
                    row_hash[child] = pick(digests["key"][children[child], None], chained)
                digests["content"][children[child]] = bytes.fromhex(row_hash[child][:32])
                depth[children[child]] = depth[own].max() + 1
            is_settled[children[left[is_ready]]] = True
            left = left[~is_ready]
        return Settled(depth[children], row_hash, children, parent, np.append(first, len(parent)), digests)

    def _all_digests(self) -> Digests:
        with self._digests:
            self._digests.flush()
            if not self._num_rows:
                return np.empty(0, DIGEST)
            return np.memmap(self._digests, DIGEST, mode="r+", shape=(self._num_rows,))

    def _find_parents(self, keys: npt.NDArray[np.bytes_], names: Names) -> npt.NDArray[np.int64]:
        """The row of each parent."""
        order = np.argsort(keys)
        wanted = np.frombuffer(b"".join(self._parent_keys), "S16")
        position = np.minimum(np.searchsorted(keys[order], wanted), len(keys) - 1)
        found: npt.NDArray[np.int64] = order[position]
        unknown = np.flatnonzero(keys[found] != wanted)
        if len(unknown):
            children = np.unique(np.searchsorted(self._first, unknown, side="right") - 1)
            raise ManifestError(
                f"{len(children)} row{'s' * (len(children) > 1)} of the manifest refer to rows that it does not have: "
                f"{', '.join(map(repr, names(children[:MAX_NAMED].tolist())))}; "
                "a reference is row:<id> or row:<id>#<sample>, with a sample that the row makes"
            )
        return found


def _cycle(
    left: npt.NDArray[np.int64],
    parent: npt.NDArray[np.int64],
    first: npt.NDArray[np.int64],
    children: npt.NDArray[np.int64],
    names: Names,
) -> str:
    """The message for rows that wait for each other: one way round, from an unsettled row to its unsettled parent."""
    waiting = {int(children[child]): int(child) for child in left}
    ends = np.append(first[1:], len(parent))
    way: list[int] = []
    child = int(left[0])
    while child not in way:
        way.append(child)
        child = next(waiting[int(row)] for row in parent[first[child] : ends[child]] if int(row) in waiting)
    ring = way[way.index(child) :]
    shown = [repr(name) for name in names(ring[:MAX_NAMED])]
    more = [f"… ({len(ring)} rows)"] if len(ring) > MAX_NAMED else []
    if len(ring) == 1:
        return f"row {shown[0]} of the manifest refers to itself"
    return f"rows of the manifest refer to each other in a circle: {' → '.join([*shown, *more, shown[0]])}"


def _key(text: str) -> bytes:
    row_id, _, sample = text.rpartition("#")
    return key_digest(row_id, int(sample))


def _chained(row_hash: str, parents: npt.NDArray[np.bytes_]) -> str:
    """A changed parent makes another row of its child."""
    return hashlib.sha256(row_hash.encode() + np.ascontiguousarray(parents).tobytes()).hexdigest()
