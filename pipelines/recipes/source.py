"""The source of a recipe as rows: a table of captions and images, or a folder of images. Knows no recipes."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import count
from pathlib import PurePosixPath

import pyarrow as pa

from omnigen_actor import schema, uri
from omnigen_actor.errors import ManifestError
from pipelines import values
from pipelines.locations import locate
from pipelines.recipes.filling import SourceRow
from pipelines.recipes.templates import is_blank
from pipelines.source import reading
from pipelines.table import Table, is_table_file, open_table

IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".avif", ".bmp", ".gif", ".tif", ".tiff", ".ppm")
MAX_CAPTION_BYTES = 2**16


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """``columns``: what its rows may bring. ``left_out``: columns that no manifest can hold, such as embedded images.

    ``base_folder`` is where its relative references start. ``rows`` reads it from the start at every call.
    """

    uri: str
    base_folder: str
    columns: tuple[str, ...]
    left_out: tuple[str, ...]
    rows: Callable[[], Iterator[SourceRow]]


def open_source(source_uri: str) -> Source:
    """Open a table as a manifest may be one, or a folder of images: a row each, with ``id``, its name without the
    ending, ``image``, and ``caption`` where a .txt of the same name lies beside it. Raises ManifestError.
    """
    location = locate(source_uri, ManifestError)
    with reading(location):
        names = [] if is_table_file(location) else _images_below(location)
    return _of_images(location, names) if names else _of_table(open_table(location))


# --- a table ---


def _of_table(table: Table) -> Source:
    fields = [field for field in table.schema if field.name != schema.LINE_ERROR.name]
    kept = tuple(field.name for field in fields if _is_plain(field.type))
    return Source(
        uri=table.uri,
        base_folder=table.base_folder,
        columns=kept,
        left_out=tuple(field.name for field in fields if field.name not in kept),
        rows=lambda: _table_rows(table, kept),
    )


def _is_plain(kind: pa.DataType) -> bool:
    """Whether JSON can hold its values."""
    types = pa.types
    if types.is_list(kind) or types.is_large_list(kind):
        return _is_plain(kind.value_type)
    tests = (types.is_string, types.is_large_string, types.is_integer, types.is_floating, types.is_boolean)
    return any(test(kind) for test in (*tests, types.is_temporal, types.is_null))


def _table_rows(table: Table, kept: tuple[str, ...]) -> Iterator[SourceRow]:
    numbers = count(1)
    for batch in table.batches():
        columns = [values.read_column(batch, batch.schema.get_field_index(name)) for name in kept]
        faults = _faults(batch)
        for index in range(batch.num_rows):
            cells = {name: column[index] for name, column in zip(kept, columns, strict=True)}
            yield _row(next(numbers), cells, faults[index])


def _faults(batch: pa.Table) -> list[str]:
    name = schema.LINE_ERROR.name
    if name not in batch.column_names:
        return [""] * batch.num_rows
    return [error["message"] if error else "" for error in batch.column(name).to_pylist()]


def _row(number: int, cells: dict[str, object], fault: str) -> SourceRow:
    said = {name: _as_json(cell) for name, cell in cells.items() if not _says_nothing(cell)}
    unreadable = next((name for name, cell in cells.items() if isinstance(cell, values.Unreadable)), None)
    if unreadable:
        fault = fault or f"its {unreadable} can't be read"
    own = said.pop("id", None)
    row_id = str(own).strip() if own is not None else f"line-{number}" if fault else _content_id(said)
    return SourceRow(number=number, id=row_id, cells=said, fault=fault)


def _says_nothing(cell: object) -> bool:
    return is_blank(cell) or (isinstance(cell, float) and not math.isfinite(cell))


def _as_json(cell: object) -> object:
    return cell if isinstance(cell, str | int | float | bool | list | dict) else str(cell)


def _content_id(cells: dict[str, object]) -> str:
    """An id for a row without one, that does not hang on its place."""
    content = json.dumps(cells, ensure_ascii=False, sort_keys=True, default=str)
    return hashlib.sha256(content.encode(errors="surrogatepass")).hexdigest()[:16]


# --- a folder of images ---


def _images_below(folder: str) -> list[str]:
    """The images below a folder that holds no table, named from there."""
    names = [name.removeprefix(uri.join(folder, "x")[:-1]) for name in uri.list_files(folder)]
    if any(name.endswith(".parquet") for name in names):
        return []
    return [name for name in names if name.lower().endswith((*IMAGE_SUFFIXES, ".txt"))]


def _of_images(folder: str, names: list[str]) -> Source:
    captions = {name for name in names if name.lower().endswith(".txt")}
    images = [name for name in names if name not in captions]
    if not images:
        raise ManifestError(f"{uri.redact(folder)}: holds neither images nor .parquet files")
    columns = ("image", "caption") if any(_caption_of(name) in captions for name in images) else ("image",)

    def rows() -> Iterator[SourceRow]:
        for number, name in enumerate(images, 1):
            cells: dict[str, object] = {"image": name}
            if _caption_of(name) in captions:
                cells["caption"] = _read_caption(uri.join(folder, _caption_of(name)))
            yield SourceRow(number=number, id=str(PurePosixPath(name).with_suffix("")), cells=cells)

    return Source(uri=folder, base_folder=folder, columns=columns, left_out=(), rows=rows)


def _caption_of(name: str) -> str:
    return str(PurePosixPath(name).with_suffix(".txt"))


def _read_caption(location: str) -> str:
    with reading(location):
        try:
            return uri.read_bytes(location, max_bytes=MAX_CAPTION_BYTES).decode().strip()
        except ValueError as error:
            raise ManifestError(f"{uri.redact(location)}: is no caption: {error}") from None
