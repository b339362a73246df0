"""Single pictures of the world, for the training of an autoencoder: photos, maps and spoiled ones, in fixed shares."""

from __future__ import annotations

import numpy as np

from pipelines.world.presets import World
from pipelines.world.samples import make_sample
from pipelines.world.shapes import Array

_TASKS = (
    "text_to_image", "text_to_image", "edit", "canny", "depth", "pose", "segmentation", "condition", "try_on",
    "follow_pose", "denoise", "deblur", "inpaint", "colorize", "in_context", "subject",
)  # fmt: skip
"""Each as often as the others. Noise can't be encoded, so half of what is noisy is shown without."""


def picture(world: World, seed: int, index: int) -> Array:
    """The ``index``-th picture (H, W, 3) uint8 of an album."""
    rng = np.random.default_rng([7, index])
    task = _TASKS[rng.integers(len(_TASKS))]
    sample = make_sample(world, task, seed, index)
    shown = (*sample.inputs, sample.output)
    if task == "denoise" and rng.random() < 0.5:
        return sample.output
    return shown[rng.integers(len(shown))]


def pictures(world: World, seed: int, first: int, count: int) -> Array:
    """Some of them, (count, H, W, 3) uint8."""
    return np.stack([picture(world, seed, index) for index in range(first, first + count)])
