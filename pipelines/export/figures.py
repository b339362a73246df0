"""The figures of an export, summed over the reports of its shards, and histograms of scores. Knows no files."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from pipelines.export.choosing import LeftOut
from pipelines.export.format import Refusal, Shard

_BINS = 10
_BAR = 40


@dataclass(slots=True)
class Figures:
    """``shards``: those that have images. ``tasks``: of each split the images by task."""

    num_images: int = 0
    num_inputs: int = 0
    tasks: dict[str, Counter[str]] = field(default_factory=dict)
    sizes: Counter[str] = field(default_factory=Counter)
    models: dict[str, str] = field(default_factory=dict)
    left_out: list[LeftOut] = field(default_factory=list)
    shards: list[Shard] = field(default_factory=list)

    def add(self, report: dict[str, Any]) -> None:
        """Count a shard in."""
        shard = Shard(**report["shard"])
        if report["num_images"]:
            self.shards.append(shard)
        self.num_images += report["num_images"]
        self.num_inputs += report["num_inputs"]
        self.tasks.setdefault(shard.split, Counter()).update(report["tasks"])
        self.sizes.update(report["sizes"])
        self.models |= report["models"]
        self.left_out += [LeftOut(row_id, sample, Refusal(*why)) for row_id, sample, *why in report["left_out"]]

    @property
    def reasons(self) -> Counter[str]:
        """How many images were left out for what."""
        return Counter(one.refusal.reason for one in self.left_out)

    @property
    def num_chosen(self) -> int:
        """Exported and left out."""
        return self.num_images + len(self.left_out)

    def to_json(self) -> dict[str, Any]:
        """The counts for ``export.json``."""
        return {
            "num_chosen": self.num_chosen,
            "num_images": self.num_images,
            "num_inputs": self.num_inputs,
            "num_left_out": len(self.left_out),
            "left_out": dict(sorted(self.reasons.items())),
            "splits": {split: dict(sorted(tasks.items())) for split, tasks in sorted(self.tasks.items())},
        }


Pages = Callable[[], Iterable[pa.Table]]
"""The exported rows, as often as they are asked for."""


def histograms(pages: Pages, fields: Sequence[pa.Field]) -> Iterator[str]:
    """A histogram of each score as lines of text; nothing for texts."""
    for one in fields:
        if pa.types.is_boolean(one.type):
            yield from _of_truth(one.name, pages)
        elif pa.types.is_integer(one.type) or pa.types.is_floating(one.type):
            yield from _of_numbers(one.name, pages)


def _of_truth(name: str, pages: Pages) -> Iterator[str]:
    counted: Counter[bool | None] = Counter()
    for page in pages():
        counted.update(page[name].to_pylist())
    yield f"{name}: yes {counted[True]}, no {counted[False]}, none {counted[None]}"


def _of_numbers(name: str, pages: Pages) -> Iterator[str]:
    low, high, num_none, num_rows = np.inf, -np.inf, 0, 0
    for page in pages():
        values = _finite(page[name])
        num_rows += page.num_rows
        num_none += page.num_rows - len(values)
        if len(values):
            low, high = min(low, float(values.min())), max(high, float(values.max()))
    yield f"{name}: {num_rows - num_none} images, {num_none} without"
    if not low <= high:
        return
    counts = np.zeros(_BINS, np.int64)
    edges = np.linspace(low, high if high > low else low + 1, _BINS + 1)
    for page in pages():
        counts += np.histogram(_finite(page[name]), edges)[0]
    for start, end, count in zip(edges[:-1].tolist(), edges[1:].tolist(), counts.tolist(), strict=True):
        bar = "#" * round(_BAR * count / max(1, counts.max()))
        yield f"{start:>12.4g} … {end:<12.4g} {count:>9} {bar}".rstrip()


def _finite(column: pa.ChunkedArray) -> npt.NDArray[np.float64]:
    values = np.array(column.drop_null().to_pylist(), np.float64)
    return values[np.isfinite(values)]
