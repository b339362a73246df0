"""fp8 linear layers: how far they move a product, and that a token's result is that token's alone."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor
from torch._dynamo.testing import CompileCounterWithBackend
from torch._subclasses.fake_tensor import FakeTensorMode

from omnigen_actor.errors import ModelError
from omnigen_actor.model import fp8
from omnigen_actor.model.fp8 import Fp8Weight

K, N = 768, 512
GPU = torch.cuda.is_available() and torch.cuda.get_device_capability() >= fp8.OLDEST_CAPABILITY


@pytest.fixture
def tokens() -> Tensor:
    """Tokens (257, K): no multiple of anything, and of very different sizes."""
    generator = torch.Generator().manual_seed(0)
    sizes = torch.logspace(-3, 3, 257)[:, None]
    return torch.randn(257, K, generator=generator) * sizes


@pytest.fixture
def weight() -> Tensor:
    """A weight (N, K) as trained ones are: normal, of the size that keeps a token's."""
    return torch.randn(N, K, generator=torch.Generator().manual_seed(1)) / K**0.5


def errors(found_MN: Tensor, expected_MN: Tensor) -> Tensor:
    """The relative error of each token (M,)."""
    return (found_MN.float() - expected_MN).norm(dim=1) / expected_MN.norm(dim=1)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_product_is_off_by_a_few_percent_whatever_the_size_of_a_token(tokens: Tensor, weight: Tensor, dtype):
    found = fp8.linear(tokens.to(dtype), fp8.quantize(weight.to(dtype)))
    assert found.dtype == dtype
    off = errors(found, tokens @ weight.t())
    assert off.max() < 0.05
    assert off.mean() > 0.02  # else this is not fp8


def test_a_large_channel_costs_the_others_of_its_token_no_more_than_a_few_percent(tokens: Tensor, weight: Tensor):
    """Transformers have channels tens of times larger than the rest."""
    tokens[:, 7] *= 50
    assert errors(fp8.linear(tokens, fp8.quantize(weight)), tokens @ weight.t()).max() < 0.05


def test_a_quantised_weight_is_within_half_a_step_of_the_weight(weight: Tensor):
    quantised = fp8.quantize(weight)
    restored = quantised.data.float() * quantised.scale
    half_step = torch.maximum(weight.abs() / 16, 2**-10 * quantised.scale)  # three bits of mantissa; the subnormals
    assert ((restored - weight).abs() <= half_step * 1.001).all()


def test_each_channel_uses_the_whole_range(weight: Tensor):
    quantised = fp8.quantize(weight * torch.logspace(-4, 4, N)[:, None])
    assert quantised.data.dtype == torch.float8_e4m3fn
    assert (quantised.data.float().abs().amax(dim=1) == fp8.LARGEST).all()
    assert (quantised.scale.shape, quantised.scale.dtype) == ((N, 1), torch.float32)


def test_a_weight_takes_half_the_memory_of_bfloat16(weight: Tensor):
    quantised = fp8.quantize(weight.bfloat16())
    taken = sum(part.untyped_storage().nbytes() for part in (quantised.data, quantised.scale))
    assert taken / weight.bfloat16().untyped_storage().nbytes() == pytest.approx(0.5, abs=0.005)


def test_a_tokens_result_does_not_depend_on_the_tokens_beside_it(tokens: Tensor, weight: Tensor):
    data, scale = fp8.quantize_rows(tokens)
    quantised = fp8.quantize(weight)
    together = fp8.linear(tokens, quantised)
    for row in (0, 100, 256):
        alone_data, alone_scale = fp8.quantize_rows(tokens[row : row + 1])
        assert torch.equal(alone_scale, scale[row : row + 1])
        assert torch.equal(alone_data.float(), data[row : row + 1].float())
        alone = fp8.linear(tokens[row : row + 1], quantised)
        assert errors(alone, together[row : row + 1]).max() < 1e-6  # the rounding of an fp32 product


def test_zeros_give_zeros(tokens: Tensor, weight: Tensor):
    tokens[3] = 0
    weight[5] = 0
    found = fp8.linear(tokens, fp8.quantize(weight))
    assert torch.isfinite(found).all()
    assert (found[3] == 0).all()
    assert (found[:, 5] == 0).all()


