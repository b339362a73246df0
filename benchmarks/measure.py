"""Clocks, memory, the matmul rate and distances, on a GPU or a CPU alike. Knows no models."""

from __future__ import annotations

import gc
import math
import resource
import statistics
import time
from collections.abc import Callable, Mapping
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor

GIB = 2**30


def synchronize(device: torch.device) -> None:
    """Wait for the device."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def seconds(run: Callable[[], object], device: torch.device) -> float:
    """Wall seconds of a call, the device's work included."""
    synchronize(device)
    started = time.perf_counter()
    run()
    synchronize(device)
    return time.perf_counter() - started


def marginal_seconds(runs: Mapping[int, Callable[[], object]], device: torch.device) -> float:
    """Seconds of one more step, from runs of few and of many: leaves out what is paid once.

    Raises ValueError when five tries say that many steps take no longer than few.
    """
    few, many = sorted(runs)
    for _ in range(5):
        difference = seconds(runs[many], device) - seconds(runs[few], device)
        if difference > 0:
            return difference / (many - few)
    raise ValueError(f"{many} steps took no longer than {few}: too short to be measured")


def free_memory(device: torch.device) -> None:
    """Give back what nobody uses, and begin a new peak."""
    gc.collect()
    if device.type == "cuda":
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats(device)


def peak_gib(device: torch.device) -> float:
    """Most memory allocated on a GPU since ``free_memory``; on a CPU the process's peak so far."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / GIB
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / GIB


def peak_reserved_gib(device: torch.device) -> float:
    """As ``peak_gib``, with what the allocator keeps beyond."""
    return torch.cuda.max_memory_reserved(device) / GIB if device.type == "cuda" else peak_gib(device)


def repeated_seconds(run: Callable[[], object], device: torch.device, repeats: int, groups: int) -> float:
    """Median over ``groups`` of the seconds of one call, each group being ``repeats`` calls in a row."""
    run()
    clock = _event_seconds if device.type == "cuda" else _wall_seconds
    return statistics.median(clock(run, repeats) for _ in range(groups)) / repeats


def _event_seconds(run: Callable[[], object], repeats: int) -> float:
    first: Any = torch.cuda.Event(enable_timing=True)  # type: ignore[no-untyped-call]
    last: Any = torch.cuda.Event(enable_timing=True)  # type: ignore[no-untyped-call]
    first.record()
    for _ in range(repeats):
        run()
    last.record()
    last.synchronize()
    return float(first.elapsed_time(last)) / 1000


def _wall_seconds(run: Callable[[], object], repeats: int) -> float:
    started = time.perf_counter()
    for _ in range(repeats):
        run()
    return time.perf_counter() - started


def matmul_rate(device: torch.device, dtype: torch.dtype, sides: tuple[int, int, int]) -> float:
    """FLOP/s of the product of random matrices (M, K) × (N, K) transposed, as linear layers have it."""
    m, n, k = sides
    x = torch.randn(m, k, device=device, dtype=dtype)
    weight = torch.randn(n, k, device=device, dtype=dtype)
    repeats, groups = (20, 11) if device.type == "cuda" else (2, 3)
    return 2 * m * n * k / repeated_seconds(lambda: F.linear(x, weight), device, repeats, groups)


def rates(device: torch.device, dtype: torch.dtype, config: Mapping[str, Any]) -> dict[str, Any]:
    """FLOP/s of one large product, and of the model's own four products at several numbers of packed tokens."""
    hidden, ffn = config["hidden_size"], config["intermediate_size"]
    products = {
        "qkv": (3 * hidden, hidden),
        "out": (hidden, hidden),
        "gate_up": (2 * ffn, hidden),
        "down": (hidden, ffn),
    }
    large = 8192 if device.type == "cuda" else 512
    tokens = (2048, 3072, 8192, 12288) if device.type == "cuda" else (128,)
    found = {}
    for m in tokens:
        each = {name: matmul_rate(device, dtype, (m, n, k)) for name, (n, k) in products.items()}
        work = {name: n * k for name, (n, k) in products.items()}
        block = sum(work.values()) / sum(work[name] / rate for name, rate in each.items())
        found[str(m)] = {name: rate / 1e12 for name, rate in (each | {"block": block}).items()}
    return {"matmul_tflops": matmul_rate(device, dtype, (large,) * 3) / 1e12, "shapes_tflops": found}


def relative_error(found: Tensor, expected: Tensor) -> float:
    """Euclidean norm of the difference over that of the expected."""
    return float((found - expected).norm() / expected.norm())


def psnr(found: Tensor, expected: Tensor, *, peak: float) -> float | None:
    """Peak signal-to-noise ratio in dB; None when the two are equal, bit for bit."""
    error = float((found.double() - expected.double()).square().mean())
    return 10 * math.log10(peak**2 / error) if error else None
