"""The data-set card, README.md: what is in an export, what it was made with, how to load it. Pure functions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import yaml
from PIL import Image

from pipelines.export.config import ExportConfig
from pipelines.export.figures import Figures
from pipelines.export.format import Format
from pipelines.finetune.grid import grid

SAMPLES = "samples.png"
_MAX_SIDE_PX = 256
_SIZES = ("n<1K", "1K<n<10K", "10K<n<100K", "100K<n<1M", "1M<n<10M", "10M<n<100M", "100M<n<1B")


@dataclass(frozen=True, slots=True, kw_only=True)
class CardFacts:
    """``made_with``: settings of the store; ``samples``: the tasks of the lines of the sample grid."""

    config: ExportConfig
    figures: Figures
    made_with: dict[str, Any]
    scores: dict[str, Any]
    histograms: Sequence[str]
    samples: Sequence[str]
    versions: dict[str, str]


def card(facts: CardFacts, fmt: Format) -> bytes:
    """README.md."""
    has_pairs = facts.config.has_pairs
    header = yaml.safe_dump(_header(facts, fmt), sort_keys=False, allow_unicode=True)
    parts = [f"---\n{header}---\n", "# Generated images\n", _contents(facts.figures, has_pairs=has_pairs)]
    if facts.samples:
        shown = "Inputs, the chosen image and the rejected one" if has_pairs else "Inputs and the image made of them"
        parts.append(f"## Samples\n\n![samples]({SAMPLES})\n\n{shown}, a line each: {', '.join(facts.samples)}.\n")
    parts.append(f"## Loading\n\n{fmt.usage(facts.figures.shards)}\n" if facts.figures.shards else "")
    parts += [_made_with(facts), _scores(facts), _fill_in()]
    return "\n".join(part for part in parts if part).encode()


def _header(facts: CardFacts, fmt: Format) -> dict[str, Any]:
    has_inputs = bool(facts.figures.num_inputs)
    size = _SIZES[min(len(_SIZES) - 1, max(0, len(str(facts.figures.num_images)) - 3))]
    header: dict[str, Any] = {
        "license": "unknown",
        "task_categories": ["text-to-image", *(["image-to-image"] * has_inputs)],
        "tags": ["synthetic"],
        "size_categories": [size],
    }
    configs = fmt.configs(facts.figures.shards)
    return header | ({"configs": configs} if configs else {})


def _contents(figures: Figures, *, has_pairs: bool) -> str:
    splits = list(figures.tasks)
    tasks = sorted({task for counted in figures.tasks.values() for task in counted})
    rows = [[task, *(str(figures.tasks[split][task]) for split in splits)] for task in tasks]
    total = ["all", *(str(figures.tasks[split].total()) for split in splits)]
    sizes = ", ".join(f"{size} ({count})" for size, count in figures.sizes.most_common(10))
    reasons = ", ".join(f"{reason} {count}" for reason, count in sorted(figures.reasons.items()))
    left_out = f"\nLeft out: {len(figures.left_out)} ({reasons}); `left_out.parquet` names each.\n" if reasons else ""
    unit = "preference pairs of a chosen and a rejected image" if has_pairs else "images"
    return (
        f"{figures.num_images} {unit}, made by a model, with {figures.num_inputs} input images.\n\n"
        f"{_table(['task', *splits], [*rows, total])}\nSizes: {sizes or 'none'}.\n{left_out}"
    )


def _made_with(facts: CardFacts) -> str:
    models = [[f"`{name}`", f"`{sha256}`"] for sha256, name in facts.figures.models.items()]
    settings = [[f"`{name}`", f"`{value}`"] for name, value in facts.made_with.items()]
    versions = ", ".join(f"{name} {version}" for name, version in facts.versions.items())
    return (
        f"## Made with\n\n{_table(['model', 'sha256 of its weights'], models)}\n"
        f"{_table(['setting', 'default of the rows'], settings)}\n"
        f"Exported with {versions}:\n\n    {facts.config.command}\n"
    )


def _scores(facts: CardFacts) -> str:
    if not facts.histograms:
        return ""
    settings = [[f"`{name}`", f"`{told.get('settings') if told else None}`"] for name, told in facts.scores.items()]
    lines = "\n".join(f"    {line}" for line in facts.histograms)
    return f"## Scores\n\n{_table(['score', 'settings'], settings)}\n{lines}\n"


def _fill_in() -> str:
    return (
        "## To fill in\n\n"
        "- License of this data set, and in the header above: \n"
        "- License and terms of the model: \n"
        "- Where the input images come from, and their licenses: \n"
        "- Whom to ask: \n"
    )


def _table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [header, ["---"] * len(header), *([cell.replace("|", "\\|") for cell in row] for row in rows)]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def sample_grid(lines: Sequence[Sequence[Image.Image]]) -> Image.Image:
    """The images of each example, a line each."""
    for line in lines:
        for picture in line:
            picture.thumbnail((_MAX_SIDE_PX, _MAX_SIDE_PX))
    return grid(lines)
