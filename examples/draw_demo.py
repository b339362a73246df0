"""The rows of `make demo`: drawn scenes, photographs, and a chain, all of 64 px. Knows no model.

    python examples/draw_demo.py [FOLDER]

Writes manifest.jsonl and its pictures to demo/ beside this file, or to FOLDER. Scenes are the first samples of a seed
of the drawn world that no training uses; the same versions of numpy and Pillow give the same bytes.
"""

from __future__ import annotations

import argparse
import io
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from PIL import Image, ImageOps

from pipelines.world.presets import SMALL
from pipelines.world.source import manifest_row, rows

HERE = Path(__file__).parent
SEED = 2026
SIDE = SMALL.size

SCENES = (
    "text_to_image", "edit", "canny", "depth", "pose", "segmentation", "condition", "follow_pose", "subject",
    "multi_subject", "referring", "reasoning_edit", "compose", "try_on", "in_context", "denoise", "colorize", "inpaint",
)  # fmt: skip
"""Tasks of the drawn world, each with its first sample; text to image and edits with their first two."""

TWICE = ("text_to_image", "edit")

PHOTOGRAPHS = {
    "cat.jpg": "canny",
    "astronaut.jpg": "segmentation",
    "pavilion.jpg": "depth",
    "coffee-noisy.jpg": "denoise",
}
"""Photographs of photos/, their middle made small, and what is asked of each. The mini model never saw a photograph."""

ALL_OBJECTS = "all objects"

RED = "A large red circle at the top left on a grey background."
YELLOW = "On a mint background, a large yellow circle at the top left."

CHAIN = (
    ("text", "text_to_image", RED, ()),
    ("edges", "canny", None, ("row:chain-1-text",)),
    ("image", "condition", YELLOW, ("row:chain-2-edges",)),
    ("edit", "edit", "Add a small blue square at the bottom right.", ("row:chain-3-image",)),
)
"""Name, task, instruction, images: an image, its edges, another image by these edges, and an edit of that."""

Row = dict[str, Any]


def main() -> None:
    """Write the manifest and all pictures."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path, nargs="?", default=HERE / "demo")
    folder = parser.parse_args().folder
    files = demo()
    for name, data in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(data)
    print(f"{folder}: {len(files)} files")


def demo() -> dict[str, bytes]:
    """All files of the demo by their names."""
    files: dict[str, bytes] = {}
    lines: list[Row] = []
    for row, pictures in (*drawn_rows(), *photograph_rows(), *((row, {}) for row in chain_rows())):
        files |= {name: png(picture) for name, picture in pictures.items()}
        lines.append(row)
    files["manifest.jsonl"] = "".join(json.dumps(row) + "\n" for row in lines).encode()
    return files


def drawn_rows() -> Iterator[tuple[Row, dict[str, Image.Image]]]:
    """Rows of the drawn world, with their input pictures."""
    for task in SCENES:
        for row in rows(SMALL, [task], 2 if task in TWICE else 1, SEED):
            told = manifest_row(row)
            names = [f"{row.id}-{number}.png" for number in range(1, len(row.images) + 1)]
            pictures = zip(names, map(Image.fromarray, row.sample.inputs), strict=True)
            yield line(row.id, task, told["instruction"], names, "the drawn world"), dict(pictures)


def photograph_rows() -> Iterator[tuple[Row, dict[str, Image.Image]]]:
    """A row for each photograph."""
    for name, task in PHOTOGRAPHS.items():
        stem = Path(name).stem
        with Image.open(HERE / "photos" / name) as photo:
            square = ImageOps.fit(ImageOps.exif_transpose(photo).convert("RGB"), (SIDE, SIDE), Image.Resampling.LANCZOS)
        words = ALL_OBJECTS if task == "segmentation" else None
        yield line(f"{task}-{stem}", task, words, [f"{stem}.png"], f"photos/{name}"), {f"{stem}.png": square}


def chain_rows() -> Iterator[Row]:
    """Rows of which each but the first takes the image of the one before."""
    for number, (name, task, instruction, images) in enumerate(CHAIN, 1):
        yield line(f"chain-{number}-{name}", task, instruction, list(images), "written for this example")


def line(row_id: str, task: str, instruction: object, images: list[str], source: str) -> Row:
    """One line of the manifest."""
    return {"id": row_id, "task": task, "instruction": instruction, "images": images, "source": source}


def png(picture: Image.Image) -> bytes:
    """The picture as a small PNG file."""
    file = io.BytesIO()
    picture.save(file, "PNG", optimize=True)
    return file.getvalue()


if __name__ == "__main__":
    main()
