"""Every way to run the blocks is diffusers' formula, and one compiled program serves all layers and lengths."""

from __future__ import annotations

import logging
import shutil
from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F  # noqa: N812
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch._dynamo.testing import CompileCounterWithBackend

from omnigen_actor.model.blocks import (
    Blocks,
    BlockShape,
    CompiledBlocks,
    InPlaceBlocks,
    LayerWeights,
    Projected,
    Rotary,
    compile_blocks,
    rotate,
    rotate_in_place,
)
from omnigen_actor.model.fp8 import Fp8Weight, quantize

SHAPE = BlockShape(num_heads=4, num_kv_heads=2, head_size=16, eps=1e-5)
HIDDEN, INTERMEDIATE, NUM_LAYERS = 64, 96, 3

numbers_of_tokens = st.lists(st.integers(1, 40), min_size=2, max_size=5)


def make_layers(dtype: torch.dtype = torch.float32, *, fp8: bool = False) -> list[LayerWeights]:
    generator = torch.Generator().manual_seed(0)
    num_heads = SHAPE.num_heads + 2 * SHAPE.num_kv_heads

    def matrix(num_out: int, num_in: int) -> Tensor | Fp8Weight:
        weight = (torch.randn(num_out, num_in, generator=generator) / num_in**0.5).to(dtype)
        return quantize(weight) if fp8 else weight

    def norm() -> Tensor:
        return (1 + 0.3 * torch.randn(HIDDEN, generator=generator)).to(dtype)

    return [
        LayerWeights(
            input_norm=norm(),
            qkv=matrix(num_heads * SHAPE.head_size, HIDDEN),
            out=matrix(HIDDEN, SHAPE.num_heads * SHAPE.head_size),
            post_norm=norm(),
            gate_up=matrix(2 * INTERMEDIATE, HIDDEN),
            down=matrix(HIDDEN, INTERMEDIATE),
        )
        for _ in range(NUM_LAYERS)
    ]


