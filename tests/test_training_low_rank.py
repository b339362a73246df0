"""LoRA factors change nothing at first, are what is trained, and mean the same to the engine that merges them."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from omnigen_actor.checkpoint.adapters import open_adapters
from omnigen_actor.checkpoint.opening import open_checkpoint
from omnigen_actor.engine import OmniGenEngine
from omnigen_actor.engine_settings import EngineSettings
from omnigen_actor.errors import ConfigError, ModelError
from omnigen_actor.model.loading import load_tokenizer
from omnigen_actor.model.prompt import segments
from omnigen_actor.model.sampler import noise
from omnigen_actor.training.low_rank import TARGETS, add_low_rank, is_factor, load_adapter, write_adapter
from omnigen_actor.training.network import Network
from omnigen_actor.training.packing import PackedBatch, TrainingRow, pack, patchify
from omnigen_actor.types import Request
from tests import adapter_files
from tests.reference import relative_error

OTHER_TARGETS = ("proj_out", "norm_out.linear", "t_embedder.linear_1", "layers.1.mlp.down_proj")
SIDE = 64
TO_Q = "layers.0.self_attn.to_q"


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.fixture
def network(tiny_model: Path) -> Network:
    """The weights of the tiny checkpoint, without factors."""
    return network_of(tiny_model)


def network_of(model: Path) -> Network:
    network = Network(json.loads((model / "transformer" / "config.json").read_text()))
    network.load_state_dict(load_file(model / "transformer" / "diffusion_pytorch_model.safetensors"))
    return network


def trained(network: Network, rank: int = 3, alpha: float = 7, targets: tuple[str, ...] = TARGETS) -> Network:
    """The network with factors that are not zero."""
    add_low_rank(network, rank, alpha, targets, generator=generator())
    for name, parameter in network.named_parameters():
        if is_factor(name):
            parameter.data.normal_(0.0, 0.1, generator=generator(len(name)))
    return network


def factors_of(network: Network) -> dict[str, Tensor]:
    return {name: parameter.detach() for name, parameter in network.named_parameters() if is_factor(name)}


def batch_for(network: Network, model: Path, prompt: str = "a red boat") -> PackedBatch:
    """One target at time 0, whose noise is that of seed 5."""
    z = noise(5, 4, SIDE // 8, SIDE // 8)[None]
    parts = segments(prompt, load_tokenizer(open_checkpoint(str(model))))
    row = TrainingRow(segments=parts, inputs=(), noisy=z, times=torch.zeros(1))
    return pack([row], network.config.patch_size, network.config.pos_embed_max_size)


@torch.no_grad()
def velocity(network: Network, model: Path) -> Tensor:
    found: Tensor = network(batch_for(network, model))
    return found


def velocity_of_engine(model: Path, *adapters: Path) -> Tensor:
    """What the first step of one adds to the noise of seed 5."""
    settings = EngineSettings(device="cpu", adapters=tuple(map(str, adapters)))
    engine = OmniGenEngine.from_pretrained(str(model), settings)
    request = Request(id="row", prompt="a red boat", width=SIDE, height=SIDE, seed=5, steps=1, guidance_scale=1.0)
    (latent,) = engine.latents([request])
    engine.close()
    return patchify((latent - noise(5, 4, SIDE // 8, SIDE // 8))[None], 2)[0]


def test_nothing_changes_at_first(network: Network, tiny_model: Path) -> None:
    before = velocity(network, tiny_model)
    add_low_rank(network, 4, 8, generator=generator())
    assert torch.equal(velocity(network, tiny_model), before)
    assert factors_of(network)


def test_the_factors_alone_are_trained(network: Network) -> None:
    weights = {name for name, _ in network.named_parameters()}
    add_low_rank(network, 4, 8, generator=generator())
    trained = {name for name, parameter in network.named_parameters() if parameter.requires_grad}
    assert trained == network.state_dict().keys() - weights - {"patch_embedding.pos_embed"}
    assert trained == {
        f"layers.{layer}.{module}.lora_{half}.weight"
        for layer in range(3)
        for module in (*(f"self_attn.{part}" for part in TARGETS[:4]), "mlp.gate_up_proj", "mlp.down_proj")
        for half in "AB"
    }


def test_all_factors_have_gradients_once_b_is_not_zero(network: Network, tiny_model: Path) -> None:
    trained(network)
    network(batch_for(network, tiny_model)).square().mean().backward()
    for name, parameter in network.named_parameters():
        assert (parameter.grad is not None and bool(parameter.grad.any())) == is_factor(name), name


def test_a_is_random_by_its_generator_within_its_bound_and_b_is_zero(tiny_model: Path) -> None:
    first, same, other = (network_of(tiny_model) for _ in range(3))
    for network, seed in ((first, 1), (same, 1), (other, 2)):
        add_low_rank(network, 4, 8, generator=generator(seed))
    for name, factor in factors_of(first).items():
        assert torch.equal(factor, factors_of(same)[name])
        if "lora_B" in name:
            assert not factor.any()
            continue
        bound = factor.shape[1] ** -0.5
        assert 0.9 * bound < factor.abs().max() <= bound
        assert not torch.equal(factor, factors_of(other)[name])


def test_a_copy_has_factors_of_its_own(network: Network, tiny_model: Path) -> None:
    trained(network)
    copied, before = copy.deepcopy(network), velocity(network, tiny_model)
    for factor in factors_of(network).values():
        factor.zero_()
    assert torch.equal(velocity(copied, tiny_model), before)
    assert not torch.equal(velocity(network, tiny_model), before)


def test_factors_stay_fp32_beside_weights_of_half_precision(network: Network, tiny_model: Path) -> None:
    exact = velocity(trained(copy.deepcopy(network)), tiny_model)
    trained(network.bfloat16())
    assert {factor.dtype for factor in factors_of(network).values()} == {torch.float32}
    assert relative_error(velocity(network, tiny_model), exact) < 0.05


@pytest.mark.parametrize("targets", [TARGETS, OTHER_TARGETS])
def test_the_engine_with_the_adapter_equals_the_trained_network(
    targets: tuple[str, ...], network: Network, tiny_model: Path, tmp_path: Path
) -> None:
    trained(network, targets=targets)
    write_adapter(tmp_path, network)
    merged = velocity_of_engine(tiny_model, tmp_path)
    assert relative_error(merged, velocity(network, tiny_model)) <= 1e-5
    assert relative_error(velocity_of_engine(tiny_model), merged) > 1e-2


def test_an_adapter_has_the_names_of_peft_and_the_scale_of_the_network(
    network: Network, tiny_model: Path, tmp_path: Path
) -> None:
    write_adapter(tmp_path, trained(network, 3, 7), base="owner/model")
    names = load_file(tmp_path / "adapter_model.safetensors").keys()
    assert names == {f"base_model.model.{name}" for name in factors_of(network)}
    config = json.loads((tmp_path / "adapter_config.json").read_text())
    expected = {"peft_type": "LORA", "r": 3, "lora_alpha": 7, "base_model_name_or_path": "owner/model", "bias": "none"}
    assert config.items() >= expected.items()
    assert {f"base_model.model.{module}.lora_A.weight" for module in config["target_modules"]} < names
    (adapter,) = open_adapters([str(tmp_path)], open_checkpoint(str(tiny_model)))
    assert len(adapter.parts) == 18
    assert {part.scale for part in adapter.parts} == {7 / 3}


def test_an_adapter_that_was_written_goes_on_as_it_was(network: Network, tiny_model: Path, tmp_path: Path) -> None:
    fresh = network_of(tiny_model)
    write_adapter(tmp_path, trained(network))
    load_adapter(fresh, tmp_path)
    assert fresh.low_rank == network.low_rank
    assert fresh.state_dict().keys() == network.state_dict().keys()
    assert all(torch.equal(tensor, network.state_dict()[name]) for name, tensor in fresh.state_dict().items())
    assert all(parameter.requires_grad == is_factor(name) for name, parameter in fresh.named_parameters())


@pytest.mark.parametrize("prefix", ["base_model.model.", "transformer.", ""])
def test_ranks_and_scales_may_differ_from_layer_to_layer(
    prefix: str, network: Network, tiny_model: Path, tmp_path: Path
) -> None:
    pairs = adapter_files.random_pairs({TO_Q: (96, 96), "layers.2.mlp.down_proj": (96, 192)}, rank=2)
    pairs |= adapter_files.random_pairs({"layers.1.self_attn.to_out.0": (96, 96)}, rank=5)
    config: dict[str, Any] = {"r": 2, "lora_alpha": 1, "use_rslora": True}
    patterns = {"rank_pattern": {"to_out.0": 5}, "alpha_pattern": {"down_proj": 3}}
    first = adapter_files.write_adapter(tmp_path / "a", pairs, prefix, **config, **patterns)
    load_adapter(network, first)
    write_adapter(tmp_path / "b", network)
    expected = velocity_of_engine(tiny_model, first)
    assert relative_error(velocity(network, tiny_model), expected) <= 1e-5
    assert relative_error(velocity_of_engine(tiny_model, tmp_path / "b"), expected) <= 1e-5


@pytest.mark.parametrize("targets", [("to_q", "to_z"), ("o_q",), ("input_layernorm",), ("embed_tokens",)])
def test_a_target_that_is_no_linear_layer_is_named(targets: tuple[str, ...], network: Network) -> None:
    with pytest.raises(ConfigError, match=repr(targets[-1])):
        add_low_rank(network, 4, 8, targets, generator=generator())
    assert not network.low_rank
    assert all(parameter.requires_grad for parameter in network.parameters())


def test_a_rank_is_at_least_one(network: Network) -> None:
    with pytest.raises(ConfigError, match="rank 0"):
        add_low_rank(network, 0, 8, generator=generator())


def test_factors_are_added_once(network: Network, tmp_path: Path) -> None:
    write_adapter(tmp_path, trained(network))
    with pytest.raises(ConfigError, match="already"):
        add_low_rank(network, 4, 8, generator=generator())
    with pytest.raises(ConfigError, match="already"):
        load_adapter(network, tmp_path)


@pytest.mark.parametrize(
    ("shapes", "config", "problem"),
    [
        ({"llm.layers.0.self_attn.qkv_proj": (288, 96)}, {}, "diffusers' names"),
        ({"patch_embedding.output_image_proj": (96, 4, 2, 2)}, {}, "no linear layer"),
        ({TO_Q: (96, 95)}, {}, "lora_A.weight has shape"),
        ({TO_Q: (95, 96)}, {}, "lora_B.weight has shape"),
        ({TO_Q: (96, 96)}, {"r": 4}, "lora_A.weight has shape"),
        ({TO_Q: (96, 96)}, {"use_dora": True}, "use_dora"),
    ],
)
def test_an_adapter_of_other_layers_or_kinds_is_refused(
    shapes: dict[str, tuple[int, ...]], config: dict[str, Any], problem: str, network: Network, tmp_path: Path
) -> None:
    adapter_files.write_adapter(tmp_path, adapter_files.random_pairs(shapes), **config)
    with pytest.raises(ModelError, match=problem):
        load_adapter(network, tmp_path)
    assert all(parameter.requires_grad for parameter in network.parameters())


def test_half_a_pair_and_strange_names_are_refused(network: Network, tmp_path: Path) -> None:
    from safetensors.torch import save_file

    adapter_files.write_adapter(tmp_path, adapter_files.random_pairs({TO_Q: (96, 96)}))
    file = tmp_path / "adapter_model.safetensors"
    whole = load_file(file)
    for tensors, problem in (
        ({name: tensor for name, tensor in whole.items() if "lora_A" in name}, "without its other half"),
        (whole | {"base_model.model.norm.weight": torch.ones(96)}, "norm.weight is no LoRA matrix"),
        ({}, "no tensors"),
    ):
        save_file(tensors, file)
        with pytest.raises(ModelError, match=problem):
            load_adapter(network, tmp_path)


@pytest.mark.parametrize("file", ["adapter_config.json", "adapter_model.safetensors"])
def test_a_missing_file_is_named(file: str, network: Network, tmp_path: Path) -> None:
    adapter_files.write_adapter(tmp_path, adapter_files.random_pairs({TO_Q: (96, 96)}))
    (tmp_path / file).unlink()
    with pytest.raises(ModelError, match=file):
        load_adapter(network, tmp_path)
