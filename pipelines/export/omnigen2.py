"""Training files of OmniGen2: a YAML that lists JSON lines by kind, t2i, edit and ic. Pure functions.

Its loader joins no folder to paths, knows no placeholders, and takes the types of a file's columns from its beginning:
so a file has rows of one kind. Where no row has inputs they are null, which goes with the lists of the other files.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import yaml

from omnigen_actor.tasks import DEFAULT_TASKS
from omnigen_actor.types import PIXELS_PER_TOKEN
from pipelines.export import loose
from pipelines.export.examples import Example
from pipelines.export.format import Assembly, File, Loaded, Refusal, Shard
from pipelines.export.wording import without_placeholders

MAX_INPUTS = 4


@dataclass(frozen=True, slots=True)
class OmniGen2:
    """The format ``omnigen2``. ``prefix``: what paths begin with."""

    prefix: str = ""
    name = "omnigen2"
    has_loose_images = True

    def group(self, task: str, num_inputs: int) -> str:
        """t2i, edit (of one image, which gives the size), or ic (images as subjects or examples)."""
        if not num_inputs:
            return "t2i"
        is_own = task in DEFAULT_TASKS and not DEFAULT_TASKS.find(task).sized_by_input
        return "edit" if num_inputs == 1 and (task == "custom" or not is_own) else "ic"

    def refuse(self, example: Example) -> Refusal | None:
        """More inputs than it takes, and sides that it does not."""
        if len(example.inputs) > MAX_INPUTS:
            return Refusal("too_many_inputs", f"{len(example.inputs)} inputs; OmniGen2 takes {MAX_INPUTS} at most")
        if example.width % PIXELS_PER_TOKEN or example.height % PIXELS_PER_TOKEN:
            return Refusal("bad_size", f"{example.width}x{example.height}: sides must be multiples of 16")
        return None

    def write(self, shard: Shard, loaded: Sequence[Loaded], scores: Sequence[pa.Field]) -> list[File]:
        """The images, and parts of the training file and of the table beside it."""
        rows = [self._row(one) for one in loaded]
        parts = [File(shard.part("rows.jsonl"), loose.to_jsonl(rows)), loose.provenance(shard, loaded, scores)]
        return [*loose.image_files(loaded), *parts]

    def assemble(self, shards: Sequence[Shard]) -> list[Assembly]:
        """A file for each split and kind, and a table for each split."""
        files: dict[str, list[str]] = {}
        for shard in shards:
            files.setdefault(_rows_file(shard), []).append(shard.part("rows.jsonl"))
        return [*(Assembly(path, parts) for path, parts in files.items()), *loose.provenance_files(shards)]

    def texts(self, shards: Sequence[Shard]) -> list[File]:
        """The YAML of each split."""
        splits: dict[str, dict[str, str]] = {}
        for shard in shards:
            splits.setdefault(shard.split, {})[self._placed(_rows_file(shard))] = shard.group
        return [
            File(
                f"{split}.yml",
                yaml.safe_dump(
                    {"data": [{"path": path, "type": kind, "ratio": 1} for path, kind in files.items()]},
                    sort_keys=False,
                    allow_unicode=True,
                ).encode(),
            )
            for split, files in splits.items()
        ]

    def configs(self, shards: Sequence[Shard]) -> list[dict[str, Any]]:
        """The tables, so that the hub shows something; it does not follow paths."""
        return loose.provenance_configs(shards)

    def usage(self, shards: Sequence[Shard]) -> str:
        """Where its training expects what."""
        start = (
            f"Its paths begin with `{self.prefix}`."
            if self.prefix
            else "Start the training in DEST: paths begin there."
        )
        return (
            f"Name `{self._placed(f'{shards[0].split}.yml')}` as `data_path` of the training options. {start}\n\n"
            f"{loose.ABOUT_PROVENANCE}"
        )

    def _row(self, one: Loaded) -> dict[str, Any]:
        paths = [self._placed(file.path) for file in one.inputs]
        return {
            "task_type": one.example.task,
            "instruction": without_placeholders(one.example.prompt, one.example.instruction),
            "input_images": paths or None,
            "output_image": self._placed(one.output.path),
        }

    def _placed(self, path: str) -> str:
        return f"{self.prefix.rstrip('/')}/{path}" if self.prefix else path


def _rows_file(shard: Shard) -> str:
    return f"{shard.split}-{shard.group}.jsonl"
