"""Attention of many sequences that lie packed in one tensor, through the fastest kernel that the device has.

Knows no rows, branches or caches: only how many queries and keys each sequence has. No mask is ever built here.

Tensor suffixes: M packed queries, S packed keys, H heads, G key/value heads, D head size.
"""

from __future__ import annotations

import inspect
import warnings
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from functools import partial
from itertools import accumulate
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

from omnigen_actor.errors import ModelError, first_line

BACKENDS = {
    "cudnn": SDPBackend.CUDNN_ATTENTION,
    "flash": SDPBackend.FLASH_ATTENTION,
    "efficient": SDPBackend.EFFICIENT_ATTENTION,
    "math": SDPBackend.MATH,
}


@dataclass(frozen=True, slots=True)
class Group:
    """Neighbouring sequences of equal lengths: one call of a kernel that knows batches."""

    num_sequences: int
    queries: slice
    keys: slice


@dataclass(frozen=True, slots=True)
class Layout:
    """Which packed queries attend to which packed keys: sequence by sequence, all of its queries to all of its keys."""

    groups: tuple[Group, ...]
    query_starts: Tensor
    key_starts: Tensor
    max_queries: int
    max_keys: int

    @classmethod
    def of(cls, num_queries: Sequence[int], num_keys: Sequence[int], device: torch.device) -> Layout:
        """The layout of sequences that follow each other. Equal neighbours become one group."""
        return cls(
            groups=tuple(_groups(num_queries, num_keys)),
            query_starts=_starts(num_queries, device),
            key_starts=_starts(num_keys, device),
            max_queries=max(num_queries),
            max_keys=max(num_keys),
        )


Kernel = Callable[[Tensor, Tensor, Tensor, Layout], Tensor]
"""(query_MHD, key_SGD, value_SGD, layout) -> output_MHD."""


def pick_kernel(name: str, device: torch.device, dtype: torch.dtype, head_size: int) -> Kernel:
    """The kernel of that name, tried once. Raises ModelError for what can't run here.

    ``auto``: variable lengths in one call where torch has that for this device and dtype, else one call for each group
    through the kernel that torch prefers.
    """
    if name not in ("auto", "varlen", *BACKENDS):
        raise ModelError(f"attention {name!r} is unknown; known: auto, varlen, {', '.join(BACKENDS)}")
    kernel = _kernel(name, device, dtype)
    token = torch.zeros(16, 1, head_size, device=device, dtype=dtype)
    try:
        with warnings.catch_warnings(action="ignore"):  # torch warns of each reason before it raises
            kernel(token, token, token, Layout.of([16], [16], device))
    except (RuntimeError, NotImplementedError) as error:
        raise ModelError(
            f"attention {name!r} can't run on {device} in {dtype} ({first_line(error)}): use auto"
        ) from None
    return kernel


def _kernel(name: str, device: torch.device, dtype: torch.dtype) -> Kernel:
    if name == "varlen" or (name == "auto" and has_varlen(device, dtype)):
        if not has_varlen(device, dtype):
            raise ModelError(f"attention 'varlen' needs a GPU from Ampere on, bfloat16 and torch ≥ 2.10, not {device}")
        return _varlen_kernel()
    return grouped if name == "auto" else partial(grouped, backend=BACKENDS[name])


def has_varlen(device: torch.device, dtype: torch.dtype) -> bool:
    """Whether torch can attend over variable lengths there."""
    if device.type != "cuda" or dtype not in (torch.bfloat16, torch.float16):
        return False
    return torch.cuda.get_device_capability(device)[0] >= 8 and _varlen() is not None


def grouped(
    query_MHD: Tensor, key_SGD: Tensor, value_SGD: Tensor, layout: Layout, backend: SDPBackend | None = None
) -> Tensor:
    """One call of scaled_dot_product_attention for each group."""
    found = []
    with sdpa_kernel(backend) if backend is not None else nullcontext():
        for group in layout.groups:
            batch = (query_MHD[group.queries], key_SGD[group.keys], value_SGD[group.keys])
            out = _scaled_dot_product(*(part.view(group.num_sequences, -1, *part.shape[1:]) for part in batch))
            found.append(out.flatten(0, 1))
    return found[0] if len(found) == 1 else torch.cat(found)


def attend(query_NHD: Tensor, key_SGD: Tensor, value_SGD: Tensor, mask: Tensor | None = None) -> Tensor:
    """Attention of one sequence; ``mask`` (N, S) is true where a query sees a key."""
    return _scaled_dot_product(query_NHD[None], key_SGD[None], value_SGD[None], mask)[0]


def _scaled_dot_product(query_BNHD: Tensor, key_BSGD: Tensor, value_BSGD: Tensor, mask: Tensor | None = None) -> Tensor:
    out = F.scaled_dot_product_attention(
        query_BNHD.transpose(1, 2),
        key_BSGD.transpose(1, 2),
        value_BSGD.transpose(1, 2),
        attn_mask=mask,
        enable_gqa=query_BNHD.shape[2] != key_BSGD.shape[2],
    )
    return out.transpose(1, 2)


def _varlen() -> Callable[..., Any] | None:
    try:
        from torch.nn.attention.varlen import varlen_attn
    except ImportError:
        return None
    return varlen_attn


def _varlen_kernel() -> Kernel:
    attention = _varlen()
    assert attention is not None
    parameters = inspect.signature(attention).parameters
    # Without splitting the keys, a sequence's result does not depend on how long the others of the wave are.
    options: dict[str, Any] = {"num_splits": 1} if "num_splits" in parameters else {}

    def kernel(query_MHD: Tensor, key_SGD: Tensor, value_SGD: Tensor, layout: Layout) -> Tensor:
        more = {"enable_gqa": True} if query_MHD.shape[1] != key_SGD.shape[1] else {}
        out: Tensor = attention(
            query_MHD,
            key_SGD,
            value_SGD,
            layout.query_starts,
            layout.key_starts,
            layout.max_queries,
            layout.max_keys,
            **options,
            **more,
        )
        return out

    return kernel


def _groups(num_queries: Sequence[int], num_keys: Sequence[int]) -> list[Group]:
    found: list[Group] = []
    lengths = list(zip(num_queries, num_keys, strict=True))
    first = query = key = 0
    while first < len(lengths):
        last = first
        while last < len(lengths) and lengths[last] == lengths[first]:
            last += 1
        count = last - first
        next_query, next_key = query + count * lengths[first][0], key + count * lengths[first][1]
        found.append(Group(count, slice(query, next_query), slice(key, next_key)))
        first, query, key = last, next_query, next_key
    return found


def _starts(lengths: Sequence[int], device: torch.device) -> Tensor:
    return torch.tensor([0, *accumulate(lengths)], dtype=torch.int32, device=device)
