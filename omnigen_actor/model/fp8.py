"""Linear layers in fp8 (e4m3fn): an approximation, off by default. Knows no model and no layer names.

A weight has one scale per output channel, made at load; an activation has one per token, made in the call. No token's
scale depends on another token, so neither do its numbers beyond the rounding of the matrix product itself. The product
accumulates in fp32 (torch's ``use_fast_accum`` stays off) and comes out in bfloat16.

A GPU needs compute capability 8.9 (Ada) or 9.0 (Hopper) and newer. A CPU computes the same numbers in fp32, slowly: it
is there to test them. Nothing here reads a value back from the device, so all of it can be compiled, and should be:
uncompiled, quantising the tokens takes several passes over memory.

Tensor suffixes: M tokens, K input channels, N output channels.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor

from omnigen_actor.errors import ModelError

DTYPE = torch.float8_e4m3fn
LARGEST = torch.finfo(DTYPE).max
ALIGNMENT = 16
"""Both sides of a weight must be multiples of this, for torch's scaled product. The number of tokens is free."""

SMALLEST_SCALE = torch.finfo(torch.float32).tiny
"""The scale of a row of zeros: zero divided by it stays zero."""

PRODUCT_DTYPE = torch.bfloat16
"""What a GPU's scaled product comes out in, whatever the dtype of the model."""

OLDEST_CAPABILITY = (8, 9)


@dataclass(frozen=True, slots=True)
class Fp8Weight:
    """A linear layer's weight, ≈ data × scale: ``data`` (N, K) in float8_e4m3fn, ``scale`` (N, 1) in fp32."""

    data: Tensor
    scale: Tensor


def require(device: torch.device) -> None:
    """Raise ModelError where ``device`` can't do fp8 products. A CPU passes: it emulates them, for tests."""
    if device.type == "cpu":
        return
    if device.type != "cuda":
        raise ModelError(f"fp8 needs a CUDA device, and this one is {str(device)!r}: leave fp8 off")
    _require_capability(torch.cuda.get_device_name(device), torch.cuda.get_device_capability(device))


def quantize(weight: Tensor) -> Fp8Weight:
    """Quantise a linear layer's weight (N, K) of any float dtype, on its device. Raises ModelError for its shape."""
    if weight.dim() != 2 or any(side % ALIGNMENT for side in weight.shape):
        shape = " × ".join(map(str, weight.shape))
        raise ModelError(f"fp8 needs weights with sides that are multiples of {ALIGNMENT}, not {shape}: leave fp8 off")
    return Fp8Weight(*quantize_rows(weight))


def quantize_rows(rows_RK: Tensor) -> tuple[Tensor, Tensor]:
    """Rows (R, K) -> (rows in fp8 (R, K), fp32 scales (R, 1)): the largest value of each row becomes 448.

    A row with a value that is not finite gets a scale that is not finite, and so shows in its own results alone.
    """
    largest_R1 = rows_RK.abs().amax(dim=-1, keepdim=True).float()
    scale_R1 = (largest_R1 / LARGEST).clamp(min=SMALLEST_SCALE)
    scaled_RK = (rows_RK.float() / scale_R1).clamp(-LARGEST, LARGEST)  # rounding up past 448 would be NaN
    return scaled_RK.to(DTYPE), scale_R1


def linear(x_MK: Tensor, weight: Tensor | Fp8Weight, out: Tensor | None = None) -> Tensor:
    """x (M, K) by a weight (N, K) -> (M, N) in x's dtype, into ``out`` where given.

    A Tensor is multiplied exactly as ``F.linear`` does. An Fp8Weight quantises x too.
    """
    if isinstance(weight, Fp8Weight):
        return _fp8_linear(x_MK, weight, out)
    if out is None:
        return F.linear(x_MK, weight)
    return torch.mm(x_MK, weight.t(), out=out)


def _fp8_linear(x_MK: Tensor, weight: Fp8Weight, out: Tensor | None) -> Tensor:
    data_MK, scale_M1 = quantize_rows(x_MK)
    if x_MK.is_cuda:
        room = out if out is not None and out.dtype == PRODUCT_DTYPE else None
        result_MN = _scaled_product(data_MK, scale_M1, weight, room).to(x_MK.dtype)
    else:
        result_MN = _emulated_product(data_MK, scale_M1, weight).to(x_MK.dtype)
    return result_MN if out is None or result_MN is out else out.copy_(result_MN)


def _scaled_product(data_MK: Tensor, scale_M1: Tensor, weight: Fp8Weight, out: Tensor | None) -> Tensor:
    """The device's own product. Its second operand is column-major: a transposed view, no copy."""
    return torch._scaled_mm(
        data_MK,
        weight.data.t(),
        scale_a=scale_M1,
        scale_b=weight.scale.t(),
        out_dtype=PRODUCT_DTYPE,
        use_fast_accum=False,
        out=out,
    )


def _emulated_product(data_MK: Tensor, scale_M1: Tensor, weight: Fp8Weight) -> Tensor:
    """The same in fp32: products of fp8 values are exact there, and the scales come after the sum, as on a GPU."""
    return (data_MK.float() @ weight.data.float().t()) * scale_M1 * weight.scale.t()


def _require_capability(name: str, capability: tuple[int, int]) -> None:
    if capability < OLDEST_CAPABILITY:
        found, needed = (".".join(map(str, pair)) for pair in (capability, OLDEST_CAPABILITY))
        raise ModelError(
            f"fp8 needs compute capability {needed} (Ada, Hopper or newer), and {name} has {found}: leave fp8 off"
        )
