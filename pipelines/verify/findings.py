"""What a check finds: kind, key, message, and what mends it. Knows no stores and no records."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

import pyarrow as pa


class FindingKind(StrEnum):
    """What is wrong. A closed list: users group by it."""

    RECORDS_UNREADABLE = "records_unreadable"
    RECORD_DOUBLED = "record_doubled"
    BAD_KEY = "bad_key"
    IMAGE_MISSING = "image_missing"
    IMAGE_UNREADABLE = "image_unreadable"
    IMAGE_BYTES = "image_bytes"
    IMAGE_SHA256 = "image_sha256"
    IMAGE_UNDECODABLE = "image_undecodable"
    IMAGE_SIZE = "image_size"
    ORPHAN_IMAGE = "orphan_image"
    FOREIGN_FILE = "foreign_file"
    TEMPORARY = "temporary"
    LEFTOVER = "leftover"
    RUN_INFO = "run_info"
    UNKNOWN_RUN = "unknown_run"
    SUMMARY = "summary"


@dataclass(frozen=True, slots=True, kw_only=True)
class Remove:
    """Remove the file at the finding's key, or the folder where the key ends in a slash."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Supersede:
    """Write a record with the next attempt: that the image is lost, or, not ``is_lost``, the same once more.

    ``record`` is the current record: a table of one row with all its columns.
    """

    record: pa.Table
    is_lost: bool


Mend = Remove | Supersede


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One thing that is wrong. ``key``: the file inside the store. ``mend``: what mends it; None: nothing safe does."""

    kind: FindingKind
    key: str
    message: str
    mend: Mend | None = None

    @property
    def is_safe(self) -> bool:
        """Whether it can be mended without losing anything."""
        return self.mend is not None
