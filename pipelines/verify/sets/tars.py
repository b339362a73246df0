"""WebDataset tars: members of one name, one after the other, are a row. Streams, a row at a time; decodes nothing.

A reader takes what is between two changes of the name for a row: members of one name that are apart are two halves. And
it takes the columns from the first rows: what later ones have beside them is dropped in silence.
"""

from __future__ import annotations

import json
import posixpath
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, BinaryIO

from omnigen_actor import uri
from omnigen_actor.errors import first_line
from pipelines.verify.findings import Finding, FindingKind
from pipelines.verify.sets.columns import member, split_roles
from pipelines.verify.sets.member import Fault, Member, Picture, Read
from pipelines.verify.sets.paths import fault_of
from pipelines.verify.sets.source import RowsFile

_IMAGES = ("png", "jpg", "jpeg", "webp", "gif", "bmp", "tif", "tiff", "avif", "ppm")
_TEXTS = ("txt", "text", "caption", "instruction", "prompt")
_MAX_TEXT_BYTES = 2**20
_BLOCK_BYTES = 512


@dataclass(slots=True)
class _Sample:
    """Members of one name. ``parts``: by extension their bytes, None of what is not read."""

    key: str
    parts: dict[str, bytes | None] = field(default_factory=dict)


def read_tar(root: str, file: RowsFile, max_bytes: int, *, is_read: bool) -> Iterator[Read]:
    """The rows of a tar. ``max_bytes``: the largest image; not ``is_read``: images are left alone."""
    first: frozenset[str] | None = None
    seen: set[str] = set()
    number = 0
    for found in _samples(root, file.path, max_bytes, is_read=is_read):
        if isinstance(found, Finding):
            yield found
            continue
        number += 1
        key = f"{file.path}:{number}"
        if found.key in seen:
            message = f"members of {found.key!r} are apart: readers take them for two rows"
            yield Finding(kind=FindingKind.SPLIT_SAMPLE, key=key, message=message)
            continue
        seen.add(found.key)
        first = first or frozenset(found.parts)
        yield from (Finding(kind=one.kind, key=key, message=one.message) for one in _compare(first, found))
        yield _member(file, number, found)


def check_archive(root: str, path: str) -> Iterator[Finding]:
    """Whether a tar of loose images is whole."""
    for found in _members(root, path):
        if isinstance(found, Finding):
            yield found


def _compare(first: frozenset[str], sample: _Sample) -> Iterator[Fault]:
    there = frozenset(sample.parts)
    if there == first:
        return
    images = [frozenset(name for name in names if _is_image(name)) for names in (first, there)]
    shown = f"{sample.key!r} has {sorted(there)}, and the first row of the tar {sorted(first)}"
    if (images[0] <= images[1] and first - there) or not images[1]:
        yield Fault(FindingKind.HALF_SAMPLE, f"{shown}: something is missing")
    elif images[0] != images[1]:
        yield Fault(FindingKind.MIXED_ARITY, f"{shown}: readers drop what the first rows have not")
    else:
        yield Fault(FindingKind.KEYS_DIFFER, shown)


def _member(file: RowsFile, number: int, sample: _Sample) -> Member:
    names = [name for name in sample.parts if _is_image(name)]
    roles = {name.rpartition(".")[0] or name: name for name in names}  # input1.png and output.png; or jpg alone
    inputs, output = split_roles(list(roles))
    cells = _cells(sample)
    cells.setdefault("id", sample.key)
    pictures = {role: Picture(name=f"{sample.key}.{name}", data=sample.parts[name]) for role, name in roles.items()}
    return member(
        cells,
        file=file.path,
        number=number,
        split=file.split,
        style=file.style,
        inputs=tuple(pictures[role] for role in inputs),
        output=pictures[output] if output else None,
    )


def _cells(sample: _Sample) -> dict[str, Any]:
    cells: dict[str, Any] = {}
    for name, data in sample.parts.items():
        if data is None or _is_image(name):
            continue
        kind = name.rpartition(".")[2]
        try:
            if kind == "json":
                found = json.loads(data)
                cells |= found if isinstance(found, dict) else {}
            elif kind in _TEXTS:
                role = name.rpartition(".")[0] or name
                cells["instruction" if role == "txt" else role] = data.decode()
        except (ValueError, RecursionError):
            continue  # without it the row has no instruction, which is found
    return cells


