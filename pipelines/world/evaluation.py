"""How well a model does what the drawn world asks, with the controls that make the figures mean something.

Fresh samples become a manifest, the pipeline makes their pictures, and each is scored against its truth. Controls:

wrong prompt   the same inputs with the prompt of another sample, or of another task where a task has but one prompt;
               in context, where the example says what to do and no word does, with the example of another sample
unguided       without guidance: what the guidance branches bring
copy           the first input itself, for tasks that have one
ceiling        the right picture, encoded and decoded: what the autoencoder leaves possible
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow.parquet as pq

from omnigen_actor import images, store, uri
from omnigen_actor.placeholders import placeholder
from omnigen_actor.schema import Status
from omnigen_actor.tasks import DEFAULT_TASKS
from pipelines.world.presets import World
from pipelines.world.sample import Sample
from pipelines.world.samples import make_sample
from pipelines.world.scores import Mean, Scores, score, summarise
from pipelines.world.shapes import Array
from pipelines.world.source import Row, input_names, manifest_row, rows

RIGHT, WRONG, UNGUIDED, COPY, CEILING = "right", "wrong prompt", "unguided", "copy", "ceiling"
GENERATED = (RIGHT, WRONG, UNGUIDED)
"""What the model makes; the others need no model, or only its autoencoder."""

Table = dict[str, dict[str, dict[str, Mean]]]
"""task -> variant -> metric -> mean with bounds."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Questions:
    """The samples that a model is asked: ``num_samples`` of each task, from a seed that no training may use."""

    world: World
    tasks: tuple[str, ...]
    num_samples: int
    seed: int
    variants: tuple[str, ...] = GENERATED

    def rows(self) -> Iterator[Row]:
        """All samples, the tasks in turn, with the names of their input pictures."""
        return rows(self.world, self.tasks, self.num_samples * len(self.tasks), self.seed)

    def manifest(self) -> Iterator[dict[str, Any]]:
        """The rows to generate: each sample in every variant."""
        for number, row in enumerate(self.rows()):
            own = {key: value for key, value in manifest_row(row).items() if not key.startswith("truth_")}
            index = number // len(self.tasks)
            for variant in self.variants:
                yield {**own, "id": row_id(row, variant), **self._changes(variant, row.sample, index)}

    def _changes(self, variant: str, sample: Sample, index: int) -> dict[str, Any]:
        if variant == UNGUIDED:
            return {"guidance_scale": 1.0, "img_guidance_scale": 1.0}
        if variant == WRONG:
            example = self.wrong_example(sample, index) if sample.task == "in_context" else None
            return example or {"task": "custom", "instruction": self.wrong_prompt(sample, index)}
        return {}

    def wrong_example(self, sample: Sample, index: int) -> dict[str, Any] | None:
        """The images of a sample with an example that shows another relation; None where no sample has one."""
        num_inputs = len(sample.inputs)
        for further in range(1, self.num_samples):
            other = (index + further) % self.num_samples  # of those whose pictures there are
            facts = make_sample(self.world, sample.task, self.seed, other).facts
            if facts["relation"] != sample.facts["relation"]:
                names = input_names(sample.task, other, num_inputs)
                return {"images": [*names[:-1], input_names(sample.task, index, num_inputs)[-1]]}
        return None

    def wrong_prompt(self, sample: Sample, index: int) -> str:
        """The prompt of another sample with as many inputs, which asks for something else."""
        right = sample.prompt()
        for further in range(1, 20):
            other = make_sample(self.world, sample.task, self.seed, index + further).prompt()
            if other != right:
                return other
        alike = [task for task in self.tasks if task != sample.task]
        for task in sorted(alike, key=lambda one: (one < sample.task, one)):
            other_sample = make_sample(self.world, task, self.seed, index)
            if len(other_sample.inputs) == len(sample.inputs) and not DEFAULT_TASKS.find(task).needs_instruction:
                return other_sample.prompt()
        marks = (placeholder(number) for number in range(1, len(sample.inputs) + 1))
        return " ".join((*marks, "low quality"))


def row_id(row: Row, variant: str) -> str:
    """The id of a sample's row in one variant."""
    return f"{row.id}-{variant.replace(' ', '-')}"


