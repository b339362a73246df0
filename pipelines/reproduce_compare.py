"""What a row that is made again says of the image and the record in a store. Knows one row at a time, and no engine."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Any

import numpy as np
from PIL import Image

from omnigen_actor import images, provenance, store, uri
from omnigen_actor.errors import RowError, first_line
from omnigen_actor.images import EXTENSIONS

Record = Mapping[str, Any]


class Verdict(StrEnum):
    """What came of one row."""

    IDENTICAL = "identical"
    SAME_PIXELS = "same pixels"
    DIFFERS = "differs"
    IMAGE_TAMPERED = "image tampered"
    IMAGE_MISSING = "image missing"
    RECORD_TAMPERED = "record tampered"
    INPUT_CHANGED = "input changed"
    INPUT_MISSING = "input missing"
    MODEL_CHANGED = "model changed"
    MODEL_MISSING = "model missing"
    RUN_UNKNOWN = "run unknown"
    FAILED = "failed"


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """The verdict on one row. ``psnr_db`` is for rows that differ; ``made_sha256`` is of the file that was made."""

    id: str
    sample: int
    verdict: Verdict
    message: str = ""
    psnr_db: float | None = None
    sha256: str | None = None
    made_sha256: str | None = None
    device: str | None = None
    made_on: str | None = None

    @property
    def is_good(self) -> bool:
        """The same file, or the same pixels although they were made on another kind of device."""
        if self.verdict is Verdict.SAME_PIXELS:
            return self.device != self.made_on
        return self.verdict is Verdict.IDENTICAL


def finding(record: Record, verdict: Verdict, message: str = "") -> Finding:
    """A verdict on the row of a record."""
    return Finding(
        id=record["id"],
        sample=record["sample"],
        verdict=verdict,
        message=message,
        sha256=record["sha256"],
        device=record["device"],
    )


@dataclass(frozen=True, slots=True)
class Stored:
    """A row's image as the store has it now. ``fault``: why it can't be what its record speaks of.

    ``facts``: what the file says of itself, None where it says nothing.
    """

    data: bytes = b""
    facts: provenance.Facts | None = None
    fault: Finding | None = None


def read_stored(store_root: str, record: Record) -> Stored:
    """Raises UriFailed for an image that can't be read this time."""
    key = store.image_key(record["id"], record["sample"], EXTENSIONS.get(record["format"], ""))
    if record["output_key"] != key:  # each row has one place in a store, and none is outside
        message = f"output_key={record['output_key']!r}: the image of this row is {key!r}"
        return Stored(fault=finding(record, Verdict.RECORD_TAMPERED, message))
    try:
        data = uri.read_bytes(uri.join(store_root, key), max_bytes=record["num_bytes"] or 0)
    except uri.UriNotFound:
        return Stored(fault=finding(record, Verdict.IMAGE_MISSING, f"there is no {key}"))
    except uri.UriTooLarge:
        return Stored(fault=_tampered(record, f"{key} has more than the {record['num_bytes']} bytes of its record"))
    if _sha256(data) != record["sha256"]:
        return Stored(fault=_tampered(record, f"the sha256 of {key} is not that of its record"))
    facts = provenance.read_provenance(data)
    names = provenance.differences(facts, record) if facts else []
    if names:
        message = f"the image was made with other values of {', '.join(names)} than its record has"
        return Stored(data, facts, finding(record, Verdict.RECORD_TAMPERED, message))
    return Stored(data, facts)


def encode_again(image: Image.Image, record: Record, stored: Stored, *, embeds: bool) -> bytes:
    """The file of an image that was made again, with what the file in the store says of itself, if that is known."""
    is_known = not stored.fault
    has_facts = stored.facts is not None if is_known else embeds
    software = str(stored.facts["software"]) if stored.facts and "software" in stored.facts else provenance.SOFTWARE
    sized = {**record, "width": image.width, "height": image.height}
    return images.encode(image, record["format"], provenance.facts(sized, software) if has_facts else None)


def compare(record: Record, stored: Stored, made: bytes, *, made_on: str, max_pixels: int) -> Finding:
    """The verdict on a row once its image was made again as the file ``made``, on the device ``made_on``."""
    made_sha256 = _sha256(made)
    found = stored.fault or _compare(record, stored.data, made, max_pixels)
    if stored.fault and made_sha256 == record["sha256"]:
        found = replace(found, message=f"{found.message}; made again, it is the file that the record speaks of")
    return replace(found, made_sha256=made_sha256, made_on=made_on)


def _compare(record: Record, data: bytes, made: bytes, max_pixels: int) -> Finding:
    if data == made:
        return finding(record, Verdict.IDENTICAL)
    try:
        before, now = (np.asarray(images.decode(one, max_pixels=max_pixels)) for one in (data, made))
    except RowError as error:
        return _tampered(record, f"it can't be decoded: {error.message}")
    if before.shape != now.shape:
        message = f"{before.shape[1]}x{before.shape[0]} in the store, {now.shape[1]}x{now.shape[0]} now"
        return finding(record, Verdict.DIFFERS, message)
    squared = float(np.square(before.astype(np.float32) - now).mean())
    if not squared:
        return finding(record, Verdict.SAME_PIXELS, "the files differ, as they do between versions of the encoder")
    psnr_db = 10 * math.log10(255.0**2 / squared)
    return replace(finding(record, Verdict.DIFFERS, f"{psnr_db:.1f} dB"), psnr_db=psnr_db)


def describe(error: Exception) -> str:
    """Type and first line of what an engine raised."""
    return f"{type(error).__name__}: {first_line(error)}"


def _tampered(record: Record, message: str) -> Finding:
    return finding(record, Verdict.IMAGE_TAMPERED, message)


def _sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()
