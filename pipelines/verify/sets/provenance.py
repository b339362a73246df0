"""The table beside training files that have no room for ids: its cells joined to rows by the output image.

The table lies in a file on this machine's disk and is mapped; in memory are 24 bytes for each row. Knows no images.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from hashlib import blake2b
from types import TracebackType

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from omnigen_actor import uri
from omnigen_actor.errors import first_line
from pipelines.export.staging import Staging
from pipelines.verify.findings import Finding, FindingKind
from pipelines.verify.sets.columns import texts
from pipelines.verify.sets.member import Fault, Member

_STRINGS = pa.list_(pa.string())
_TABLE = pa.schema(
    [
        ("output_image", pa.string()),
        ("id", pa.string()),
        ("sample", pa.int32()),
        ("task", pa.string()),
        ("output_sha256", pa.string()),
        ("input_sha256", _STRINGS),
        ("width", pa.int32()),
        ("height", pa.int32()),
    ]
)


class Provenance:
    """The tables of one export. ``prefix``: what the paths of the rows begin with, and those of the tables do not."""

    def __init__(self, root: str, files: Sequence[str], prefix: str) -> None:
        self.findings: list[Finding] = []
        self._prefix = prefix
        self._staging = Staging(_TABLE)
        keys: list[bytes] = []
        for file in files:
            for table in self._read(root, file):
                keys += [_digest(path) for path in table["output_image"].to_pylist()]
                self._staging.add(table)
        self._staging.end()
        found = np.array(keys, "S16")
        self._order = np.argsort(found, kind="stable")
        self._keys = found[self._order]

    def __enter__(self) -> Provenance:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._staging.__exit__(kind, error, trace)

    def join(self, members: Sequence[Member]) -> list[tuple[Member, Fault | None]]:
        """The rows with what the table says of them; a fault where it says nothing."""
        wanted = [_digest(self._path(one)) for one in members]
        if not len(self._keys) or not members:
            return [(one, None if self.findings else _missing()) for one in members]
        position = np.minimum(np.searchsorted(self._keys, np.array(wanted, "S16")), len(self._keys) - 1)
        is_found = (self._keys[position] == np.array(wanted, "S16")).tolist()
        cells = self._staging.take(self._order[position]).to_pylist()
        return [
            (_joined(one, row), None) if found else (one, None if self.findings else _missing())
            for one, row, found in zip(members, cells, is_found, strict=True)
        ]

    def _path(self, member: Member) -> str:
        name = member.output.name if member.output else ""
        return name.removeprefix(self._prefix)

    def _read(self, root: str, file: str) -> Iterator[pa.Table]:
        try:
            with uri.open_read(uri.join(root, file)) as stream:
                for batch in pq.ParquetFile(stream).iter_batches(columns=_TABLE.names):
                    yield pa.Table.from_batches([batch]).select(_TABLE.names).cast(_TABLE)
        except (OSError, ValueError, LookupError, pa.ArrowException) as error:
            self.findings.append(Finding(kind=FindingKind.FILE_UNREADABLE, key=file, message=first_line(error)))


def _joined(member: Member, cells: dict[str, object]) -> Member:
    own = texts(cells)
    return replace(member, id=own["id"], sample=own["sample"], told=own["told"])


def _missing() -> Fault:
    return Fault(FindingKind.MISMATCH, "the table in provenance/ has no row of its output")


def _digest(path: str | None) -> bytes:
    return blake2b((path or "").encode(errors="surrogateescape"), digest_size=16).digest()
