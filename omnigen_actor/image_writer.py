"""An image that was generated -> a file in the store, and the columns of its record. Knows one row at a time."""

from __future__ import annotations

import hashlib
import sys
import time
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from omnigen_actor import images, provenance, store, uri
from omnigen_actor.errors import ErrorKind, RowError, Stage
from omnigen_actor.schema import Status
from omnigen_actor.types import Result

_MAX_MESSAGE = 500


class ImageWriter:
    """Encodes and commits images, in any thread. A store that takes none is tried again for ``timeout_s`` seconds.

    ``embeds``: whether each file says how it was made.
    """

    def __init__(self, store_root: str, image_format: str, timeout_s: float, *, embeds: bool = True) -> None:
        self._store_root, self._image_format, self._timeout_s = store_root, image_format, timeout_s
        self._embeds = embeds

    def __call__(self, result: Result, record: Mapping[str, Any]) -> dict[str, Any]:
        """Commit one image; the columns that tell of it. ``record``: what is known of its row by now.

        Raises RowError (stage write), and UriFailed where the store takes nothing else either.
        """
        started = time.perf_counter()
        try:
            data = images.encode(result.image, self._image_format, self._facts(result, record))
            key = store.image_key(result.request.id, result.request.sample, images.EXTENSIONS[self._image_format])
            self._commit(uri.join(self._store_root, key), data)
        except (RowError, uri.UriFailed):
            raise
        except Exception as error:
            raise RowError(ErrorKind.WRITE_FAILED, Stage.WRITE, describe(error)) from error
        return {
            "status": Status.OK,
            "width": result.image.width,
            "height": result.image.height,
            "output_key": key,
            "format": self._image_format,
            "num_bytes": len(data),
            "sha256": hashlib.sha256(data).hexdigest(),
            "num_tokens": result.num_tokens,
            "generate_seconds": result.seconds,
            "write_seconds": time.perf_counter() - started,
            "finished_at": datetime.now(UTC),
        }

    def _facts(self, result: Result, record: Mapping[str, Any]) -> provenance.Facts | None:
        if not self._embeds:
            return None
        return provenance.facts({**record, "width": result.image.width, "height": result.image.height})

    def _commit(self, place: str, data: bytes) -> None:
        """Write an image. Raises UriFailed where the store is at fault, else RowError."""
        try:
            uri.write_bytes(place, data, timeout_s=self._timeout_s, retries=sys.maxsize)
        except uri.UriFailed as error:
            if store.takes(self._store_root, data):
                raise RowError(ErrorKind.WRITE_FAILED, Stage.WRITE, describe(error)) from error
            raise  # each further row would cost its image, too


def describe(error: Exception) -> str:
    """Type and message, on one line of bounded length."""
    return " ".join(f"{type(error).__name__}: {error}".split())[:_MAX_MESSAGE]
