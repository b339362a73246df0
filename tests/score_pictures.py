"""Pictures that the tests of scorers share: photographs of the examples, and what is done to them."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

from pipelines.scores.scorer import Picture

PHOTOS = Path(__file__).parent.parent / "examples" / "photos"
NAMES = ("astronaut", "cat", "coffee", "pavilion", "photographer", "rocket")


def photo(name: str) -> Image.Image:
    """A photograph in RGB, 300 to 450 pixels a side."""
    with Image.open(PHOTOS / (name if "." in name else f"{name}.jpg")) as image:
        return image.convert("RGB")


def as_jpeg(image: Image.Image, quality: int) -> Image.Image:
    """The picture after a loss that leaves no pixel as it was, as an autoencoder does."""
    file = io.BytesIO()
    image.save(file, "JPEG", quality=quality)
    return Image.open(file).convert("RGB")


def with_disc(image: Image.Image, share: float = 0.05) -> Image.Image:
    """With a red disc in the middle, as wide as that share of the width."""
    edited = image.copy()
    left, top, width = image.width * 0.45, image.height * 0.45, image.width * share
    ImageDraw.Draw(edited).ellipse((left, top, left + width, top + width), fill=(200, 30, 30))
    return edited


def with_noise(image: Image.Image, levels: float) -> Image.Image:
    """With normal noise of that standard deviation."""
    pixels = np.asarray(image, np.float64)
    noise = np.random.default_rng(0).normal(0, levels, pixels.shape)
    return Image.fromarray((pixels + noise).clip(0, 255).astype(np.uint8))


def made(output: Image.Image, *inputs: Image.Image, task: str = "edit") -> Picture:
    """A picture that was made from these."""
    return Picture(id="a", sample=0, sha256="f" * 64, task=task, prompt="", instruction="", image=output, inputs=inputs)
