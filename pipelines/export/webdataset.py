"""WebDataset tars: one example is files of one name, one after the other. Pure functions.

A tar has one task and one number of inputs, and every example of it the same members: a reader takes the columns from
the first ones, and drops what comes later.
"""

from __future__ import annotations

import hashlib
import io
import json
import re
import tarfile
from collections.abc import Sequence
from typing import Any

import pyarrow as pa

from pipelines.export import tables
from pipelines.export.examples import Example
from pipelines.export.format import Assembly, File, Loaded, Refusal, Shard
from pipelines.export.read import as_png

_PLAIN_KEY = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,59}")  # readers cut a name at its first dot


class WebDataset:
    """The format ``webdataset``."""

    name = "webdataset"
    has_loose_images = False

    def group(self, task: str, num_inputs: int) -> str:
        """Task and number of inputs."""
        return f"{task}-{num_inputs}"

    def refuse(self, example: Example) -> Refusal | None:  # noqa: ARG002
        """There is nothing that it can't hold."""
        return None

    def write(self, shard: Shard, loaded: Sequence[Loaded], scores: Sequence[pa.Field]) -> list[File]:
        """One tar; none without examples, which readers can't open."""
        if not loaded:
            return []
        sink = io.BytesIO()
        with tarfile.open(fileobj=sink, mode="w", format=tarfile.USTAR_FORMAT) as tar:
            for one in loaded:
                for name, data in _members(one, [field.name for field in scores]):
                    tar.addfile(_header(name, len(data)), io.BytesIO(data))
        return [File(f"{shard.group}/{shard.split}-{shard.index:05d}.tar", sink.getvalue())]

    def assemble(self, shards: Sequence[Shard]) -> list[Assembly]:  # noqa: ARG002
        """Nothing is put together."""
        return []

    def texts(self, shards: Sequence[Shard]) -> list[File]:  # noqa: ARG002
        """None."""
        return []

    def configs(self, shards: Sequence[Shard]) -> list[dict[str, Any]]:
        """One for each group: together they have no common columns."""
        found: dict[str, dict[str, None]] = {}
        for shard in shards:
            found.setdefault(shard.group, {})[shard.split] = None
        return [
            {
                "config_name": group,
                "data_files": [{"split": split, "path": f"{group}/{split}-*.tar"} for split in splits],
            }
            for group, splits in found.items()
        ]

    def usage(self, shards: Sequence[Shard]) -> str:
        """With its own library, and with ``datasets``."""
        first = shards[0]
        last = max(one.index for one in shards if (one.group, one.split) == (first.group, first.split))
        tars = f"{first.split}-{{00000..{last:05d}}}" if last else f"{first.split}-00000"
        return (
            "    import webdataset\n\n"
            f'    rows = webdataset.WebDataset("DEST/{first.group}/{tars}.tar", shardshuffle=False).decode("pil")\n\n'
            "    from datasets import load_dataset\n\n"
            f'    rows = load_dataset("DEST", "{first.group}", split="{first.split}")\n\n'
            "A tar, or a configuration, has one task and number of inputs. Members: `input1.png` … in the order of "
            "the inputs, `output` with the extension of the store, `json`."
        )


def key_of(row_id: str, sample: int) -> str:
    """A key that no other image has, without dots, and short enough for every tar."""
    if _PLAIN_KEY.fullmatch(row_id):
        return f"{row_id}-{sample}"
    return f"~{hashlib.sha256(row_id.encode()).hexdigest()[:32]}-{sample}"


def _members(one: Loaded, score_names: Sequence[str]) -> list[tuple[str, bytes]]:
    """Inputs are PNG for all: members of one place with different extensions would be different columns."""
    key = key_of(one.example.id, one.example.sample)
    inputs = [(f"{key}.input{number}.png", as_png(file).data) for number, file in enumerate(one.inputs, 1)]
    output = (f"{key}.output{one.output.extension}", one.output.data)
    return [*inputs, output, (f"{key}.json", _facts(one, score_names))]


def _facts(one: Loaded, score_names: Sequence[str]) -> bytes:
    """The same keys in every example, and no null and no empty list, of which a reader could not tell the type."""
    cells = tables.cells(one)
    scores = {name: cells.pop(name) for name in score_names}
    facts = {name: _typed(value) for name, value in cells.items()} | {"scores": _text(scores)}
    return _text(facts).encode()


def _typed(value: object) -> object:
    """Null is an empty text: only texts may be null. A list is JSON in a text."""
    return "" if value is None else _text(value) if isinstance(value, list) else value


def _text(value: object) -> str:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))


def _header(name: str, num_bytes: int) -> tarfile.TarInfo:
    header = tarfile.TarInfo(name)
    header.size, header.mtime, header.mode = num_bytes, 0, 0o644
    return header
