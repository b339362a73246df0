"""The engine against diffusers' transformer: equal weights, rows, steps, guidance, sizes and starting latents.

Two baselines, both with diffusers' own transformer, prompt processing and collator:

    batched    as diffusers' users call it: all branches padded into one batch, dense mask. Its images are wrong where
               the branches differ in length (tests/test_parity.py), so its time is compared and its result is not.
    branches   one branch at a time, no padding: the reference that the engine must equal, checked in each run.

The floor is what the matrix products of the condition cache would take at the rate that this machine reaches in one
large product, measured in the same run. Steps are few to keep `make bench` short; a prefill is paid once, so more steps
favour the engine. The condition of the negative prompt is warm, as it is after an actor's first row.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image

sys.path.insert(0, str(Path(__file__).parents[1]))  # the reference lives with the tests

from benchmarks import report
from omnigen_actor.checkpoint.tiny import write_tiny_checkpoint
from omnigen_actor.engine import OmniGenEngine
from omnigen_actor.engine_settings import EngineSettings
from omnigen_actor.placeholders import placeholder
from omnigen_actor.types import Request
from tests.reference import Reference, relative_error, to_tensor

MODEL = {"hidden_size": 768, "num_attention_heads": 8, "num_key_value_heads": 8, "num_layers": 6}
MODEL |= {"intermediate_size": 2048, "original_max_position_embeddings": 4096, "max_position_embeddings": 131072}


@dataclass(frozen=True, slots=True)
class Shape:
    """One row of the table."""

    name: str
    num_images: int
    side: int

    def request(self, steps: int) -> Request:
        """A row of this shape; the image first, as the authors' edits have it."""
        images = tuple(photograph(self.side, seed) for seed in range(self.num_images))
        marks = " ".join(placeholder(number) for number in range(1, self.num_images + 1))
        prompt = f"{marks} a small red boat on a quiet lake in front of snowy mountains at dawn".strip()
        return Request(
            id=self.name, prompt=prompt, images=images, width=self.side, height=self.side, seed=7, steps=steps
        )


def shapes(side: int) -> tuple[Shape, ...]:
    """Text, one image, three images."""
    names = (f"text → {side}²", f"1 × {side}² → {side}²", f"3 × {side}² → {side}²")
    return tuple(Shape(name, num_images, side) for name, num_images in zip(names, (0, 1, 3), strict=True))


def main() -> None:
    """Print the table, and save it where asked."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--side", type=int, default=256, help="pixels of input and output sides")
    parser.add_argument("--steps", type=int, default=10)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--output", type=Path)
    options = parser.parse_args()
    print(f"hidden size {MODEL['hidden_size']}, {MODEL['num_layers']} layers, fp32, {torch.get_num_threads()} threads")
    print(f"{options.steps} steps, {options.rounds} rounds in turn")
    print(f"{'row':<18}{'engine s':>10}{'batched s':>11}{'branches s':>12}{'batched/engine':>24}{'branches/engine':>24}"
          f"{'of floor':>10}{'error':>10}")  # fmt: skip
    with tempfile.TemporaryDirectory() as scratch:
        write_tiny_checkpoint(Path(scratch), **MODEL)
        engine = OmniGenEngine.from_pretrained(scratch, EngineSettings(device="cpu"))
        reference = Reference(Path(scratch))
        rows = [measure(shape, engine, reference, options) | {"row": shape.name} for shape in shapes(options.side)]
    report.save(options.output, {"steps": options.steps, "model": MODEL, "rows": rows})


def measure(
    shape: Shape, engine: OmniGenEngine, reference: Reference, options: argparse.Namespace
) -> dict[str, object]:
    """Time one shape and print its line."""
    request = shape.request(options.steps)
    contenders = {"engine": lambda: engine.latents([request])[0]}
    contenders |= {name: baseline(reference, request, batched=name == "batched") for name in ("batched", "branches")}
    error = relative_error(contenders["engine"](), contenders["branches"]())
    if error > 1e-4:
        raise SystemExit(f"{shape.name}: the engine's latent is off by {error:.1e}: this would compare unequal work")
    rate = matmul_rate()  # beside each shape, as a shared machine drifts
    seconds = report.rounds({name: report.timed(run) for name, run in contenders.items()}, options.rounds)
    median = {name: statistics.median(values) for name, values in seconds.items()}
    against = {name: report.ratios(seconds[name], seconds["engine"]) for name in ("batched", "branches")}
    floor = floor_flops(shape, reference, options.steps) / rate
    spans = [f"{r['median']:.2f} ({r['min']:.2f}–{r['max']:.2f})" for r in against.values()]
    print(f"{shape.name:<18}{median['engine']:>10.2f}{median['batched']:>11.2f}{median['branches']:>12.2f}{spans[0]:>24}"
          f"{spans[1]:>24}{floor / median['engine']:>10.0%}{error:>10.0e}")  # fmt: skip
    return {"seconds": seconds, "ratios": against, "floor_seconds": floor, "matmul_gflops": rate / 1e9, "error": error}


def baseline(reference: Reference, request: Request, *, batched: bool) -> Callable[[], torch.Tensor]:
    """Diffusers' denoising loop over one row, from collated inputs and encoded images to the final latent."""
    prepared = reference.prepare(request, batched=batched)
    return lambda: reference.denoise(request, prepared)


def floor_flops(shape: Shape, reference: Reference, steps: int) -> float:
    """Multiply-adds × 2 of the exact mathematics: a prefill of each branch, then steps over the image tokens only."""
    hidden, ffn = MODEL["hidden_size"], MODEL["intermediate_size"]
    num_image_tokens = (shape.side // 16) ** 2
    request = shape.request(steps)
    inputs = reference.branch_inputs(request, [to_tensor(image) for image in request.images])
    total = 0.0
    for prefix in (len(one["input_ids"]) for one in inputs):
        for tokens, keys in ((prefix + steps, prefix / 2), (num_image_tokens * steps, prefix + 1 + num_image_tokens)):
            linear = 4 * hidden * hidden + 3 * hidden * ffn
            total += MODEL["num_layers"] * tokens * (2 * linear + 4 * keys * hidden)
    return total


def matmul_rate(size: int = 2048) -> float:
    """FLOP/s of one large fp32 product: the best of five."""
    a, b = torch.randn(size, size), torch.randn(size, size)
    times = []
    for _ in range(5):
        started = time.perf_counter()
        torch.mm(a, b)
        times.append(time.perf_counter() - started)
    return 2 * size**3 / min(times)


def photograph(side: int, seed: int) -> Image.Image:
    """A smooth picture of that size."""
    small = np.random.default_rng(seed).integers(0, 256, (8, 8, 3), dtype=np.uint8)
    return Image.fromarray(small).resize((side, side), Image.Resampling.BICUBIC)


if __name__ == "__main__":
    main()
