"""What a check finds: kind, key, message, and what mends it. Knows no stores, no records and no data sets."""

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
    # of data sets alone, which have some of those above too
    UNFINISHED = "unfinished"
    MARKER = "marker"
    FILE_MISSING = "file_missing"
    FILE_BYTES = "file_bytes"
    FILE_SHA256 = "file_sha256"
    FILE_UNREADABLE = "file_unreadable"
    ROW_UNREADABLE = "row_unreadable"
    COUNT = "count"
    ABSOLUTE_PATH = "absolute_path"
    PATH_OUTSIDE = "path_outside"
    BAD_PATH = "bad_path"
    NO_OUTPUT = "no_output"
    NO_INSTRUCTION = "no_instruction"
    BAD_PLACEHOLDERS = "bad_placeholders"
    TOO_MANY_INPUTS = "too_many_inputs"
    MISMATCH = "mismatch"
    DUPLICATE_ID = "duplicate_id"
    OUTPUT_SHARED = "output_shared"
    IN_TWO_SPLITS = "in_two_splits"
    NEAR_DUPLICATE = "near_duplicate"
    KEYS_DIFFER = "keys_differ"
    FIRST_ROW_EMPTY = "first_row_empty"
    NO_FEATURES = "no_features"
    HALF_SAMPLE = "half_sample"
    SPLIT_SAMPLE = "split_sample"
    MIXED_ARITY = "mixed_arity"
    LOAD_FAILED = "load_failed"
    COPY_THROUGH = "copy_through"


STORE_KINDS = tuple(FindingKind)[: tuple(FindingKind).index(FindingKind.SUMMARY) + 1]
"""Those that a run store can have."""

WARNINGS = frozenset({FindingKind.COPY_THROUGH})
"""What may be meant so: it is told, and nothing is wrong because of it."""


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
    """One thing that is wrong. ``key``: the file inside the store or set; of a row ``file:number``, from 1 on.

    ``mend``: what mends it; None: nothing safe does."""

    kind: FindingKind
    key: str
    message: str
    mend: Mend | None = None

    @property
    def is_safe(self) -> bool:
        """Whether it can be mended without losing anything."""
        return self.mend is not None
