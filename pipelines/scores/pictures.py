"""The pictures that scorers look at: read, compared with their records, decoded. Knows no Ray and no scorers.

A picture that can't be had is a message in its row, never an error of the run.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from omnigen_actor import images, uri
from omnigen_actor.allowed import Allowed
from omnigen_actor.errors import RowError
from pipelines.config import InputConfig
from pipelines.scores.scorer import Picture

_STRINGS = pa.list_(pa.string())
_IMAGE = [
    pa.field("id", pa.string(), nullable=False),
    pa.field("sample", pa.int32(), nullable=False),
    pa.field("sha256", pa.string(), nullable=False),
    pa.field("task", pa.string()),
    pa.field("prompt", pa.string()),
    pa.field("instruction", pa.string()),
    pa.field("scorers", _STRINGS, nullable=False),  # names of those that are to score it
]

PLANNED = pa.schema(
    [
        *_IMAGE,
        pa.field("depth", pa.int32(), nullable=False),
        pa.field("output_key", pa.string(), nullable=False),
        pa.field("image_uris", _STRINGS, nullable=False),  # empty where no scorer looks at them
        pa.field("image_sha256", _STRINGS, nullable=False),
        pa.field("max_side", pa.int32(), nullable=False),
    ]
)
"""An image to score, and where it and its inputs are."""

LOADED = pa.schema(
    [
        *_IMAGE,
        pa.field("pixels", pa.list_(pa.large_binary()), nullable=False),  # RGB, row-major: the image, then its inputs
        pa.field("pixel_sizes", pa.list_(pa.int32()), nullable=False),  # width, height of each, flattened
        pa.field("image_error", pa.string()),
        pa.field("inputs_error", pa.string()),
    ]
)
"""An image to score with its pixels; or why it, or its inputs, can't be had."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Loaded:
    pixels: bytes = b""
    size: tuple[int, int] = (0, 0)
    sha256: str = ""
    error: str | None = None


@dataclass(frozen=True, slots=True)
class LoadPictures:
    """PLANNED in, LOADED out, one for one and in order. Pickles; the threads end with the call.

    ``allowed``: where input images may be. One that several rows name is read once.
    """

    config: InputConfig
    store_root: str
    allowed: Allowed

    def __call__(self, table: pa.Table) -> pa.Table:
        """Never raises for a picture."""
        rows: list[dict[str, Any]] = table.to_pylist()
        wanted = dict.fromkeys((one, row["max_side"]) for row in rows for one in row["image_uris"])
        with ThreadPoolExecutor(max(1, self.config.fetch_threads), thread_name_prefix="pictures") as pool:
            outputs = list(pool.map(lambda row: self._output(row["output_key"], row["sha256"]), rows))
            found = dict(zip(wanted, pool.map(lambda one: self._input(*one), wanted), strict=True))
        loaded = [
            _loaded_row(row, output, [found[one, row["max_side"]] for one in row["image_uris"]])
            for row, output in zip(rows, outputs, strict=True)
        ]
        return pa.Table.from_pylist(loaded, schema=LOADED)

    def _output(self, key: str, sha256: str) -> _Loaded:
        def read() -> _Loaded:
            data = self._read(uri.join(self.store_root, key), None)
            found = hashlib.sha256(data).hexdigest()
            if found != sha256:
                return _Loaded(error=f"{key}: its bytes are others than its record says (sha256 {found})")
            image = images.decode(data, max_pixels=self.config.max_image_pixels)
            return _Loaded(pixels=image.tobytes(), size=image.size, sha256=found)

        return _or_error(key, read)

    def _input(self, place: str, max_side: int) -> _Loaded:
        def read() -> _Loaded:
            data = self._read(place, self.allowed)
            image = images.fit(images.decode(data, max_pixels=self.config.max_image_pixels), max_side)
            return _Loaded(pixels=image.tobytes(), size=image.size, sha256=hashlib.sha256(data).hexdigest())

        return _or_error(f"input image {uri.redact(place)}", read)

    def _read(self, place: str, allowed: Allowed | None) -> bytes:
        return uri.read_bytes(
            place,
            max_bytes=self.config.max_image_bytes,
            timeout_s=self.config.fetch_timeout_s,
            retries=self.config.fetch_retries,
            allowed=allowed,
        )


def _or_error(name: str, read: Any) -> _Loaded:
    try:
        found: _Loaded = read()
    except (RowError, uri.Refused, uri.UriNotFound, uri.UriTooLarge, uri.UriFailed) as error:
        return _Loaded(error=f"{name}: {error}")
    except Exception as error:  # its text may hold a credential
        return _Loaded(error=f"{name}: unexpected {type(error).__name__}")
    return found


def _loaded_row(row: dict[str, Any], output: _Loaded, inputs: Sequence[_Loaded]) -> dict[str, Any]:
    inputs_error = _inputs_error(row, inputs)
    shown = [] if output.error else [output, *([] if inputs_error else inputs)]
    return {
        **{field.name: row[field.name] for field in _IMAGE},
        "pixels": [one.pixels for one in shown],
        "pixel_sizes": [side for one in shown for side in one.size],
        "image_error": output.error,
        "inputs_error": inputs_error,
    }


def _inputs_error(row: dict[str, Any], inputs: Sequence[_Loaded]) -> str | None:
    """Why the inputs can't be had. One whose bytes are others than those of the run is not what the model saw."""
    for place, one, sha256 in zip(row["image_uris"], inputs, row["image_sha256"], strict=False):
        if one.error:
            return one.error
        if one.sha256 != sha256:
            return f"input image {uri.redact(place)}: its bytes are others than when the image was made"
    return None


def to_picture(row: dict[str, Any], *, needs_inputs: bool) -> Picture:
    """A row of LOADED without an error, as scorers take it."""
    image, *inputs = images.from_pixels(row["pixels"], row["pixel_sizes"])
    return Picture(
        id=row["id"],
        sample=row["sample"],
        sha256=row["sha256"],
        task=row["task"] or "",
        prompt=row["prompt"] or "",
        instruction=row["instruction"] or "",
        image=image,
        inputs=tuple(inputs) if needs_inputs else (),
    )
