"""The scorer ``phash``: a perceptual hash of 64 bits, by which near-duplicates are found. Knows no model.

The signs of the lowest 8 × 8 frequencies of the picture at 32 × 32 pixels, against their median (imagehash.phash).
Resizing and JPEG change a few bits of it; unlike pictures differ in about 32.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
from PIL import Image

from pipelines.scores.scorer import Picture, Score

COLUMN = "phash"
_SIDE = 8


class PerceptualHash:
    """The hash of each picture, as imagehash writes it: the first bit is the highest."""

    name = "phash"
    columns = pa.schema([(COLUMN, pa.uint64())])
    needs_inputs = False
    num_gpus = 0.0
    batch_size = 64

    def __call__(self, pictures: Sequence[Picture]) -> list[Score]:
        """One dict for each picture."""
        return [{COLUMN: perceptual_hash(picture.image)} for picture in pictures]


def open_phash(options: Mapping[str, Any]) -> PerceptualHash:  # noqa: ARG001
    """The factory of the registry; there are no options."""
    return PerceptualHash()


def perceptual_hash(image: Image.Image) -> int:
    """64 bits; ``f"{value:016x}"`` is what imagehash prints."""
    import imagehash

    bits = np.asarray(imagehash.phash(image, hash_size=_SIDE).hash, bool)
    return int.from_bytes(np.packbits(bits).tobytes(), "big")
