"""What the formats have in common: what they are given, and what they have to answer. Knows none of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

import pyarrow as pa

from pipelines.export.examples import Example

SCRATCH = "plan"
"""Folder of an export that is under way: its plan, and parts that are put together at the end."""


class File(NamedTuple):
    """A file of the export, its path relative to DEST. Below SCRATCH: a part of a file."""

    path: str
    data: bytes


class Refusal(NamedTuple):
    """Why an image is left out: a word to count by, and a message."""

    reason: str
    message: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageFile:
    """An image's file as it is exported. ``key``: its place in the store, if it is from there."""

    data: bytes
    extension: str
    sha256: str
    key: str | None = None

    @property
    def path(self) -> str:
        """Where formats with loose images put it: the same file for all rows that have it."""
        return self.key or f"images/inputs/{self.sha256[:2]}/{self.sha256}{self.extension}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Loaded:
    """An example with its images in memory. ``chosen``: of its pair, if it has one."""

    example: Example
    inputs: tuple[ImageFile, ...]
    output: ImageFile
    chosen: ImageFile | None = None

    @property
    def images(self) -> tuple[ImageFile, ...]:
        """All of them: the inputs, the chosen one, the output."""
        return (*self.inputs, *([self.chosen] if self.chosen else []), self.output)


@dataclass(frozen=True, slots=True, kw_only=True)
class Shard:
    """One piece of work. ``index`` of ``count`` counts the shards of its split and group."""

    number: int
    split: str
    group: str
    index: int
    count: int

    def part(self, name: str) -> str:
        """The path of its part of a file that is put together at the end."""
        stem, _, extension = name.rpartition(".")
        return f"{SCRATCH}/{stem}-{self.number:06d}.{extension}"


class Assembly(NamedTuple):
    """A file of the export that is put together of parts, in their order: JSON lines or Parquet, by its name."""

    path: str
    parts: list[str]


class Format(Protocol):
    """How examples become files. Same examples, same bytes."""

    name: str
    has_loose_images: bool

    def group(self, task: str, num_inputs: int) -> str:
        """What may share a file with what: a shard has one group. Groups are exported in the order of their names."""
        ...

    def refuse(self, example: Example) -> Refusal | None:
        """Why this format can't hold an example, if it can't."""
        ...

    def write(self, shard: Shard, loaded: Sequence[Loaded], scores: Sequence[pa.Field]) -> list[File]:
        """The files of one shard; none where it has no examples."""
        ...

    def assemble(self, shards: Sequence[Shard]) -> list[Assembly]:
        """What to make of the parts of these shards, which all have examples."""
        ...

    def texts(self, shards: Sequence[Shard]) -> list[File]:
        """Small files that name others."""
        ...

    def configs(self, shards: Sequence[Shard]) -> list[dict[str, Any]]:
        """``configs`` of the data-set card: what the hub shows; none where it shows nothing."""
        ...

    def usage(self, shards: Sequence[Shard]) -> str:
        """How to load it, as Markdown."""
        ...
