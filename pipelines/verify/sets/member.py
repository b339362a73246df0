"""A row of a data set, whatever the format: its texts, its images, and what it says of them. Knows no files."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import Any, NamedTuple

from pipelines.verify.findings import Finding, FindingKind


class Style(StrEnum):
    """Whether instructions have a placeholder for each input image."""

    NUMBERED = "numbered"
    PLAIN = "plain"
    ANY = "any"


class Fault(NamedTuple):
    """What is wrong with a row or one of its images."""

    kind: FindingKind
    message: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Picture:
    """An image as a row has it. ``data``: its file, where the row holds it. ``is_path``: ``name`` says where it lies.

    With neither nobody looks at it.
    """

    name: str
    data: bytes | None = None
    is_path: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Member:
    """One row. ``number`` counts the rows of ``file`` from 1. ``told``: its other cells, by our own names.

    ``base``: the folder of the set that its paths start at. ``chosen``: the better image of a preference pair, whose
    rejected one is the output.
    """

    file: str
    number: int
    split: str
    style: Style
    inputs: tuple[Picture, ...]
    output: Picture | None
    chosen: Picture | None = None
    base: str = ""
    id: str | None = None
    sample: int = 0
    task: str | None = None
    instruction: str | None = None
    prompt: str | None = None
    told: Mapping[str, Any] = field(default_factory=dict)

    @property
    def key(self) -> str:
        """Where it is, for a person."""
        return f"{self.file}:{self.number}"

    @property
    def is_pair(self) -> bool:
        """Whether it says that it has a chosen image."""
        return self.chosen is not None or "chosen_sha256" in self.told

    def with_chosen(self) -> Member:
        """The row of the chosen image of a pair."""
        sample = self.told.get("chosen_sample")
        told = {name: value for name, value in self.told.items() if name != "output_sha256"}
        if "chosen_sha256" in told:
            told["output_sha256"] = told["chosen_sha256"]
        return replace(self, output=self.chosen, sample=sample if isinstance(sample, int) else 0, told=told)

    @property
    def text(self) -> str:
        """What a training reads."""
        return self.prompt or self.instruction or ""

    def finding(self, fault: Fault) -> Finding:
        """A fault as a finding about this row."""
        return Finding(kind=fault.kind, key=self.key, message=fault.message)


Read = Member | Finding
"""What a reader yields: rows, and what keeps it from reading more."""