def _samples(root: str, path: str, max_bytes: int, *, is_read: bool) -> Iterator[_Sample | Finding]:
    """Neighbours of one name; the name ends at the first dot of the file's own."""
    sample: _Sample | None = None
    for found in _members(root, path):
        if isinstance(found, Finding):
            yield found
            continue
        header, tar = found
        folder, _, name = header.name.rpartition("/")
        stem, dot, extension = name.partition(".")
        key = posixpath.join(folder, stem)
        if not dot or not stem:
            continue  # readers pass over these
        if sample is None or key != sample.key:
            if sample:
                yield sample
            sample = _Sample(key)
        extension = extension.lower()
        if extension in sample.parts:
            message = f"{header.name!r} is there twice"
            yield Finding(kind=FindingKind.DUPLICATE_ID, key=path, message=message)
        data, fault = _read(header, tar, max_bytes if _is_image(extension) else _MAX_TEXT_BYTES, is_read=is_read)
        if fault:
            yield Finding(kind=fault.kind, key=path, message=fault.message)
            if fault.kind is FindingKind.FILE_UNREADABLE:
                return
        sample.parts[extension] = data
    if sample:
        yield sample


def _read(
    header: tarfile.TarInfo, tar: tarfile.TarFile, max_bytes: int, *, is_read: bool
) -> tuple[bytes | None, Fault | None]:
    if header.size > max_bytes:
        message = f"{header.name!r}: {header.size} bytes, and the limit is {max_bytes}"
        return None, Fault(FindingKind.IMAGE_UNREADABLE, message)
    if not is_read and _is_image(header.name):
        return None, None
    try:
        stream = tar.extractfile(header)
        data = stream.read() if stream else b""
    except (OSError, tarfile.TarError) as error:
        return None, Fault(FindingKind.FILE_UNREADABLE, f"{header.name!r}: {first_line(error)}")
    if len(data) < header.size:
        return None, Fault(FindingKind.FILE_UNREADABLE, f"it is cut off within {header.name!r}")
    return data, None


def _members(root: str, path: str) -> Iterator[tuple[tarfile.TarInfo, tarfile.TarFile] | Finding]:
    """The plain files of a tar, in order; findings where it is cut off, and for names that lead out of it."""
    number = 0
    try:
        with uri.open_read(uri.join(root, path)) as stream:
            if fault := _end_fault(stream):
                yield Finding(kind=FindingKind.FILE_UNREADABLE, key=path, message=fault)
            with tarfile.open(fileobj=stream, mode="r:") as tar:
                while (header := tar.next()) is not None:
                    tar.members.clear()  # type: ignore[attr-defined]  # it keeps them all
                    number += 1
                    bad = fault_of(header.name)
                    if bad is None and not (header.isreg() or header.isdir()):
                        bad = Fault(FindingKind.BAD_PATH, f"{header.name!r}: a link or device, and no file")
                    if bad:
                        yield Finding(kind=bad.kind, key=path, message=bad.message)
                    elif header.isreg():
                        yield header, tar
    except (OSError, tarfile.TarError, ValueError, EOFError) as error:
        message = f"after {number} members: {first_line(error)}"
        yield Finding(kind=FindingKind.FILE_UNREADABLE, key=path, message=message)


def _end_fault(stream: BinaryIO) -> str | None:
    """A tar ends in two blocks of zeros. Readers don't ask for them: one that is cut between rows just has fewer."""
    size = stream.seek(0, 2)
    stream.seek(max(0, size - 2 * _BLOCK_BYTES))
    end = stream.read()
    stream.seek(0)
    is_whole = size >= 2 * _BLOCK_BYTES and not size % _BLOCK_BYTES and not any(end)
    return None if is_whole else "it is cut off: it does not end as a tar does"


def _is_image(extension: str) -> bool:
    return extension.lower().rpartition(".")[2] in _IMAGES
