"""Parquet files with images in them, or with paths of images. Streams, some rows at a time; decodes nothing."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from omnigen_actor import uri
from omnigen_actor.errors import first_line
from pipelines.verify.findings import Finding, FindingKind
from pipelines.verify.sets.columns import CHOSEN, REJECTED, member, split_roles
from pipelines.verify.sets.member import Member, Picture, Read
from pipelines.verify.sets.source import RowsFile

_ROWS_AT_ONCE = 16
_ROWS_OF_PATHS_AT_ONCE = 1024
_DAMAGE = (OSError, ValueError, LookupError, pa.ArrowException)


def read_parquet(root: str, file: RowsFile, *, is_read: bool) -> Iterator[Read]:
    """The rows of a file, and what is wrong with it as a whole. Not ``is_read``: images in it are left alone."""
    number = 0
    try:
        with uri.open_read(uri.join(root, file.path)) as stream:
            table = pq.ParquetFile(stream)
            images = [field.name for field in table.schema_arrow if _is_image(field.type)]
            yield from _features(file, table.schema_arrow, images)
            columns = None if is_read else _without_bytes(table)
            size = _ROWS_AT_ONCE if images else _ROWS_OF_PATHS_AT_ONCE
            for batch in table.iter_batches(batch_size=size, columns=columns):
                for cells in batch.to_pylist():
                    number += 1
                    yield _member(file, number, cells, images)
    except _DAMAGE as error:
        message = f"after {number} rows: {first_line(error)}"
        yield Finding(kind=FindingKind.FILE_UNREADABLE, key=file.path, message=message)


def num_rows(root: str, file: RowsFile) -> int | None:
    """As its footer says; None where it can't be read."""
    try:
        with uri.open_read(uri.join(root, file.path)) as stream:
            found: int = pq.ParquetFile(stream).metadata.num_rows
            return found
    except _DAMAGE:
        return None


def _member(file: RowsFile, number: int, cells: dict[str, Any], images: list[str]) -> Member:
    known: dict[str, Any] = {"file": file.path, "number": number, "split": file.split, "style": file.style}
    if not images:
        base = file.folder if any(name.endswith(("file_name", "file_names")) for name in cells) else ""
        return member(cells, base=base, **known)
    chosen = CHOSEN if CHOSEN in cells and REJECTED in images else None
    inputs, output = split_roles([name for name in images if name in cells and name != chosen])
    pictures = {name: _pictures(name, cells.pop(name)) for name in (*inputs, *filter(None, [output, chosen]))}
    outputs, better = (pictures[name] if name else () for name in (output, chosen))
    return member(
        cells,
        inputs=tuple(one for name in inputs for one in pictures[name]),
        output=outputs[0] if outputs else None,
        chosen=better[0] if better else None,
        **known,
    )


def _pictures(name: str, cell: Any) -> tuple[Picture, ...]:
    """An image's cell: its bytes, or a struct of these and a path; or a list of such."""
    if cell is None:
        return ()
    if isinstance(cell, list):
        return tuple(one for item in cell for one in _pictures(name, item))
    if isinstance(cell, bytes):
        return (Picture(name=name, data=cell),)
    path = cell.get("path")
    if "bytes" in cell and cell["bytes"] is None:  # then the path is all that there is
        return (Picture(name=path or "", is_path=True),) if path else ()
    return (Picture(name=path or name, data=cell.get("bytes")),)


def _features(file: RowsFile, schema: pa.Schema, images: list[str]) -> Iterator[Finding]:
    """Whether ``datasets`` is told which columns are images."""
    if not images:
        return
    try:
        told = json.loads((schema.metadata or {})[b"huggingface"])["info"]["features"]
        missing = [name for name in images if '"Image"' not in json.dumps(told[name])]
    except (ValueError, LookupError, TypeError):
        missing = images
    if missing:
        message = f"its metadata `huggingface` does not say that {', '.join(missing)} are images: they load as bytes"
        yield Finding(kind=FindingKind.NO_FEATURES, key=file.path, message=message)


def _is_image(kind: pa.DataType) -> bool:
    if pa.types.is_list(kind) or pa.types.is_large_list(kind):
        return _is_image(kind.value_type)
    if pa.types.is_struct(kind):
        return kind.get_field_index("bytes") >= 0 and _is_binary(kind.field("bytes").type)
    return _is_binary(kind)


def _is_binary(kind: pa.DataType) -> bool:
    return bool(pa.types.is_binary(kind) or pa.types.is_large_binary(kind))


def _without_bytes(table: pq.ParquetFile) -> list[str]:
    """The leaves of all columns but those of bytes."""
    leaves = (table.schema.column(number) for number in range(len(table.schema)))
    return [leaf.path for leaf in leaves if not _is_bytes(leaf)]


def _is_bytes(leaf: Any) -> bool:
    is_plain = leaf.physical_type == "BYTE_ARRAY" and leaf.logical_type.type == "NONE"
    return bool(is_plain or leaf.path.endswith(".bytes"))
