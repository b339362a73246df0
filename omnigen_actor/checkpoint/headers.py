"""The header of a safetensors file: which tensors lie where in it. Reads no weights; knows no model."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from omnigen_actor.checkpoint.reading import short
from omnigen_actor.errors import ModelError, first_line

ITEM_BYTES = {"F64": 8, "F32": 4, "F16": 2, "BF16": 2}
"""Bytes of one number of each dtype that weights may have."""

_MAX_HEADER_BYTES = 100_000_000


@dataclass(frozen=True, slots=True)
class TensorEntry:
    """One tensor of a file. ``num_bytes`` follow those of the entry before."""

    name: str
    dtype: str
    shape: tuple[int, ...]

    @property
    def num_elements(self) -> int:
        """How many numbers."""
        return math.prod(self.shape)

    @property
    def num_bytes(self) -> int:
        """How many bytes they take in the file."""
        return self.num_elements * ITEM_BYTES[self.dtype]


@dataclass(frozen=True, slots=True)
class Header:
    """The first bytes of a file as they are, and the tensors that follow without a gap, in the order of their bytes."""

    raw: bytes
    tensors: tuple[TensorEntry, ...]


def num_elements(label: str, files: Iterable[Path]) -> int:
    """How many numbers these files hold. Raises ModelError."""
    return sum(tensor.num_elements for path in files for tensor in read_header(label, path).tensors)


def check_whole(label: str, path: Path) -> None:
    """Reads the header alone, of tensors of any type. Raises ModelError for a file that is cut short or none."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, "numpy"):
            pass
    except SafetensorError as error:
        raise ModelError(f"{label}: {short(path)} is no whole safetensors file ({first_line(error)})") from None


def read_header(label: str, path: Path) -> Header:
    """The header of one file. Raises ModelError unless the file is whole and holds plain weights."""
    try:
        size = path.stat().st_size
        with path.open("rb") as file:
            raw = _read_raw(label, path, file, size)
        tensors = _parse(label, path, dict(json.loads(raw[8:])))
    except FileNotFoundError:
        raise ModelError(f"{label} is incomplete: {short(path)} is missing") from None
    except (OSError, ValueError, KeyError, TypeError) as error:
        if isinstance(error, ModelError):
            raise
        raise ModelError(f"{label}: {short(path)} is not a safetensors file ({error})") from None
    expected = len(raw) + sum(tensor.num_bytes for tensor in tensors)
    if size != expected:
        raise ModelError(f"{label}: {short(path)} has {size} bytes, its header tells of {expected}")
    return Header(raw, tensors)


def _read_raw(label: str, path: Path, file: BinaryIO, size: int) -> bytes:
    length = file.read(8)
    end = 8 + int.from_bytes(length, "little")
    if len(length) < 8 or not 8 < end <= min(size, _MAX_HEADER_BYTES):
        raise ModelError(f"{label}: {short(path)} is corrupt or cut short ({size} bytes)")
    return length + file.read(end - 8)


def _parse(label: str, path: Path, content: dict[str, Any]) -> tuple[TensorEntry, ...]:
    found, end = [], 0
    entries = [(name, entry) for name, entry in content.items() if name != "__metadata__"]
    for name, entry in sorted(entries, key=lambda item: tuple(item[1]["data_offsets"])):
        if entry["dtype"] not in ITEM_BYTES:
            raise ModelError(
                f"{label}: tensor {name} in {short(path)} has dtype {entry['dtype']}; known: {', '.join(ITEM_BYTES)}"
            )
        tensor = TensorEntry(name, entry["dtype"], tuple(entry["shape"]))
        if entry["data_offsets"] != [end, end + tensor.num_bytes]:
            raise ModelError(f"{label}: {short(path)} is corrupt: the bytes of tensor {name} do not fit its shape")
        found.append(tensor)
        end += tensor.num_bytes
    return tuple(found)
