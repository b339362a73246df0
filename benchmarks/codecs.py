"""``python -m benchmarks.codecs``: what it costs to encode an image, by codec and setting, on one core.

The pictures are 1024 × 1024 mosaics of 256-pixel squares cut from photographs. They are turned and flipped, so that no
square repeats, but never scaled: that would make them smoother than photographs are. The rows marked * are the settings
of ``omnigen_actor.images.encode``.
"""

from __future__ import annotations

import argparse
import io
import os
import statistics
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, features

from benchmarks import report
from omnigen_actor import images

SIDE = 1024
TILE = 256
TILES = (SIDE // TILE) ** 2
PHOTOS = Path(__file__).parent.parent / "examples" / "photos"

Codec = Callable[[Image.Image], bytes]


def pillow(image_format: str, **options: Any) -> Codec:
    """An encoder with settings of its own."""

    def run(image: Image.Image) -> bytes:
        file = io.BytesIO()
        image.save(file, image_format, **options)
        return file.getvalue()

    return run


def ours(image_format: str) -> Codec:
    """The encoder of the project."""
    return lambda image: images.encode(image, image_format)


CODECS: dict[str, Codec] = {
    "png, Pillow's default (level 6)": pillow("PNG"),
    "png, level 3": pillow("PNG", compress_level=3),
    "png, level 1 *": ours("png"),
    "png, level 0": pillow("PNG", compress_level=0),
    "webp lossless, Pillow's default": pillow("WEBP", lossless=True),
    "webp lossless, method 0, quality 0 *": ours("webp"),
    "jpeg, quality 95, 4:4:4 *": ours("jpeg"),
    "jpeg, quality 95, 4:2:0": pillow("JPEG", quality=95),
}


def tiles(folder: Path) -> list[Image.Image]:
    """Squares of TILE pixels from the *.jpg of a folder, each in all eight positions."""
    squares = [square for path in sorted(folder.glob("*.jpg")) for square in _squares(_decoded(path))]
    found = [*squares, *(square.transpose(turn) for square in squares for turn in Image.Transpose)]
    if len(found) < TILES:
        raise SystemExit(f"{folder}: its *.jpg give {len(found)} squares of {TILE} pixels, and {TILES} are needed")
    return found


def mosaic(squares: list[Image.Image], number: int) -> Image.Image:
    """One picture of SIDE pixels, each with the squares in another order."""
    picture = Image.new("RGB", (SIDE, SIDE))
    order = np.random.default_rng(number).permutation(len(squares))
    for place in range(TILES):
        row, column = divmod(place, SIDE // TILE)
        picture.paste(squares[order[place]], (column * TILE, row * TILE))
    return picture


def measure(pictures: list[Image.Image], num_rounds: int) -> dict[str, dict[str, float]]:
    """Images a second (best and median round) and mean bytes of each codec."""
    mean_bytes = {name: statistics.mean(len(codec(picture)) for picture in pictures) for name, codec in CODECS.items()}
    contenders: dict[str, report.Timed] = {
        name: partial(_encode_all, codec, pictures) for name, codec in CODECS.items()
    }
    return {
        name: {
            "images_per_s_best": len(pictures) / min(seconds),
            "images_per_s_median": len(pictures) / statistics.median(seconds),
            "mean_bytes": mean_bytes[name],
        }
        for name, seconds in report.rounds(contenders, num_rounds).items()
    }


def print_table(results: dict[str, dict[str, float]]) -> None:
    """One line per codec."""
    print(f"{f'{SIDE} x {SIDE}, one core':40}{'img/s':>8}{'median':>8}{'KB':>8}")
    for name, result in results.items():
        best, median, mean_bytes = result.values()
        print(f"{name:40}{best:8.1f}{median:8.1f}{mean_bytes / 1000:8.0f}")


def circumstances(num_pictures: int, num_rounds: int) -> dict[str, Any]:
    """What the common provenance does not say; the command without the folder it lies in."""
    return {
        "command": f"python -m benchmarks.codecs --pictures {num_pictures} --rounds {num_rounds}",
        "load": [round(load, 1) for load in os.getloadavg()],
        "codecs": {name: features.version(name) for name in ("zlib", "zlib_ng", "webp", "libjpeg_turbo")},
    }


def main() -> None:
    """Print the table; write it as JSON where --output says."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.codecs", description="Encoding speed by codec, one core."
    )
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--pictures", type=int, default=4)
    parser.add_argument("--photos", type=Path, default=PHOTOS, metavar="FOLDER")
    parser.add_argument("--output", type=Path, metavar="FILE", help="write the figures as JSON")
    arguments = parser.parse_args()
    _use_one_core()
    squares = tiles(arguments.photos)
    pictures = [mosaic(squares, number) for number in range(arguments.pictures)]
    results = measure(pictures, arguments.rounds)
    print_table(results)
    report.save(arguments.output, circumstances(arguments.pictures, arguments.rounds) | {"results": results})


def _decoded(path: Path) -> Image.Image:
    return images.decode(path.read_bytes(), max_pixels=100_000_000)


def _squares(photo: Image.Image) -> Iterator[Image.Image]:
    for left in range(0, photo.width - TILE + 1, TILE):
        for top in range(0, photo.height - TILE + 1, TILE):
            yield photo.crop((left, top, left + TILE, top + TILE))


def _encode_all(codec: Codec, pictures: list[Image.Image]) -> None:
    for picture in pictures:
        codec(picture)


def _use_one_core() -> None:
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})


if __name__ == "__main__":
    main()
