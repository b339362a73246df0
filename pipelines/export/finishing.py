"""The end of an export: files put together, the card, and last the marker. Same shards, same bytes.

Knows neither Ray nor what a format's files look like.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from omnigen_actor import images
from pipelines.export import assemble
from pipelines.export.assemble import Entry
from pipelines.export.card import SAMPLES, CardFacts, card, sample_grid
from pipelines.export.choosing import Chosen
from pipelines.export.config import ExportConfig
from pipelines.export.destination import MARKER, Destination
from pipelines.export.examples import example_of
from pipelines.export.figures import Figures, histograms
from pipelines.export.format import File, Format, Loaded
from pipelines.export.plan import Plan
from pipelines.export.read import ReadImages
from pipelines.export.score_columns import ScoreColumns
from pipelines.export.staging import Staging
from pipelines.run_info import last_fingerprint, versions_of

_PACKAGES = ("omnigen-batch", "pyarrow", "pillow")
_SETTINGS = (
    "width",
    "height",
    "steps",
    "guidance_scale",
    "img_guidance_scale",
    "seed",
    "image_format",
    "dtype",
    "vae_dtype",
    "approximations",
    "adapters",
)
_MAX_LINES = 12
_NO_LIMIT = 2**40


@dataclass(frozen=True, slots=True, kw_only=True)
class Finishing:
    """What is known once all shards are there."""

    destination: Destination
    format: Format
    read: ReadImages
    plan: Plan
    staging: Staging
    chosen: Chosen
    scores: ScoreColumns
    config: ExportConfig
    version: int

    def finish(self) -> None:
        """Make the export whole. Raises UriFailed, OutputError."""
        figures, first = self._figures()
        entries, index = self._tables(figures)
        samples = self._samples(figures, first)
        entries += self._sample_grid(samples)
        known = last_fingerprint(self.read.store_root)
        facts = CardFacts(
            config=self.config,
            figures=figures,
            made_with={name: known[name] for name in _SETTINGS if name in known},
            scores=self.scores.told,
            histograms=list(histograms(lambda: self._pages(figures), self.scores.fields)),
            samples=[one.example.task for one in samples],
            versions=versions_of(_PACKAGES),
        )
        entries.append(self.destination.write(File("README.md", card(facts, self.format))))
        marker = {
            "format": self.config.format,
            "version": self.version,
            "plan": self.plan.digest,
            "counts": figures.to_json(),
            "selection": self.config.selection,
            "scores": self.scores.told,
            "command": self.config.command,
            "versions": versions_of(_PACKAGES),
            "images": index,
            "files": [_entry(entry) for entry in sorted(entries)],
        }
        text = json.dumps(marker, indent=1, ensure_ascii=False) + "\n"
        self.destination.write(File(MARKER, text.encode()))
        self.destination.sweep()

    def _figures(self) -> tuple[Figures, dict[str, int]]:
        """The figures, and of each task the first shard with an image of it."""
        figures, first = Figures(), dict[str, int]()
        for report in self._reports():
            figures.add(report)
            for task in report["tasks"]:
                first.setdefault(task, report["shard"]["number"])
        figures.left_out += self.chosen.left_out
        return figures, first

    def _tables(self, figures: Figures) -> tuple[list[Entry], dict[str, Any] | None]:
        """Write what is put together; all files so far but loose images, and the index of these."""
        entries = [assemble.assemble(self.destination, one) for one in self.format.assemble(figures.shards)]
        entries += [self.destination.write(file) for file in self.format.texts(figures.shards)]
        entries.append(assemble.write_left_out(self.destination, figures.left_out))
        files = ((path, sha256, size) for report in self._reports() for path, sha256, size in report["files"])
        if not self.format.has_loose_images:
            return [*entries, *files], None
        index, num_files = assemble.write_index(self.destination, files)
        return [*entries, index], {"path": index[0], "num_files": num_files}

    def _samples(self, figures: Figures, first: dict[str, int]) -> list[Loaded]:
        """The first image of each task."""
        left_out = _keys(figures)
        examples = []
        for task, number in sorted(first.items())[:_MAX_LINES]:
            rows = self.staging.take(self.plan.rows[number]).to_pylist()
            mine = (row for row in rows if row["task"] == task and (row["id"], row["sample"]) not in left_out)
            examples.append(example_of(next(mine)))
        return [one for one in self.read(examples) if isinstance(one, Loaded)]

    def _sample_grid(self, samples: Sequence[Loaded]) -> list[Entry]:
        if not samples:
            return []
        lines = [[images.decode(file.data, max_pixels=_NO_LIMIT) for file in one.images] for one in samples]
        return [self.destination.write(File(SAMPLES, images.encode(sample_grid(lines), "png")))]

    def _pages(self, figures: Figures) -> Iterator[pa.Table]:
        """The rows that were exported, shard by shard."""
        left_out = _keys(figures)
        for numbers in self.plan.rows:
            rows = self.staging.take(numbers)
            keys = zip(rows["id"].to_pylist(), rows["sample"].to_pylist(), strict=True)
            yield rows.filter(pa.array([key not in left_out for key in keys]))

    def _reports(self) -> Iterator[dict[str, Any]]:
        return (self.destination.report(shard.number) for shard in self.plan.shards)


def _keys(figures: Figures) -> set[tuple[str, int]]:
    return {(one.id, one.sample) for one in figures.left_out}


def _entry(entry: Entry) -> dict[str, Any]:
    return dict(zip(("path", "sha256", "num_bytes"), entry, strict=True))
