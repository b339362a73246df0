"""The world as files: a manifest with truth beside it, and the same samples as an X2I training set.

OUTPUT/manifest.jsonl   rows for the pipeline; ``truth_…`` are columns of the user's own
OUTPUT/x2i.jsonl        task_type, instruction (the whole prompt), input_images, output_image
OUTPUT/images/TASK/INDEX-1.png …, INDEX-output.png

Knows no Ray and no model. The same arguments give the same bytes.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass

from PIL import Image

from omnigen_actor import uri
from omnigen_actor.errors import ConfigError, OutputError
from omnigen_actor.images import EXTENSIONS, encode
from omnigen_actor.tasks import DEFAULT_TASKS
from pipelines.world.presets import World
from pipelines.world.samples import Sample, check_tasks, make_sample
from pipelines.world.scene import Scene
from pipelines.world.shapes import Array

MANIFEST_NAME = "manifest.jsonl"
X2I_NAME = "x2i.jsonl"


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Row:
    """One sample with the names of its files, relative to the output."""

    id: str
    sample: Sample
    images: tuple[str, ...]
    output: str

    def pictures(self) -> Iterator[tuple[str, Array]]:
        """Each file's name and its pixels (H, W, 3) uint8."""
        yield from zip(self.images, self.sample.inputs, strict=True)
        yield self.output, self.sample.output


def rows(world: World, tasks: Sequence[str], num_rows: int, seed: int, image_format: str = "png") -> Iterator[Row]:
    """The first ``num_rows`` rows, one task after the other in turn: more rows begin with the same ones.

    A task that is named several times has that many turns, with different samples.
    """
    for number in range(num_rows):
        turns, turn = divmod(number, len(tasks))
        task = tasks[turn]
        index = turns * tasks.count(task) + tasks[:turn].count(task)
        sample = make_sample(world, task, seed, index)
        extension = EXTENSIONS[image_format]
        yield Row(
            id=f"{task}-{index:06d}",
            sample=sample,
            images=input_names(task, index, len(sample.inputs), extension),
            output=f"{_stem(task, index)}-output{extension}",
        )


def input_names(task: str, index: int, num_inputs: int, extension: str = ".png") -> tuple[str, ...]:
    """What the input pictures of a task's sample are called, relative to the output."""
    return tuple(f"{_stem(task, index)}-{number}{extension}" for number in range(1, num_inputs + 1))


def _stem(task: str, index: int) -> str:
    return f"images/{task}/{index:06d}"


def write_world(
    output_uri: str,
    world: World,
    tasks: Sequence[str],
    num_rows: int,
    seed: int,
    *,
    image_format: str = "png",
) -> None:
    """Write a manifest, an X2I set and their pictures to a folder or URI; files that are there are overwritten.

    Pictures are written one by one; the lines, about 1 kB for each row, are kept until all pictures are there, so that
    a manifest never names what is missing. Raises ConfigError for unknown tasks or formats or no rows, and OutputError
    where the output can't be written.
    """
    _check(tasks, num_rows, image_format)
    manifest: list[str] = []
    x2i: list[str] = []
    try:
        for row in rows(world, tasks, num_rows, seed, image_format):
            for name, picture in row.pictures():
                uri.write_bytes(uri.join(output_uri, name), encode_picture(picture, image_format))
            manifest.append(_line(manifest_row(row)))
            x2i.append(_line(x2i_row(row)))
        uri.write_bytes(uri.join(output_uri, X2I_NAME), "".join(x2i).encode())
        uri.write_bytes(uri.join(output_uri, MANIFEST_NAME), "".join(manifest).encode())
    except uri.UriFailed as error:
        raise OutputError(str(error)) from error


def encode_picture(picture: Array, image_format: str = "png") -> bytes:
    """A picture (H, W, 3) uint8 as a file."""
    return encode(Image.fromarray(picture), image_format)


def manifest_row(row: Row) -> dict[str, object]:
    """A row of the pipeline's manifest. Scenes and facts are JSON texts: they have other keys in each task."""
    sample = row.sample
    side = None if DEFAULT_TASKS.find(sample.task).sized_by_input else sample.output.shape[0]
    return {
        "id": row.id,
        "task": sample.task,
        "instruction": sample.instruction or None,
        "images": list(row.images),
        "width": side,
        "height": side,
        "truth_output": row.output,
        "truth_scene": _json(_plain(sample.scene)),
        "truth_source": _json(_plain(sample.source_scene)),
        "truth_facts": _json(sample.facts),
    }


def x2i_row(row: Row) -> dict[str, object]:
    """A row of a training set in the form of the OmniGen authors' X2I."""
    return {
        "task_type": row.sample.task,
        "instruction": row.sample.prompt(),
        "input_images": list(row.images),
        "output_image": row.output,
    }


def _check(tasks: Sequence[str], num_rows: int, image_format: str) -> None:
    check_tasks(tasks)
    if num_rows < 1:
        raise ConfigError(f"rows={num_rows}: there must be one at least")
    if image_format not in EXTENSIONS:
        raise ConfigError(f"image format {image_format!r} is not known; known: {', '.join(EXTENSIONS)}")


def _plain(scene: Scene | None) -> dict[str, object] | None:
    return None if scene is None else asdict(scene)


def _json(value: object) -> str:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))


def _line(row: dict[str, object]) -> str:
    return json.dumps(row, ensure_ascii=False) + "\n"
