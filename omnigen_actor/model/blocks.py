"""The transformer's blocks without their attention: in place on one workspace, or compiled. Knows no sequences.

Both compute the same. In place, nothing large is allocated in a step: on a CPU fresh memory costs more than arithmetic
on it. Compiled, normalisation, rotary embedding and gating are fused: what a GPU waits for beside its products.

Tensor suffixes: M packed tokens, C hidden, H heads, G key/value heads, D head size.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor

from omnigen_actor.errors import first_line
from omnigen_actor.model.fp8 import Fp8Weight, linear

_log = logging.getLogger(__name__)

Rotary = tuple[Tensor, Tensor]
"""fp32 (cos, sin), each (tokens, 1, D / 2): the angles of both halves of a head are the same."""

Projected = tuple[Tensor, Tensor, Tensor]
"""Query (M, H, D), key and value (M, G, D), rotary embedding applied. Valid until that block's ``finish``."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LayerWeights:
    """One block; query, key and value are one matrix, gate and up another."""

    input_norm: Tensor
    qkv: Tensor | Fp8Weight
    out: Tensor | Fp8Weight
    post_norm: Tensor
    gate_up: Tensor | Fp8Weight
    down: Tensor | Fp8Weight


@dataclass(frozen=True, slots=True, kw_only=True)
class BlockShape:
    """What the weights do not tell by themselves."""

    num_heads: int
    num_kv_heads: int
    head_size: int
    eps: float

    def split(self, qkv: Tensor) -> Projected:
        """The three parts of a fused projection (M, (H + 2 G) · D), as views."""
        heads = qkv.view(len(qkv), -1, self.head_size)
        rotated = self.num_heads + self.num_kv_heads
        return heads[:, : self.num_heads], heads[:, self.num_heads : rotated], heads[:, rotated:]


class Blocks(Protocol):
    """All blocks of a model. ``finish`` may overwrite the hidden states that it is given."""

    def project(self, layer: int, hidden_MC: Tensor, rotary: Rotary) -> Projected:
        """Norm, fused projection, rotary embedding."""
        ...

    def finish(self, layer: int, hidden_MC: Tensor, attended_MHD: Tensor) -> Tensor:
        """Output projection, residuals and the gated feed-forward: the block's output (M, C)."""
        ...


class InPlaceBlocks:
    """Eager, on a workspace that grows to the largest pass and is used again by every layer and step."""

    def __init__(self, layers: Sequence[LayerWeights], shape: BlockShape) -> None:
        self._layers = layers
        self._shape = shape
        self._workspace: dict[str, Tensor] = {}

    def project(self, layer: int, hidden_MC: Tensor, rotary: Rotary) -> Projected:
        """See Blocks."""
        weights, shape = self._layers[layer], self._shape
        normed = self._normalise(hidden_MC, weights.input_norm)
        qkv = linear(normed, weights.qkv, self._room("qkv", normed, num_outputs(weights.qkv)))
        query, key, value = shape.split(qkv)
        rotate_in_place(query, rotary)
        rotate_in_place(key, rotary)
        return query, key, value

    def finish(self, layer: int, hidden_MC: Tensor, attended_MHD: Tensor) -> Tensor:
        """See Blocks."""
        weights = self._layers[layer]
        hidden = _add_linear(hidden_MC, attended_MHD.reshape(len(hidden_MC), -1), weights.out)
        normed = self._normalise(hidden, weights.post_norm)
        room = self._room("gate_up", normed, num_outputs(weights.gate_up))
        gate, up = linear(normed, weights.gate_up, room).chunk(2, dim=-1)
        return _add_linear(hidden, F.silu(gate, inplace=True).mul_(up), weights.down)

    def _normalise(self, hidden_MC: Tensor, weight: Tensor) -> Tensor:
        """Root-mean-square norm. A CPU has no kernel for it, and torch's way there takes three fresh tensors."""
        if hidden_MC.device.type != "cpu" or hidden_MC.dtype != torch.float32:
            return F.rms_norm(hidden_MC, hidden_MC.shape[-1:], weight, self._shape.eps)
        width = hidden_MC.shape[-1]
        mean_square = torch.linalg.vector_norm(hidden_MC, dim=-1, keepdim=True).square_().div_(width)
        scale = mean_square.add_(self._shape.eps).rsqrt_()
        return torch.mul(hidden_MC, scale, out=self._room("normed", hidden_MC, width)).mul_(weight)

    def _room(self, name: str, like: Tensor, width: int) -> Tensor:
        room = self._workspace.get(name)
        if room is None or len(room) < len(like):
            room = self._workspace[name] = like.new_empty(len(like), width)
        return room[: len(like)]