def make_pass(num_tokens: int, dtype: torch.dtype = torch.float32) -> tuple[Tensor, Rotary, Tensor]:
    """Hidden states, rotary tables and what attention gave, of one pass."""
    generator = torch.Generator().manual_seed(num_tokens)
    hidden = torch.randn(num_tokens, HIDDEN, generator=generator)
    angles = 10 * torch.rand(num_tokens, 1, SHAPE.head_size // 2, generator=generator)
    attended = torch.randn(num_tokens, SHAPE.num_heads, SHAPE.head_size, generator=generator)
    return hidden.to(dtype), (1.2 * angles.cos(), 1.2 * angles.sin()), attended.to(dtype)


class PlainBlocks:
    """The formula as diffusers has it, in fp64: separate projections, rotated halves, nothing in place."""

    def __init__(self, layers: list[LayerWeights]) -> None:
        self._layers = layers

    def project(self, layer: int, hidden: Tensor, rotary: Rotary) -> Projected:
        weights = self._layers[layer]
        normed = rms_norm(hidden.double(), weights.input_norm.double())
        counts = (SHAPE.num_heads, SHAPE.num_kv_heads, SHAPE.num_kv_heads)
        to_q, to_k, to_v = weights.qkv.double().split([count * SHAPE.head_size for count in counts])
        query, key, value = (F.linear(normed, to).unflatten(-1, (-1, SHAPE.head_size)) for to in (to_q, to_k, to_v))
        return with_positions(query, rotary), with_positions(key, rotary), value

    def finish(self, layer: int, hidden: Tensor, attended: Tensor) -> Tensor:
        weights = self._layers[layer]
        hidden = hidden.double() + F.linear(attended.double().flatten(1), weights.out.double())
        normed = rms_norm(hidden, weights.post_norm.double())
        gate = F.linear(normed, weights.gate_up[:INTERMEDIATE].double())
        up = F.linear(normed, weights.gate_up[INTERMEDIATE:].double())
        return hidden + F.linear(gate / (1 + torch.exp(-gate)) * up, weights.down.double())


def rms_norm(x: Tensor, weight: Tensor) -> Tensor:
    return x * torch.rsqrt(x.square().mean(dim=-1, keepdim=True) + SHAPE.eps) * weight


def with_positions(x: Tensor, rotary: Rotary) -> Tensor:
    cos, sin = (torch.cat((table, table), dim=-1).double() for table in rotary)
    first, second = x.chunk(2, dim=-1)
    return x * cos + torch.cat((-second, first), dim=-1) * sin


@torch.inference_mode()
def largest_error(blocks: Blocks, expected: Blocks, num_tokens: int, layer: int, dtype: torch.dtype) -> float:
    """The largest relative error of a block's query, key, value and output."""
    hidden, rotary, attended = make_pass(num_tokens, dtype)
    before = hidden.clone()
    found = [*(part.clone() for part in blocks.project(layer, hidden, rotary))]
    assert torch.equal(hidden, before)  # only finish may overwrite it
    found.append(blocks.finish(layer, hidden, attended))
    right = [*(part.clone() for part in expected.project(layer, before, rotary))]
    right.append(expected.finish(layer, before, attended))
    assert {part.dtype for part in found} == {dtype}
    return max(float((f.double() - r.double()).norm() / r.double().norm()) for f, r in zip(found, right, strict=True))


@settings(deadline=None, max_examples=15)
@given(numbers_of_tokens)
def test_in_place_blocks_are_the_plain_formula_whatever_ran_before(lengths: list[int]):
    """Passes of different lengths share one workspace, and so do all layers."""
    layers = make_layers()
    blocks, plain = InPlaceBlocks(layers, SHAPE), PlainBlocks(layers)
    for num_tokens in lengths:
        for layer in range(NUM_LAYERS):
            assert largest_error(blocks, plain, num_tokens, layer, torch.float32) < 1e-6


@pytest.mark.parametrize("num_tokens", [1, 7, 40])
def test_in_place_blocks_in_bfloat16_are_the_formula_up_to_its_rounding(num_tokens: int):
    layers = make_layers(torch.bfloat16)
    error = largest_error(InPlaceBlocks(layers, SHAPE), PlainBlocks(layers), num_tokens, 0, torch.bfloat16)
    assert 1e-4 < error < 0.02


@settings(deadline=None, max_examples=15)
@given(numbers_of_tokens)
@torch.inference_mode()
def test_what_a_block_gave_stays_when_others_follow(lengths: list[int]):
    blocks = InPlaceBlocks(make_layers(), SHAPE)
    given_out: list[tuple[Tensor, Tensor]] = []
    for num_tokens in lengths:
        hidden, rotary, attended = make_pass(num_tokens)
        blocks.project(0, hidden, rotary)
        out = blocks.finish(0, hidden, attended)
        given_out.append((out, out.clone()))
    assert all(torch.equal(out, copy) for out, copy in given_out)


@settings(deadline=None, max_examples=15)
@given(numbers_of_tokens)
@torch.inference_mode()
def test_a_token_is_computed_alike_whatever_is_left_in_the_workspace(lengths: list[int]):
    """To the bit: what an earlier, longer pass left behind is never read."""
    used, layers = None, make_layers()
    for num_tokens in (*lengths, 13):
        hidden, rotary, attended = make_pass(num_tokens)
        used = used or InPlaceBlocks(layers, SHAPE)
        projected = [part.clone() for part in used.project(1, hidden, rotary)]
        out = used.finish(1, hidden, attended)
    fresh, (hidden, rotary, attended) = InPlaceBlocks(layers, SHAPE), make_pass(13)
    assert all(map(torch.equal, projected, fresh.project(1, hidden, rotary)))
    assert torch.equal(out, fresh.finish(1, hidden, attended))


@settings(deadline=None, max_examples=15)
@given(st.integers(1, 9), st.sampled_from([torch.float32, torch.bfloat16]))
def test_rotating_in_place_is_rotating(num_tokens: int, dtype: torch.dtype):
    _, rotary, x = make_pass(num_tokens, dtype)
    expected = with_positions(x.double(), rotary)
    rotated = rotate(x, rotary)
    assert rotated.dtype == dtype
    assert (rotated - expected).norm() / expected.norm() < (1e-6 if dtype == torch.float32 else 0.01)
    rotate_in_place(x, rotary)
    assert (x.double() - rotated.double()).norm() / expected.norm() < 1e-6


@pytest.fixture
def programs(monkeypatch: pytest.MonkeyPatch) -> list[CompileCounterWithBackend]:
    """A counter for each function that is compiled; the tracing is real, only no machine code is made of it."""
    torch._dynamo.reset()
    counters: list[CompileCounterWithBackend] = []
    compile_function = torch.compile

    def counting(function: Callable, **options: object) -> Callable:
        counters.append(CompileCounterWithBackend("eager"))
        return compile_function(function, backend=counters[-1], **options)

    monkeypatch.setattr(torch, "compile", counting)
    return counters


@pytest.mark.parametrize("fp8", [False, True], ids=["tensors", "fp8"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_one_program_per_function_serves_all_layers_and_lengths(programs, fp8: bool, dtype: torch.dtype):
    """And both are compiled before the first row."""
    layers = make_layers(dtype, fp8=fp8)
    blocks = compile_blocks(layers, SHAPE, dtype)
    assert isinstance(blocks, CompiledBlocks)
    assert [program.frame_count for program in programs] == [1, 1]
    for num_tokens in (5, 48, 80, 64, 333, 2, 80):
        for layer in range(NUM_LAYERS):
            error = largest_error(blocks, InPlaceBlocks(layers, SHAPE), num_tokens, layer, dtype)
            assert error < rounding(dtype, fp8=fp8)
    assert [program.frame_count for program in programs] == [1, 1]


def test_nothing_but_the_number_of_tokens_is_left_open(programs):
    """A width that were a variable of the program would cost speed on a GPU."""
    compile_blocks(make_layers(fp8=True), SHAPE, torch.float32)
    for program in programs:
        (graph,) = program.graphs
        inputs = [node.meta["example_value"] for node in graph.graph.nodes if node.op == "placeholder"]
        open_sides = [
            [place for place, side in enumerate(value.shape) if not isinstance(side, int)]
            for value in inputs
            if isinstance(value, Tensor)
        ]
        assert [0] in open_sides
        assert all(sides in ([], [0]) for sides in open_sides)
        assert not any(isinstance(value, float | torch.SymFloat) for value in inputs)


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("g++") is None, reason="needs a C++ compiler")
@pytest.mark.parametrize("fp8", [False, True], ids=["tensors", "fp8"])
@pytest.mark.filterwarnings("ignore::DeprecationWarning:torch.*")  # of torch's own parts, when its compiler is imported
def test_compiled_blocks_are_the_in_place_ones(fp8: bool):
    torch._dynamo.reset()
    layers = make_layers(fp8=fp8)
    blocks = compile_blocks(layers, SHAPE, torch.float32)
    assert isinstance(blocks, CompiledBlocks)
    for num_tokens in (5, 48, 333, 2):
        for layer in range(NUM_LAYERS):
            error = largest_error(blocks, InPlaceBlocks(layers, SHAPE), num_tokens, layer, torch.float32)
            assert error < rounding(torch.float32, fp8=fp8)


def rounding(dtype: torch.dtype, *, fp8: bool) -> float:
    """How far two right answers may be apart. In fp8 a last bit of the input may tip a value to its neighbour."""
    return 1e-6 if dtype == torch.float32 and not fp8 else 0.02


def test_where_compiling_fails_blocks_run_in_place_and_the_log_says_why(monkeypatch, caplog):
    def no_compiler(function: Callable, **options: object) -> Callable:
        raise RuntimeError("no working C++ compiler\nlong story")

    monkeypatch.setattr(torch, "compile", no_compiler)
    with caplog.at_level(logging.WARNING):
        blocks = compile_blocks(make_layers(), SHAPE, torch.float32)
    assert isinstance(blocks, InPlaceBlocks)
    (record,) = caplog.records
    assert record.levelname == "WARNING"
    assert "no working C++ compiler" in record.getMessage()
    assert "long story" not in record.getMessage()
    assert largest_error(blocks, PlainBlocks(make_layers()), 9, 0, torch.float32) < 1e-6


def test_too_little_memory_is_no_reason_to_run_in_place(monkeypatch):
    def no_memory(function: Callable, **options: object) -> Callable:
        raise torch.OutOfMemoryError("out of memory")

    monkeypatch.setattr(torch, "compile", no_memory)
    with pytest.raises(torch.OutOfMemoryError):
        compile_blocks(make_layers(), SHAPE, torch.float32)
