"""A table's bytes: opened, unpacked, and every failure said in one line. Knows no rows and no columns."""

from __future__ import annotations

import gzip
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from typing import BinaryIO, cast

import pyarrow as pa

from omnigen_actor import uri
from omnigen_actor.errors import ManifestError, first_line

ROWS_PER_BATCH = 4096


@contextmanager
def reading(source_uri: str) -> Iterator[None]:
    """Turn what reading a file may raise into a ManifestError that names it, without its secrets."""
    name = uri.redact(source_uri)
    try:
        yield
    except ManifestError:
        raise
    except FileNotFoundError:
        raise ManifestError(f"{name}: no such file or folder") from None
    except (OSError, EOFError, zlib.error, pa.ArrowException) as error:
        reason = first_line(error)
        raise ManifestError(f"{name}: can't be read: {reason}") from None


@contextmanager
def open_bytes(source_uri: str) -> Iterator[BinaryIO]:
    """A binary stream, unpacked where the name ends in .gz."""
    with uri.open_read(source_uri) as packed:
        if not file_name(source_uri).endswith(".gz"):
            yield packed
            return
        with gzip.open(packed) as unpacked:
            yield cast("BinaryIO", unpacked)


def file_name(source_uri: str) -> str:
    """The last part of the path in lower case, without a query."""
    return uri.redact(source_uri).rstrip("/").rpartition("/")[2].lower()
