"""Gradients averaged over the workers of a process group. Knows no model."""

from __future__ import annotations

from collections.abc import Sequence

import torch.distributed
from torch import Tensor

_BUCKET_VALUES = 2**24


def average_gradients(gradients: Sequence[Tensor]) -> None:
    """Replace each gradient by its mean over all workers, many in one message."""
    bucket: list[Tensor] = []
    num_values = 0
    for gradient in gradients:
        bucket.append(gradient)
        num_values += gradient.numel()
        if num_values >= _BUCKET_VALUES:
            _average(bucket)
            bucket, num_values = [], 0
    if bucket:
        _average(bucket)


def _average(bucket: list[Tensor]) -> None:
    flat = torch.cat([gradient.flatten() for gradient in bucket])
    torch.distributed.all_reduce(flat)
    flat /= torch.distributed.get_world_size()
    means = torch.split(flat, [gradient.numel() for gradient in bucket])
    for gradient, mean in zip(bucket, means, strict=True):
        gradient.copy_(mean.view_as(gradient))
