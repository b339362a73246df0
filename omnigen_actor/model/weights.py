"""Safetensors files -> tensors on a device, in one pass over the bytes. Knows places and dtypes, not what they mean.

Each tensor is allocated once, where it stays and in its final dtype, and parts are copied into their rows. Two buffers
of a few megabytes are all that the host holds besides, and what is hashed is what was copied.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from io import FileIO
from pathlib import Path

import torch
from torch import Tensor

from omnigen_actor.checkpoint import digests
from omnigen_actor.checkpoint.headers import Header, TensorEntry, read_header
from omnigen_actor.checkpoint.reading import short
from omnigen_actor.checkpoint.tensors import Place, Places, Shape, is_ignored
from omnigen_actor.errors import ModelError, first_line

Edit = Callable[[Tensor], None]
"""Changes a whole tensor in place, in fp32, before it is rounded to its final dtype."""

_BUFFER_BYTES = 16 << 20
DTYPES = {"F64": torch.float64, "F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16}


@dataclass(slots=True)
class _Growing:
    """A tensor whose parts are still arriving."""

    tensor: Tensor
    num_missing: int


@dataclass(slots=True)
class Weights:
    """What was read: tensors by their canonical names, and the sha256 of each file."""

    tensors: dict[str, Tensor] = field(default_factory=dict)
    sha256: dict[Path, str] = field(default_factory=dict)


def read_weights(
    label: str,
    files: Sequence[Path],
    device: torch.device,
    dtype: torch.dtype,
    *,
    places: Places | None = None,
    edits: Mapping[str, Edit] | None = None,
) -> Weights:
    """Read every byte of ``files`` once. Without ``places`` each tensor keeps its name and shape.

    A tensor with an edit is put together in fp32, edited when it is whole, and then rounded. Raises ModelError for a
    file that is cut short, damaged, or without a tensor that has a place.
    """
    weights = Weights()
    reader = _FileReader(label, device)
    headers = {path: read_header(label, path) for path in files}
    if places is None:
        places = {entry.name: Place(entry.name, entry.shape) for header in headers.values() for entry in header.tensors}
    assembly = _Assembly(places, device, dtype, edits or {}, weights.tensors)
    for path, header in headers.items():
        before = digests.stamp(path)
        for entry, first_element, chunk in reader.chunks(path, header):
            assembly.add(entry, first_element, chunk)
        weights.sha256[path] = reader.sha256
        digests.confirm(label, path, reader.sha256, before)
    if assembly.growing or len(weights.tensors) < len({place.name for place in places.values()}):
        raise ModelError(f"{label} is incomplete: its files do not hold every tensor")
    return weights


class _Assembly:
    """Puts chunks of files' tensors into the rows of canonical tensors."""

    def __init__(
        self,
        places: Places,
        device: torch.device,
        dtype: torch.dtype,
        edits: Mapping[str, Edit],
        finished: dict[str, Tensor],
    ) -> None:
        self._places = places
        self._shapes = _whole_shapes(places)
        self._device = device
        self._dtype = dtype
        self._edits = edits
        self._finished = finished
        self.growing: dict[str, _Growing] = {}

    def add(self, entry: TensorEntry, first_element: int, chunk: Tensor) -> None:
        """Copy a chunk of one tensor of a file; ``first_element`` counts from the tensor's first."""
        if entry.name not in self._places:
            assert is_ignored(entry.name), entry.name
            return
        place = self._places[entry.name]
        growing = self.growing.get(place.name) or self._begin(place.name)
        row_elements = growing.tensor[0].numel() if growing.tensor.dim() else 1
        start = place.first_row * row_elements + first_element
        growing.tensor.view(-1)[start : start + len(chunk)].copy_(chunk)
        growing.num_missing -= len(chunk)
        if not growing.num_missing:
            self._finish(place.name)

    def _begin(self, name: str) -> _Growing:
        dtype = torch.float32 if name in self._edits else self._dtype
        tensor = torch.empty(self._shapes[name], dtype=dtype, device=self._device)
        return self.growing.setdefault(name, _Growing(tensor, tensor.numel()))

    def _finish(self, name: str) -> None:
        tensor = self.growing.pop(name).tensor
        if name in self._edits:
            self._edits[name](tensor)
            tensor = tensor.to(self._dtype)
        self._finished[name] = tensor


def _whole_shapes(places: Places) -> dict[str, Shape]:
    shapes: dict[str, Shape] = {}
    for place in places.values():
        rows = max(place.first_row + place.shape[0], shapes.get(place.name, (0,))[0]) if place.shape else None
        shapes[place.name] = () if rows is None else (rows, *place.shape[1:])
    return shapes


class _FileReader:
    """Reads files in the order of their bytes. While one buffer is copied, a thread hashes it and the next is read."""

    def __init__(self, label: str, device: torch.device) -> None:
        self._label = label
        pinned = device.type == "cuda"
        self._buffers = [torch.empty(_BUFFER_BYTES, dtype=torch.uint8, pin_memory=pinned) for _ in range(2)]
        self.sha256 = ""

    def chunks(self, path: Path, header: Header) -> Iterator[tuple[TensorEntry, int, Tensor]]:
        """(tensor, first element, elements) over all of a file; ``sha256`` is that of its bytes once it is through.

        A chunk is overwritten two chunks later.
        """
        digest = hashlib.sha256(header.raw)
        hashed: Future[None] | None = None
        with path.open("rb", buffering=0) as file, ThreadPoolExecutor(1) as hasher:
            if file.read(len(header.raw)) != header.raw:
                raise ModelError(f"{self._label}: {short(path)} changed while it was read")
            for i, (entry, first, num_elements) in enumerate(_split(header)):
                chunk = self._buffers[i % 2][: num_elements * DTYPES[entry.dtype].itemsize]
                data = chunk.numpy().data
                self._fill(path, file, data)
                if hashed:
                    hashed.result()
                hashed = hasher.submit(digest.update, data)
                yield entry, first, chunk.view(DTYPES[entry.dtype])
        self.sha256 = digest.hexdigest()

    def _fill(self, path: Path, file: FileIO, data: memoryview) -> None:
        try:
            while data and (num_read := file.readinto(data)):
                data = data[num_read:]
        except OSError as error:
            raise ModelError(f"{self._label}: {short(path)} can't be read ({first_line(error)})") from None
        if data:
            raise ModelError(f"{self._label}: {short(path)} was cut short while it was read")


def _split(header: Header) -> Iterator[tuple[TensorEntry, int, int]]:
    """(tensor, first element, number of elements) of pieces that fit a buffer."""
    for entry in header.tensors:
        size = _BUFFER_BYTES // DTYPES[entry.dtype].itemsize
        for first in range(0, entry.num_elements, size):
            yield entry, first, min(size, entry.num_elements - first)
