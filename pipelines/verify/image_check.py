"""One image against its record: is it there, is it whole, does it decode. Knows no other rows and mends nothing."""

from __future__ import annotations

import hashlib
import io
from dataclasses import dataclass
from typing import Any, NamedTuple

from PIL import Image

from omnigen_actor import store, uri
from omnigen_actor.errors import first_line
from omnigen_actor.images import EXTENSIONS
from pipelines.verify.findings import FindingKind

_FORMATS = [name.upper() for name in EXTENSIONS]


class Fault(NamedTuple):
    """What is wrong with an image. Not ``is_certain``: it may be whole, and could not be read."""

    kind: FindingKind
    message: str
    is_certain: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageCheck:
    """Compares images with their records. With neither ``has_hash`` nor ``has_decode`` no image is read."""

    store_root: str
    has_hash: bool = True
    has_decode: bool = True

    def __call__(self, record: dict[str, Any], listed_bytes: int | None) -> Fault | None:
        """``record``: of status ok. ``listed_bytes``: the size of its image where the listing has told it."""
        if fault := _bad_key(record):
            return fault
        place = uri.join(self.store_root, record["output_key"])
        is_read = self.has_hash or self.has_decode
        try:
            if listed_bytes != record["num_bytes"] and not (is_read and listed_bytes is None):
                listed_bytes = _size_bytes(place)  # what was listed may have been overwritten since
                if listed_bytes != record["num_bytes"]:
                    return _wrong_bytes(record, f"{listed_bytes}")
            return self._compare(record, place) if is_read else None
        except uri.UriNotFound:
            return Fault(FindingKind.IMAGE_MISSING, "its record is ok, and there is no such file")
        except OSError as error:
            return Fault(FindingKind.IMAGE_UNREADABLE, first_line(error), is_certain=False)

    def _compare(self, record: dict[str, Any], place: str) -> Fault | None:
        try:  # no more than the record speaks of: whatever lies there, it fits into memory
            data = uri.read_bytes(place, max_bytes=record["num_bytes"])
        except uri.UriTooLarge:
            return _wrong_bytes(record, "more")
        if len(data) != record["num_bytes"]:
            return _wrong_bytes(record, f"{len(data)}")
        if self.has_hash and hashlib.sha256(data).hexdigest() != record["sha256"]:
            return Fault(FindingKind.IMAGE_SHA256, f"its sha256 is not the {record['sha256']} of its record")
        return _decode(record, data) if self.has_decode else None


def _bad_key(record: dict[str, Any]) -> Fault | None:
    """Of a store's layout: each row has one place for its image, and none is outside."""
    key = record["output_key"]
    if key not in image_keys(record):
        return Fault(
            FindingKind.BAD_KEY, f"record of {record['id']}#{record['sample']}: {key!r} is not its image's key"
        )
    if record["num_bytes"] is None or record["num_bytes"] < 0:
        return _wrong_bytes(record, "not so many")
    return None


def image_keys(record: dict[str, Any]) -> list[str]:
    """Where the image of a row may be, by its format."""
    return [store.image_key(record["id"], record["sample"], extension) for extension in EXTENSIONS.values()]


def _size_bytes(place: str) -> int:
    with uri.open_read(place) as stream:
        return stream.seek(0, io.SEEK_END)


def _wrong_bytes(record: dict[str, Any], found: str) -> Fault:
    return Fault(FindingKind.IMAGE_BYTES, f"its record says {record['num_bytes']} bytes, and it has {found}")


def _decode(record: dict[str, Any], data: bytes) -> Fault | None:
    size = (record["width"], record["height"])
    try:
        # Without the lock of `omnigen_actor.images`: these are files of ours, in three formats, and many.
        with Image.open(io.BytesIO(data), formats=_FORMATS) as image:
            if image.size != size:
                found = f"{image.size[0]}x{image.size[1]}"
                return Fault(FindingKind.IMAGE_SIZE, f"its record says {size[0]}x{size[1]} pixels, and it has {found}")
            image.load()
    except Exception as error:  # a damaged file raises nearly anything
        return Fault(FindingKind.IMAGE_UNDECODABLE, f"it can't be decoded: {first_line(error)}")
    return None
