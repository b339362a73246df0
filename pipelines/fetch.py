"""The CPU stage: PLAN rows in, FETCHED rows out, one for one and in order. Knows no Ray and no engine.

A row whose images can't be had keeps its place and carries the error; a row that has an error already passes through.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Any

import pyarrow as pa

from omnigen_actor import images, uri
from omnigen_actor.allowed import Allowed
from omnigen_actor.errors import ErrorKind, RowError, Stage
from omnigen_actor.schema import FETCHED, PLAN, table_from_rows
from pipelines.config import InputConfig


@dataclass(frozen=True, slots=True, kw_only=True)
class Loaded:
    """One input image, fitted: raw RGB bytes (row-major), its size in pixels, the sha256 of its file; or the error."""

    pixels: bytes = b""
    size: tuple[int, int] = (0, 0)
    sha256: str = ""
    error: RowError | None = None
    seconds: float = 0.0


@dataclass(frozen=True, slots=True)
class FetchImages:
    """Reads, checks and fits the input images of a table of PLAN rows. Pickles; a table's threads end with its call.

    ``allowed`` is what rows may name, in the way that a file or a connection shows it; None: anything.
    An image named more than once in a table is read and decoded once. Memory beside the result: one picture at the
    pixel limit, and one file at the byte limit for each thread.
    """

    config: InputConfig
    max_side: int
    allowed: Allowed | None = None

    def __call__(self, table: pa.Table) -> pa.Table:
        """The same rows with the columns of FETCHED; the user's columns stay as they are."""
        rows: list[dict[str, Any]] = table.select(PLAN.names).to_pylist()
        loaded = self._load_all(image_uri for row in rows if not row["error_kind"] for image_uri in row["image_uris"])
        return table_from_rows([{**row, **_outcome(row, loaded)} for row in rows], FETCHED, table)

    def _load_all(self, image_uris: Iterable[str]) -> dict[str, Loaded]:
        distinct = list(dict.fromkeys(image_uris))
        with ThreadPoolExecutor(max(1, self.config.fetch_threads), thread_name_prefix="fetch") as pool:
            return dict(zip(distinct, pool.map(self._load, distinct), strict=True))

    def _load(self, image_uri: str) -> Loaded:
        started = time.perf_counter()
        try:
            loaded = self._read(image_uri)
        except Exception as error:  # whatever it is, it is the error of the rows that name this image
            loaded = Loaded(error=_row_error(str(image_uri), error))
        return replace(loaded, seconds=time.perf_counter() - started)

    def _read(self, image_uri: str) -> Loaded:
        data = uri.read_bytes(
            image_uri,
            max_bytes=self.config.max_image_bytes,
            timeout_s=self.config.fetch_timeout_s,
            retries=self.config.fetch_retries,
            allowed=self.allowed,
        )
        image = images.fit(images.decode(data, max_pixels=self.config.max_image_pixels), self.max_side)
        return Loaded(pixels=image.tobytes(), size=image.size, sha256=hashlib.sha256(data).hexdigest())


def _outcome(row: dict[str, Any], loaded: dict[str, Loaded]) -> dict[str, Any]:
    """The columns that fetching adds to a row, and its error if it has one now.

    ``fetch_seconds`` is the time of the row's own images; that of an image which rows share counts in each of them.
    """
    parts = [] if row["error_kind"] else [loaded[image_uri] for image_uri in row["image_uris"]]
    error = next((part.error for part in parts if part.error), None)
    seconds = sum((part.seconds for part in parts), 0.0)
    return {**_columns([] if error else parts), **_error_columns(error), "fetch_seconds": seconds}


def _columns(parts: list[Loaded]) -> dict[str, Any]:
    return {
        "image_sha256": [part.sha256 for part in parts],
        "pixels": [part.pixels for part in parts],
        "pixel_sizes": [side for part in parts for side in part.size],
    }


def _error_columns(error: RowError | None) -> dict[str, Any]:
    if error is None:
        return {}
    return {"error_kind": error.kind.value, "error_stage": error.stage.value, "error": error.message}


def _row_error(image_uri: str, error: Exception) -> RowError:
    """What went wrong with one image; the message names the image without its credentials."""
    name = uri.redact(image_uri)
    match error:
        case RowError():
            return RowError(error.kind, error.stage, f"{name}: {error.message}")
        case uri.Refused():
            return RowError(ErrorKind.REFUSED, Stage.FETCH, f"{name}: {error}")
        case uri.UriNotFound():
            return RowError(ErrorKind.NOT_FOUND, Stage.FETCH, _naming(name, error))
        case uri.UriTooLarge():
            return RowError(ErrorKind.IMAGE_TOO_LARGE, Stage.FETCH, _naming(name, error))
        case uri.UriFailed():
            return RowError(ErrorKind.FETCH_FAILED, Stage.FETCH, _naming(name, error))
        case _:  # its text may hold a credential
            return RowError(ErrorKind.FETCH_FAILED, Stage.FETCH, f"{name}: unexpected {type(error).__name__}")


def _naming(name: str, error: Exception) -> str:
    return str(error) if name in str(error) else f"{name}: {error}"