class CompiledBlocks:
    """The same, functionally, through torch.compile with the number of tokens left open: one program for all waves."""

    def __init__(self, layers: Sequence[LayerWeights], shape: BlockShape) -> None:
        self._layers = layers
        # Not dynamic=True: widths, heads and fp8's constants would be variables of the program too.
        self._project = torch.compile(_projection(shape))
        self._finish = torch.compile(_feed_forward(shape))

    def project(self, layer: int, hidden_MC: Tensor, rotary: Rotary) -> Projected:
        """See Blocks."""
        return self._project(hidden_MC, self._layers[layer], *rotary)

    def finish(self, layer: int, hidden_MC: Tensor, attended_MHD: Tensor) -> Tensor:
        """See Blocks."""
        return self._finish(hidden_MC, attended_MHD, self._layers[layer])


def compile_blocks(layers: Sequence[LayerWeights], shape: BlockShape, dtype: torch.dtype) -> Blocks:
    """Compiled blocks, warmed up; in-place ones where this machine can't compile, which the log tells."""
    try:
        compiled = CompiledBlocks(layers, shape)
        _warm_up(compiled, layers[0].input_norm, shape, dtype)
    except torch.OutOfMemoryError:
        raise
    except Exception as error:  # a compiler fails in more ways than can be listed, and none of them is the user's
        _log.warning("blocks can't be compiled here, so they run eagerly (%s)", first_line(error))
        return InPlaceBlocks(layers, shape)
    return compiled


@torch.inference_mode()
def _warm_up(blocks: Blocks, like: Tensor, shape: BlockShape, dtype: torch.dtype) -> None:
    """Compile before the first row. Of all sizes only the number of tokens is left open.

    The compiler tunes for the first size, which is of a wave's order. Should it take it for a constant after all, the
    second finds out.
    """
    for num_tokens in (1024, 1536):
        hidden = torch.zeros(num_tokens, len(like), dtype=dtype, device=like.device)
        attended = hidden.new_zeros(num_tokens, shape.num_heads, shape.head_size)
        # Two tensors: a program that has seen one in both places would be compiled again for two.
        cos, sin = (torch.zeros(num_tokens, 1, shape.head_size // 2, device=like.device) for _ in range(2))
        for packed in (hidden, attended, cos, sin):
            torch._dynamo.maybe_mark_dynamic(packed, 0)
        blocks.project(0, hidden, (cos, sin))
        blocks.finish(0, hidden, attended)


def num_outputs(weight: Tensor | Fp8Weight) -> int:
    """Rows of a weight matrix."""
    return len(weight.data if isinstance(weight, Fp8Weight) else weight)


def rotate(x_MHD: Tensor, rotary: Rotary) -> Tensor:
    """Rotary embedding in fp32, in the input's dtype."""
    cos, sin = rotary
    first, second = x_MHD.float().chunk(2, dim=-1)
    return torch.cat((first * cos - second * sin, second * cos + first * sin), dim=-1).to(x_MHD.dtype)


def rotate_in_place(x_MHD: Tensor, rotary: Rotary) -> None:
    """``rotate`` that overwrites its input."""
    if x_MHD.dtype != torch.float32:
        x_MHD.copy_(rotate(x_MHD, rotary))
        return
    cos, sin = rotary
    first, second = x_MHD.chunk(2, dim=-1)
    crossed = first * sin
    first.mul_(cos).addcmul_(second, sin, value=-1)
    second.mul_(cos).add_(crossed)


def _add_linear(hidden_MC: Tensor, x: Tensor, weight: Tensor | Fp8Weight) -> Tensor:
    if isinstance(weight, Fp8Weight):
        return hidden_MC.add_(linear(x, weight))
    return hidden_MC.addmm_(x, weight.T)


def _projection(shape: BlockShape) -> Callable[[Tensor, LayerWeights, Tensor, Tensor], Projected]:
    def project(hidden: Tensor, weights: LayerWeights, cos: Tensor, sin: Tensor) -> Projected:
        normed = F.rms_norm(hidden, hidden.shape[-1:], weights.input_norm, shape.eps)
        query, key, value = shape.split(linear(normed, weights.qkv))
        return rotate(query, (cos, sin)), rotate(key, (cos, sin)), value

    return project


def _feed_forward(shape: BlockShape) -> Callable[[Tensor, Tensor, LayerWeights], Tensor]:
    def finish(hidden: Tensor, attended: Tensor, weights: LayerWeights) -> Tensor:
        hidden = hidden + linear(attended.reshape(len(hidden), -1), weights.out)
        normed = F.rms_norm(hidden, hidden.shape[-1:], weights.post_norm, shape.eps)
        gate, up = linear(normed, weights.gate_up).chunk(2, dim=-1)
        return hidden + linear(F.silu(gate) * up, weights.down)

    return finish
