"""Pictures drawn with a network in training, to see what it has learned. Knows no files, no rows and no autoencoder.

Euler steps of the rectified flow from noise (t = 0) to image (t = 1) at even times: a scheduler's ``shift`` is not
used. Guidance is that of sampling (docs/engine.md). There is no condition cache: a step is one pass over all branches
of a picture, padded to the longest.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise

import torch
from torch import Tensor

from omnigen_actor.model.prompt import DEFAULT_NEGATIVE_PROMPT, Segment, Tokenize, images_only_prompt, segments
from omnigen_actor.model.sampler import branch_weights, euler_times, guide
from omnigen_actor.training.flow import Example
from omnigen_actor.training.network import Network
from omnigen_actor.training.packing import PackedBatch, TrainingRow, pack, patchify, unpatchify

NUM_STEPS = 20
GUIDANCE_SCALE, IMG_GUIDANCE_SCALE = 2.0, 1.5
"""As jobs.evaluate has them."""


@torch.no_grad()
def draw(
    network: Network,
    tokenize: Tokenize,
    examples: Sequence[Example],
    noises: Sequence[Tensor],
    *,
    num_steps: int = NUM_STEPS,
) -> list[Tensor]:
    """What the network makes of noise (channels, h, w), one for each example: latents of that shape, fp32 on the CPU.

    Picture after picture, so that memory does not grow with their number. Targets are not looked at. Weights and
    generators stay as they are.
    """
    return [
        _drawn(network, _branches(example, tokenize), example.inputs, noise, num_steps)
        for example, noise in zip(examples, noises, strict=True)
    ]


def _drawn(
    network: Network, branches: dict[tuple[Segment, ...], float], inputs: tuple[Tensor, ...], noise: Tensor, steps: int
) -> Tensor:
    config = network.config
    device = network.get_parameter("norm.weight").device
    batch = _packed(network, list(branches), inputs, noise).to(device)
    patches = patchify(noise[None], config.patch_size)[0].to(device)
    for time, next_time in pairwise(euler_times(steps).tolist()):
        # Only these change from step to step; the mask of a large picture takes long to build.
        noisy, times = patches.repeat(len(branches), 1), torch.full_like(batch.times, time)
        velocities = network(replace(batch, noisy_patches=noisy, times=times)).chunk(len(branches))
        patches = patches + (next_time - time) * guide(list(branches.values()), velocities)
    return unpatchify(patches[None], config.patch_size, *noise.shape[-2:])[0].cpu()


def _packed(
    network: Network, prompts: Sequence[tuple[Segment, ...]], inputs: tuple[Tensor, ...], noise: Tensor
) -> PackedBatch:
    rows = [TrainingRow(segments=one, inputs=inputs, noisy=noise[None], times=torch.zeros(1)) for one in prompts]
    return pack(rows, network.config.patch_size, network.config.pos_embed_max_size)


def _branches(example: Example, tokenize: Tokenize) -> dict[tuple[Segment, ...], float]:
    """The prompts of the branches that count, with their weights; those of equal prompts are added."""
    weights = branch_weights(GUIDANCE_SCALE, IMG_GUIDANCE_SCALE, has_images=bool(example.inputs))
    others = (images_only_prompt(len(example.inputs)), DEFAULT_NEGATIVE_PROMPT)
    prompts = (example.segments, *(segments(one, tokenize) for one in others))
    found: dict[tuple[Segment, ...], float] = {}
    for prompt, weight in zip(prompts, weights, strict=True):
        if weight:
            found[prompt] = found.get(prompt, 0.0) + weight
    return found