@pytest.mark.parametrize("size", [1e-44, 1e-38, 1e30])
def test_values_at_the_edge_of_fp32_stay_finite(size: float, weight: Tensor):
    assert torch.isfinite(fp8.linear(torch.full((2, K), size), fp8.quantize(weight))).all()


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
def test_a_value_that_is_not_finite_shows_in_its_token_alone(value: float, tokens: Tensor, weight: Tensor):
    tokens[3, 5] = value
    finite = torch.isfinite(fp8.linear(tokens, fp8.quantize(weight))).all(dim=1)
    assert not finite[3]
    assert finite.sum() == len(tokens) - 1


@pytest.mark.parametrize("precise", [True, False], ids=["tensor", "fp8"])
def test_out_takes_the_result(precise: bool, tokens: Tensor, weight: Tensor):
    used = weight if precise else fp8.quantize(weight)
    out = torch.empty(len(tokens), N)
    assert fp8.linear(tokens, used, out) is out
    assert torch.equal(out, fp8.linear(tokens, used))


def test_a_tensor_is_multiplied_as_ever(tokens: Tensor, weight: Tensor):
    assert torch.equal(fp8.linear(tokens, weight), F.linear(tokens, weight))


@pytest.mark.parametrize("shape", [(24, 32), (32, 24), (32,)])
def test_a_shape_that_the_product_does_not_take_is_refused_with_the_remedy(shape: tuple[int, ...]):
    with pytest.raises(ModelError, match=r"multiples of 16, not 24|multiples of 16, not 32.*leave fp8 off"):
        fp8.quantize(torch.ones(shape))


def test_a_cpu_may_emulate():
    fp8.require(torch.device("cpu"))


def test_a_device_of_another_make_is_refused():
    with pytest.raises(ModelError, match=r"'mps'.*leave fp8 off"):
        fp8.require(torch.device("mps"))


@pytest.mark.parametrize("capability", [(8, 0), (8, 6)])
def test_an_older_gpu_is_refused_by_name(monkeypatch, capability: tuple[int, int]):
    """No old GPU is at hand, so what torch says of one is written here."""
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: "NVIDIA A100")
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: capability)
    with pytest.raises(ModelError, match=rf"8\.9.*NVIDIA A100 has {capability[0]}\.{capability[1]}.*leave fp8 off"):
        fp8.require(torch.device("cuda"))


@pytest.mark.parametrize("capability", [(8, 9), (9, 0), (12, 0)])
def test_a_newer_gpu_is_accepted(monkeypatch, capability: tuple[int, int]):
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: "NVIDIA")
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: capability)
    fp8.require(torch.device("cuda"))


@pytest.mark.parametrize("num_tokens", [0, 1, 7, 8193])
def test_torch_accepts_the_operands_of_the_gpus_product(num_tokens: int):
    """Shapes, strides and dtypes are checked on tensors without data, so no GPU is needed."""
    with FakeTensorMode():
        x = torch.empty(num_tokens, K, dtype=torch.bfloat16, device="cuda")
        result = fp8.linear(x, fp8.quantize(torch.empty(N, K, dtype=torch.bfloat16, device="cuda")))
        assert (result.shape, result.dtype, result.device.type) == ((num_tokens, N), torch.bfloat16, "cuda")


def test_a_compiled_block_is_one_graph_for_all_layers(tokens: Tensor):
    """A graph break would be an error here, and a layer that compiles again would count."""
    compiled = CompileCounterWithBackend("aot_eager")

    @torch.compile(backend=compiled, fullgraph=True)
    def block(x: Tensor, weight: Fp8Weight) -> Tensor:
        return fp8.linear(F.rms_norm(x, (K,)), weight)

    for layer in range(3):
        weight = fp8.quantize(torch.randn(N, K, generator=torch.Generator().manual_seed(layer)))
        expected = fp8.linear(F.rms_norm(tokens, (K,)), weight)
        assert errors(block(tokens, weight), expected).max() < 1e-5
    assert compiled.frame_count == 1


@pytest.mark.gpu
@pytest.mark.skipif(not GPU, reason="needs a GPU with fp8")
@pytest.mark.parametrize("num_tokens", [1, 7, 257])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_gpu_computes_what_the_cpu_does(num_tokens: int, dtype: torch.dtype, tokens: Tensor, weight: Tensor):
    fp8.require(torch.device("cuda"))
    x = tokens[:num_tokens].to(dtype)
    expected = fp8.linear(x, fp8.quantize(weight)).float()
    on_gpu = fp8.quantize(weight.cuda())
    out = torch.empty(num_tokens, N, dtype=dtype, device="cuda")
    assert fp8.linear(x.cuda(), on_gpu, out) is out
    assert errors(out.cpu(), expected).max() < 0.01
    assert torch.equal(fp8.linear(x.cuda(), on_gpu), out)
