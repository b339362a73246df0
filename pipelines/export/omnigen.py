"""Training files of OmniGen v1: ``train.py --json_file train.jsonl --image_path DEST``. Pure functions.

Its loader has every key read from every row, joins paths to the image folder, wants a placeholder for each input image,
and ends the training at the first file that it can't open.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pyarrow as pa

from omnigen_actor import placeholders
from omnigen_actor.errors import RowError
from pipelines.export import loose
from pipelines.export.examples import Example
from pipelines.export.format import Assembly, File, Loaded, Refusal, Shard


class OmniGen:
    """The format ``omnigen``."""

    name = "omnigen"
    has_loose_images = True

    def group(self, task: str, num_inputs: int) -> str:  # noqa: ARG002
        """Rows with inputs come first: the loader takes the types of the columns from the beginning of the file."""
        return "inputs" if num_inputs else "none"

    def refuse(self, example: Example) -> Refusal | None:
        """A prompt whose placeholders are not those of its images."""
        try:
            placeholders.check(example.prompt, len(example.inputs))
        except RowError as error:
            return Refusal("bad_placeholders", error.message)
        return None

    def write(self, shard: Shard, loaded: Sequence[Loaded], scores: Sequence[pa.Field]) -> list[File]:
        """The images, and parts of the training file and of the table beside it."""
        rows = [_row(one) for one in loaded]
        parts = [File(shard.part("rows.jsonl"), loose.to_jsonl(rows)), loose.provenance(shard, loaded, scores)]
        return [*loose.image_files(loaded), *parts]

    def assemble(self, shards: Sequence[Shard]) -> list[Assembly]:
        """A training file and a table for each split."""
        splits = dict.fromkeys(shard.split for shard in shards)
        files = [
            Assembly(f"{split}.jsonl", [one.part("rows.jsonl") for one in shards if one.split == split])
            for split in splits
        ]
        return [*files, *loose.provenance_files(shards)]

    def texts(self, shards: Sequence[Shard]) -> list[File]:  # noqa: ARG002
        """None."""
        return []

    def configs(self, shards: Sequence[Shard]) -> list[dict[str, Any]]:
        """The tables, so that the hub shows something; it does not follow paths."""
        return loose.provenance_configs(shards)

    def usage(self, shards: Sequence[Shard]) -> str:
        """The options of its training."""
        return f"    train.py --json_file DEST/{shards[0].split}.jsonl --image_path DEST …\n\n{loose.ABOUT_PROVENANCE}"


def _row(one: Loaded) -> dict[str, Any]:
    return {
        "task_type": one.example.task,
        "instruction": one.example.prompt,
        "input_images": [file.path for file in one.inputs],
        "output_image": one.output.path,
    }