def read_pictures(store_root: str) -> Iterator[tuple[str, Array]]:
    """(row id, picture) of all rows of a store that have one."""
    for file in uri.list_files(uri.join(store_root, store.RECORDS), suffix=".parquet"):
        with uri.open_read(file) as stream:
            rows = pq.ParquetFile(stream).read(columns=["id", "status", "output_key"]).to_pylist()
        for row in rows:
            if row["status"] == Status.OK:
                data = uri.read_bytes(uri.join(store_root, row["output_key"]), max_bytes=2**28)
                yield row["id"], np.asarray(images.decode(data, max_pixels=2**26))


def score_all(questions: Questions, store_root: str, ceilings: Mapping[str, Array]) -> Table:
    """Every variant's scores. ``ceilings``: right pictures through the autoencoder, by their row's id."""
    pictures = dict(read_pictures(store_root))
    found: dict[str, list[tuple[str, Scores]]] = {}
    for row in questions.rows():
        sample = row.sample
        shown = {variant: pictures.get(row_id(row, variant)) for variant in questions.variants}
        shown[CEILING] = ceilings.get(row.id)
        shown[COPY] = sample.inputs[0] if sample.inputs else None
        for variant, picture in shown.items():
            if picture is not None and picture.shape == sample.output.shape:
                found.setdefault(variant, []).append((sample.task, score(questions.world, sample, picture)))
    table: Table = {task: {} for task in questions.tasks}
    for variant, scores in found.items():
        for task, means in summarise(scores).items():
            table[task][variant] = means
    return table


@dataclass(frozen=True, slots=True, kw_only=True)
class Gate:
    """What a metric must reach: at least ``bound``, or at most where the metric is an error.

    For a control (``wrong prompt``, ``copy``) it is the other way round: no better than ``bound``, or the metric would
    not tell a model that understands from one that does not.
    """

    task: str
    metric: str
    bound: float
    variant: str = RIGHT

    @property
    def is_most(self) -> bool:
        """Whether ``bound`` is the most that is allowed, not the least."""
        return ("error" in self.metric) != (self.variant in (WRONG, COPY))

    def value(self, table: Table) -> float:
        """The mean that counts, NaN where the table does not have it."""
        found = table.get(self.task, {}).get(self.variant, {}).get(self.metric)
        return found["mean"] if found else math.nan

    def is_met(self, table: Table) -> bool:
        """Whether the mean reaches it; a mean that is not there does not."""
        value = self.value(table)
        return value <= self.bound if self.is_most else value >= self.bound

    def complaint(self, table: Table) -> str:
        """What is missed."""
        wanted = f"{'at most' if self.is_most else 'at least'} {self.bound}"
        variant = "" if self.variant == RIGHT else f" ({self.variant})"
        return f"{self.task} {self.metric}{variant} is {self.value(table):.3f}, and must be {wanted}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Gates:
    """Gates, and the sha256 of the one model that they are for; None: any."""

    gates: tuple[Gate, ...] = ()
    model_sha256: str | None = None


def read_gates(text: str) -> Gates:
    """Gates from JSON: {"model_sha256": …, "gates": [{"task": …, "metric": …, "bound": …}, …]}. Raises ValueError."""
    found = json.loads(text)
    if not (isinstance(found, dict) and isinstance(found.get("gates"), list)):
        raise ValueError('no object with a list under "gates"')  # noqa: TRY004 - a file's content, not an argument
    return Gates(gates=tuple(Gate(**entry) for entry in found["gates"]), model_sha256=found.get("model_sha256"))


def lines(table: Table, metrics: Sequence[str]) -> list[str]:
    """The table for a person: a line for each task and metric, a column for each variant."""
    variants = [RIGHT, WRONG, UNGUIDED, COPY, CEILING]
    told = [f"{'task':<16}{'metric':<18}" + "".join(f"{variant:>14}" for variant in variants)]
    for task, found in table.items():
        for metric in metrics:
            means = [found.get(variant, {}).get(metric) for variant in variants]
            if means[0] is not None:
                shown = "".join(f"{one['mean']:>14.3f}" if one else f"{'':>14}" for one in means)
                told.append(f"{task:<16}{metric:<18}{shown}")
    return told
