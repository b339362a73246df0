"""Images that must not be torn apart, as numbers: whoever shares something with another is of its family.

Knows nothing of what is shared: samples of a row, lineages, near-duplicates and input images all are links to a hash.
A link takes 16 bytes; an image has two and one more for each parent, input image and group.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from hashlib import blake2b

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

Numbers = npt.NDArray[np.int64]
_HASH = np.uint64


class Links:
    """(image, what it shares) of many images; images are numbered as they come."""

    def __init__(self) -> None:
        self._images: list[npt.NDArray[np.int64]] = []
        self._shared: list[npt.NDArray[np.uint64]] = []
        self._num_images = 0

    def add(self, table: pa.Table) -> None:
        """Take in images: id, sha256, parents (id#sample), image_sha256, and duplicate_group where there is one.

        An image's own file counts as one that others may have as an input.
        """
        everyone = np.arange(table.num_rows)
        self._link(everyone, "row", table["id"].to_pylist())
        self._link(everyone, "file", table["sha256"].to_pylist())
        self._link_lists("row", table["parents"], is_sample=True)
        self._link_lists("file", table["image_sha256"], is_sample=False)
        if "duplicate_group" in table.column_names:
            has_group = np.flatnonzero(table["duplicate_group"].is_valid().to_numpy())
            self._link(has_group, "group", table["duplicate_group"].drop_null().to_pylist())
        self._num_images += table.num_rows

    def _link_lists(self, what: str, lists: pa.ChunkedArray, *, is_sample: bool) -> None:
        whole = lists.combine_chunks()
        names: list[str] = pc.list_flatten(whole).to_pylist()
        if is_sample:
            names = [name.rpartition("#")[0] for name in names]
        self._link(pc.list_parent_indices(whole).to_numpy(), what, names)

    def _link(self, images: npt.NDArray[np.int64], what: str, names: Sequence[str]) -> None:
        self._images.append(images.astype(np.int64) + self._num_images)
        self._shared.append(hashes(what, names))

    def families(self, order: Numbers) -> Numbers:
        """For each image the first one of its family. ``order``: the images' numbers in the order that "first" means,
        which is also that of the result.
        """
        position = np.empty(self._num_images, np.int64)
        position[order] = np.arange(self._num_images)
        images = position[np.concatenate([np.empty(0, np.int64), *self._images])]
        _, hub = np.unique(np.concatenate([np.empty(0, _HASH), *self._shared]), return_inverse=True)
        num_hubs = int(hub.max()) + 1 if len(hub) else 0
        return components(self._num_images + num_hubs, images, hub + self._num_images)[: self._num_images]


def hashes(what: str, names: Iterable[str | None]) -> npt.NDArray[np.uint64]:
    """64 bits of a digest of each name."""
    digests = [blake2b(f"{what}\0{name}".encode(), digest_size=8).digest() for name in names]
    return np.frombuffer(b"".join(digests), ">u8").astype(_HASH)


def components(num_nodes: int, left: Numbers, right: Numbers) -> Numbers:
    """For each node of an undirected graph the lowest node that it is connected with.

    Every root that has a lower one beside it is hung below the lowest, and all paths are shortened, until no edge joins
    two roots.
    """
    label = np.arange(num_nodes, dtype=np.int64)
    while True:
        one, other = label[left], label[right]
        is_open = one != other
        if not is_open.any():
            return label
        left, right = left[is_open], right[is_open]
        high, low = np.maximum(one, other)[is_open], np.minimum(one, other)[is_open]
        np.minimum.at(label, high, low)
        while not np.array_equal(label, shorter := label[label]):
            label = shorter
