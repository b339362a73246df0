"""Files that are put together of the shards' parts, and tables of what is in an export. Streams; knows no formats."""

from __future__ import annotations

import hashlib
import io
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from itertools import chain
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from omnigen_actor import uri
from pipelines.export import tables
from pipelines.export.choosing import LeftOut
from pipelines.export.destination import Destination
from pipelines.export.format import Assembly, File

LEFT_OUT = pa.schema([("id", pa.string()), ("sample", pa.int32()), ("reason", pa.string()), ("message", pa.string())])
INDEX = pa.schema([("path", pa.string()), ("sha256", pa.string()), ("num_bytes", pa.int64())])
_MAX_BYTES = 2**32
_ROWS_AT_A_TIME = 65536

Entry = tuple[str, str, int]
"""A file of the export: path, sha256, bytes."""


def assemble(destination: Destination, assembly: Assembly) -> Entry:
    """Put a file together of its parts. Raises UriFailed."""
    parts = (uri.read_bytes(destination.at(part), max_bytes=_MAX_BYTES) for part in assembly.parts)
    with _local() as path:
        if assembly.path.endswith(".parquet"):
            _write_parquet(path, (pq.read_table(io.BytesIO(part)) for part in parts))
        else:
            with path.open("wb") as file:
                file.writelines(parts)
        return _moved(destination, assembly.path, path)


def write_left_out(destination: Destination, left_out: Sequence[LeftOut]) -> Entry:
    """The table of what was chosen and is not in the export, in the order of ids."""
    rows = [[one.id, one.sample, *one.refusal] for one in sorted(left_out, key=lambda one: (one.id, one.sample))]
    table = pa.Table.from_pylist([dict(zip(LEFT_OUT.names, row, strict=True)) for row in rows], schema=LEFT_OUT)
    return destination.write(File("left_out.parquet", tables.to_parquet([table], LEFT_OUT)))


def write_index(destination: Destination, entries: Iterable[Sequence[Any]]) -> tuple[Entry, int]:
    """The table of loose images, each once, and how many they are. Holds 16 bytes of a digest for each."""
    seen: set[bytes] = set()

    def pages() -> Iterator[pa.Table]:
        rows: list[dict[str, Any]] = []
        for entry in entries:
            key = hashlib.sha256(entry[0].encode()).digest()[:16]
            if key not in seen:
                seen.add(key)
                rows.append(dict(zip(INDEX.names, entry, strict=True)))
            if len(rows) >= _ROWS_AT_A_TIME:
                yield pa.Table.from_pylist(rows, schema=INDEX)
                rows.clear()
        yield pa.Table.from_pylist(rows, schema=INDEX)

    with _local() as path:
        _write_parquet(path, pages())
        return _moved(destination, "images.parquet", path), len(seen)


def _write_parquet(path: Path, pages: Iterator[pa.Table]) -> None:
    first = next(pages)
    with tables.open_writer(str(path), first.schema) as writer:
        for page in chain([first], pages):
            writer.write_table(page, row_group_size=max(1, page.num_rows))


@contextmanager
def _local() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="omnigen-batch-export-") as folder:
        yield Path(folder) / "whole"


def _moved(destination: Destination, name: str, path: Path) -> Entry:
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    uri.write_file(destination.at(name), path)
    return name, digest, path.stat().st_size
