"""What a check of a store or a set amounts to: counts, findings up to a bound, figures. Knows not how it is shown."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from pipelines.verify.findings import WARNINGS, Finding, FindingKind

MAX_FINDINGS = 1000
"""How many findings a report keeps; it counts them all."""


@dataclass(slots=True, kw_only=True)
class Report:
    """Findings as they come, and at the end the figures.

    ``num_records`` are all in the store, ``num_images`` and ``num_bytes`` those that are as their current record says.
    ``num_safe`` findings can be mended, ``mended`` counts those that are, and ``failures`` says what went wrong when
    others were to be. ``has_lease``: a run is writing to the store, or was killed. ``num_done`` of ``num_to_do``: how
    far the check is; None: nobody knows how many there are.

    Of a data set ``kind`` says what it is, and ``num_records`` are its rows.
    """

    store: str
    kind: str | None = None
    counts: Counter[FindingKind] = field(default_factory=Counter)
    examples: dict[FindingKind, Finding] = field(default_factory=dict)
    findings: list[Finding] = field(default_factory=list)
    mended: Mapping[FindingKind, int] = field(default_factory=dict)
    failures: Sequence[str] = ()
    num_safe: int = 0
    num_records: int = 0
    num_images: int = 0
    num_bytes: int = 0
    seconds: float = 0.0
    has_lease: bool = False
    num_done: int = 0
    num_to_do: int | None = None

    def add(self, finding: Finding) -> None:
        """Count one more."""
        self.counts[finding.kind] += 1
        self.num_safe += finding.is_safe
        self.examples.setdefault(finding.kind, finding)
        if len(self.findings) < MAX_FINDINGS:
            self.findings.append(finding)

    @property
    def num_left(self) -> int:
        """Findings that are not mended, without warnings."""
        return self.counts.total() - self.num_warnings - sum(self.mended.values())

    @property
    def num_warnings(self) -> int:
        """Findings that may be meant so."""
        return sum(self.counts[kind] for kind in WARNINGS)

    def to_json(self) -> str:
        """The text of a report for machines."""
        findings = [
            {"kind": one.kind.value, "key": one.key, "message": one.message, "is_safe": one.is_safe}
            for one in self.findings
        ]
        content = {
            **({"store": self.store} if self.kind is None else {"set": self.store, "kind": self.kind}),
            "is_whole": not self.num_left,
            "counts": {kind.value: count for kind, count in self.counts.items()},
            "mended": {kind.value: count for kind, count in self.mended.items()},
            "failures": list(self.failures),
            "num_findings": self.counts.total(),
            "findings": findings,
            "num_records" if self.kind is None else "num_rows": self.num_records,
            "num_images": self.num_images,
            "num_bytes": self.num_bytes,
            "seconds": self.seconds,
        }
        if self.kind is not None:
            content["num_warnings"] = self.num_warnings
        return json.dumps(content, indent=2) + "\n"
