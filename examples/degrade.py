"""Degraded copies of the example photographs: rain, raindrops, snow, haze, missing parts. Knows no manifest.

    python examples/degrade.py [FOLDER]

Reads the photographs beside this file and writes the copies among them, or to FOLDER. What falls where depends on the
copy's name alone, so the same versions of numpy and Pillow give the same bytes.
"""

from __future__ import annotations

import argparse
import io
from collections.abc import Callable
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw, ImageFilter, ImageOps

PHOTOS = Path(__file__).parent / "photos"
LONG_SIDE = 288
FINE = 3
"""Streaks and flakes are drawn this many times larger and shrunk, which smooths their edges."""

Pixels = npt.NDArray[np.float64]
"""Height × width × 3, or height × width for a mask; 0 to 1."""

Random = np.random.Generator


def main() -> None:
    """Write all copies."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path, nargs="?", default=PHOTOS)
    folder = parser.parse_args().folder
    for name in COPIES:
        path = folder / name
        path.write_bytes(encoded(name))
        print(f"{path}: {path.stat().st_size} bytes")


def encoded(name: str) -> bytes:
    """The copy of that name as a JPEG file."""
    file = io.BytesIO()
    degraded(name).save(file, "JPEG", quality=88)
    return file.getvalue()


def degraded(name: str) -> Image.Image:
    """The copy of that name."""
    original, spoil = COPIES[name]
    with Image.open(PHOTOS / original) as image:
        upright = ImageOps.exif_transpose(image)
        is_grey = upright.mode == "L"
        photo = ImageOps.contain(upright.convert("RGB"), (LONG_SIDE, LONG_SIDE), Image.Resampling.LANCZOS)
    pixels = spoil(np.asarray(photo) / 255, np.random.default_rng(list(name.encode())))
    spoilt = Image.fromarray(np.clip(np.rint(pixels * 255), 0, 255).astype(np.uint8))
    return spoilt.convert("L") if is_grey else spoilt


def rain(photo: Pixels, random: Random) -> Pixels:
    """Slanted bright streaks, many far and faint ones and few near ones, before a photograph that they dim."""
    height, width = photo.shape[:2]
    streaks = np.zeros((height, width))
    for number, length, thickness, strength in ((420, 12, 2, 0.35), (150, 24, 2, 0.6), (36, 44, 3, 0.75)):
        canvas, pen = _canvas(height, width)
        for x, y, vary in random.random((number, 3)):
            start = np.array([(x * 1.3 - 0.15) * width, (y * 1.3 - 0.2) * height]) * FINE
            end = start + np.array([-0.22, 1.0]) * length * (0.7 + 0.6 * vary) * FINE
            pen.line([*start, *end], fill=int(255 * (0.5 + 0.5 * vary)), width=thickness)
        streaks = _over(streaks, _shrunk(canvas, height, width, blur=FINE / 2) * strength)
    return _blend(photo * 0.88 + 0.05, np.full(3, 0.9), streaks)


def snow(photo: Pixels, random: Random) -> Pixels:
    """Flakes of three distances: small and sharp to large and blurred, drifting to one side."""
    height, width = photo.shape[:2]
    flakes = np.zeros((height, width))
    for number, radius, blur, strength in ((520, 0.9, 0.4, 0.75), (150, 1.8, 0.7, 0.9), (30, 4.0, 1.6, 0.85)):
        canvas, pen = _canvas(height, width)
        for x, y, vary in random.random((number, 3)):
            across = radius * (0.7 + 0.6 * vary) * FINE
            place = np.array([x * width, y * height]) * FINE
            pen.ellipse([*(place - across), *(place + across * np.array([1.0, 1.35]))], fill=255)
        flakes = _over(flakes, _shrunk(canvas, height, width, blur=blur * FINE) * strength)
    return _blend(photo * 0.92 + 0.06, np.ones(3), flakes)


def raindrops(photo: Pixels, random: Random) -> Pixels:
    """Drops on a pane before the camera: each shows the scene upside down and small, with a dark rim and a glint."""
    height, width = photo.shape[:2]
    y, x = np.mgrid[:height, :width].astype(np.float64)
    scene = np.asarray(_image(photo).filter(ImageFilter.GaussianBlur(1.2))) / 255
    spoilt = photo
    for column, row, size, tall in random.random((38, 4)):
        radius = 4.0 + 12.0 * size**2
        right, down = (x - column * width) / radius, (y - row * height) / (radius * (1.0 + 0.35 * tall))
        distance = np.hypot(right, down)
        wide = 0.36 * (0.4 + 0.6 * distance)
        source_x = np.clip(column * width - right * wide * width, 0, width - 1).astype(np.intp)
        source_y = np.clip(row * height - down * wide * height, 0, height - 1).astype(np.intp)
        shade = 1.08 - 0.55 * np.clip(distance - 0.45, 0, 1) - 0.18 * down
        glint = np.clip(1.0 - np.hypot(right + 0.35, down + 0.4) * 4, 0, 1)
        drop = _blend(scene[source_y, source_x] * shade[..., None], np.ones(3), glint * 0.85)
        spoilt = _blend(spoilt, drop, np.clip((1.0 - distance) * radius / 1.6, 0, 1))
    return spoilt


def haze(photo: Pixels, random: Random) -> Pixels:
    """The scattering model, photo · t + light · (1 − t); t is largest at the ground and drifts from place to place."""
    height, width = photo.shape[:2]
    banks = Image.fromarray(random.integers(0, 256, (4, 7), dtype=np.uint8))
    drift = np.asarray(banks.resize((width, height), Image.Resampling.BICUBIC)) / 255
    near = np.linspace(0.0, 1.0, height)[:, None]
    transmitted = 0.25 + 0.2 * near**2 - 0.08 * (drift - 0.5)
    return _blend(np.broadcast_to(np.array([0.78, 0.8, 0.82]), photo.shape), photo, transmitted)


def missing_parts(photo: Pixels, random: Random) -> Pixels:
    """Grey rectangles and white strokes where the photograph is lost."""
    height, width = photo.shape[:2]
    image = _image(photo)
    pen = ImageDraw.Draw(image)
    for left, top in ((0.08, 0.12), (0.44, 0.36), (0.74, 0.62)):
        corner = np.array([left * width, top * height]) + random.integers(-6, 7, 2)
        pen.rectangle([*corner, *(corner + np.array([0.16 * width, 0.2 * height]))], fill=(128, 128, 128))
    for rise in (0.75, 0.3):
        points = [(x * width / 8, (rise + 0.16 * (random.random() - 0.5)) * height) for x in range(1, 8)]
        pen.line(points, fill="white", width=6, joint="curve")
    return np.asarray(image) / 255


COPIES: dict[str, tuple[str, Callable[[Pixels, Random], Pixels]]] = {
    "rocket-rain.jpg": ("rocket.jpg", rain),
    "cat-raindrops.jpg": ("cat.jpg", raindrops),
    "photographer-snow.jpg": ("photographer.jpg", snow),
    "rocket-haze.jpg": ("rocket.jpg", haze),
    "coffee-missing.jpg": ("coffee.jpg", missing_parts),
}
"""Name of the copy -> the photograph, and what happens to it."""


def _canvas(height: int, width: int) -> tuple[Image.Image, ImageDraw.ImageDraw]:
    canvas = Image.new("L", (width * FINE, height * FINE))
    return canvas, ImageDraw.Draw(canvas)


def _shrunk(canvas: Image.Image, height: int, width: int, *, blur: float) -> Pixels:
    soft = canvas.filter(ImageFilter.GaussianBlur(blur))
    return np.asarray(soft.resize((width, height), Image.Resampling.BOX)) / 255


def _over(behind: Pixels, before: Pixels) -> Pixels:
    """Two masks, one before the other."""
    return 1 - (1 - behind) * (1 - before)


def _blend(behind: Pixels, before: Pixels, share: Pixels) -> Pixels:
    """``share`` of ``before``, the rest of ``behind``."""
    return behind * (1 - share[..., None]) + before * share[..., None]


def _image(pixels: Pixels) -> Image.Image:
    return Image.fromarray(np.rint(pixels * 255).astype(np.uint8))


if __name__ == "__main__":
    main()
