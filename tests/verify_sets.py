"""Data sets to check: exports of a small store in every format, and edits of them that keep the marker true or not."""

from __future__ import annotations

import hashlib
import io
import json
import shutil
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from pipelines.export.config import FORMATS

__all__ = ["FORMATS", "edit_lines", "lines", "rewrite_parquet", "rewrite_tar", "sealed", "write_lines"]

Members = list[tuple[str, bytes]]


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def write_lines(path: Path, rows: list[Any]) -> None:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


def edit_lines(path: Path, edit: Callable[[list[dict[str, Any]]], object]) -> None:
    rows = lines(path)
    edit(rows)
    write_lines(path, rows)


def rewrite_parquet(path: Path, edit: Callable[[list[dict[str, Any]]], object], *, keep_metadata: bool = True) -> None:
    """The same columns with other rows."""
    table = pq.read_table(path)
    rows = table.to_pylist()
    edit(rows)
    schema = table.schema if keep_metadata else table.schema.remove_metadata()
    pq.write_table(pa.Table.from_pylist(rows, schema=schema), path)


def rewrite_tar(path: Path, edit: Callable[[Members], object]) -> None:
    """The same tar with other members."""
    members: Members = []
    with tarfile.open(path) as tar:
        for header in tar:
            stream = tar.extractfile(header)
            assert stream is not None
            members.append((header.name, stream.read()))
    edit(members)
    with tarfile.open(path, "w", format=tarfile.USTAR_FORMAT) as tar:
        for name, data in members:
            header = tarfile.TarInfo(name)
            header.size = len(data)
            tar.addfile(header, io.BytesIO(data))


def sealed(root: Path) -> None:
    """Make export.json and the index say what is there now: whoever edits a set may do that too."""
    marker = json.loads((root / "export.json").read_text())
    if marker["images"]:
        table = root / marker["images"]["path"]
        there = [one for one in pq.read_table(table).to_pylist() if (root / one["path"]).exists()]
        rows = [{"path": one["path"], **_facts(root / one["path"])} for one in there]
        pq.write_table(pa.Table.from_pylist(rows, schema=pq.read_schema(table)), table)
    marker["files"] = [
        {"path": one["path"], **_facts(root / one["path"])} for one in marker["files"] if (root / one["path"]).exists()
    ]
    (root / "export.json").write_text(json.dumps(marker))


def _facts(path: Path) -> dict[str, Any]:
    data = path.read_bytes()
    return {"sha256": hashlib.sha256(data).hexdigest(), "num_bytes": len(data)}


def copied(source: Path, target: Path) -> Path:
    return Path(shutil.copytree(source, target))
