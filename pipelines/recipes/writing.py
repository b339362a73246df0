"""Rows into a JSON-lines manifest, all of them or no file. Knows no recipes."""

from __future__ import annotations

import gzip
import json
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO, cast

from omnigen_actor import uri
from omnigen_actor.errors import ManifestError, OutputError
from pipelines.locations import locate
from pipelines.sweeps import Cells

SUFFIXES = (".jsonl", ".jsonl.gz")


def manifest_location(manifest_uri: str) -> str:
    """Where a manifest is to be written, absolute. Raises OutputError for a name that is not JSON lines."""
    location = locate(manifest_uri, OutputError, "manifest ")
    if not uri.redact(location).endswith(SUFFIXES):
        raise OutputError(f"manifest {uri.redact(location)}: its name must end in {' or '.join(SUFFIXES)}")
    return location


def write_jsonl(location: str, rows: Iterable[Cells]) -> None:
    """Write the rows, through a temporary file of this machine. The same rows give the same bytes.

    Where ``rows`` raises, nothing is written. Raises ManifestError where there are none, and OutputError.
    """
    with tempfile.TemporaryDirectory(prefix="omnigen-batch-expand-") as folder:
        path = Path(folder) / "manifest"
        with _opened(path, packed=location.endswith(".gz")) as stream:
            num_bytes = sum(stream.write(_line(row)) for row in rows)
        if not num_bytes:
            raise ManifestError("no source row makes a row of the manifest, so none is written")
        try:
            uri.write_file(location, path)
        except OSError as error:
            raise OutputError(f"the manifest can't be written: {error}") from None


def _line(row: Cells) -> bytes:
    return json.dumps(row, ensure_ascii=False).encode(errors="surrogatepass") + b"\n"


@contextmanager
def _opened(path: Path, *, packed: bool) -> Iterator[BinaryIO]:
    with path.open("wb") as file:
        if not packed:
            yield file
            return
        # No name and no time inside: the same rows, the same bytes.
        with gzip.GzipFile(filename="", mode="wb", fileobj=file, mtime=0) as stream:
            yield cast("BinaryIO", stream)
