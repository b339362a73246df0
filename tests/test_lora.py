"""Adapters are merged in fp32 and rounded once, whichever names they have and however many there are."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from omnigen_actor.checkpoint.adapters import open_adapters
from omnigen_actor.checkpoint.opening import open_checkpoint
from omnigen_actor.model.lora import read_adapters
from omnigen_actor.model.weights import read_weights
from tests.adapter_files import Pairs, random_pairs, write_adapter

CPU = torch.device("cpu")
QKV = {"llm.layers.0.self_attn.qkv_proj": (288, 96)}


def merge(model: Path, *specs: str, dtype: torch.dtype = torch.float32) -> dict[str, Tensor]:
    checkpoint = open_checkpoint(str(model))
    edits = read_adapters(open_adapters(specs, checkpoint), CPU).edits
    files = checkpoint.transformer_files
    return read_weights("model", files, CPU, dtype, places=checkpoint.places, edits=edits).tensors


def changes(model: Path, *specs: str) -> dict[str, Tensor]:
    """What the adapters add to each weight that they change."""
    plain = merge(model)
    return {
        name: tensor - plain[name]
        for name, tensor in merge(model, *specs).items()
        if not torch.equal(tensor, plain[name])
    }


def product(pairs: Pairs, module: str) -> Tensor:
    a, b = pairs[module]
    return b.flatten(1) @ a.flatten(1)


def near(found: Tensor, expected: Tensor) -> bool:
    return torch.allclose(found, expected, rtol=0, atol=2e-6)


def test_the_fused_matrix_of_the_original_names(tiny_model: Path, tmp_path: Path):
    pairs = random_pairs(QKV)
    write_adapter(tmp_path / "a", pairs, lora_alpha=6)
    found = changes(tiny_model, f"{tmp_path}/a@0.75")
    assert found.keys() == {"layers.0.self_attn.qkv.weight"}
    assert near(found["layers.0.self_attn.qkv.weight"], 0.75 * 2 * product(pairs, next(iter(QKV))))


def test_split_matrices_of_diffusers_names_are_rows_of_the_fused_one(tiny_model: Path, tmp_path: Path):
    pairs = random_pairs({f"layers.1.self_attn.to_{part}": (96, 96) for part in "vq"})
    write_adapter(tmp_path / "a", pairs)
    (found,) = changes(tiny_model, f"{tmp_path}/a").values()
    query, key, value = found.chunk(3)
    assert near(query, 2 * product(pairs, "layers.1.self_attn.to_q"))
    assert not key.any()
    assert near(value, 2 * product(pairs, "layers.1.self_attn.to_v"))


def test_a_convolution(tiny_model: Path, tmp_path: Path):
    pairs = random_pairs({"x_embedder.proj": (96, 4, 2, 2)})
    write_adapter(tmp_path / "a", pairs)
    found = changes(tiny_model, f"{tmp_path}/a")["patch_embedding.output_image_proj.weight"]
    a, b = pairs["x_embedder.proj"]
    image = torch.randn(1, 4, 6, 6)
    low_rank = torch.nn.functional.conv2d(torch.nn.functional.conv2d(image, a, stride=2), b)
    assert torch.allclose(torch.nn.functional.conv2d(image, found, stride=2), 2 * low_rank, atol=1e-4)


def test_several_adapters_add_up(tiny_model: Path, tmp_path: Path):
    specs = [f"{write_adapter(tmp_path / str(seed), random_pairs(QKV, seed=seed))}@{0.5 - seed}" for seed in range(2)]
    (both,) = changes(tiny_model, *specs).values()
    (first,), (second,) = (changes(tiny_model, spec).values() for spec in specs)
    assert near(both, first + second)
    assert not near(both, first)


@pytest.mark.parametrize("layout", ["tiny_model", "tiny_original"])
def test_the_sum_of_all_is_rounded_once(layout: str, tmp_path: Path, request: pytest.FixtureRequest):
    model = request.getfixturevalue(layout)
    specs = [str(write_adapter(tmp_path / str(seed), random_pairs(QKV, seed=seed))) for seed in range(3)]
    exact = merge(model, *specs)
    rounded = merge(model, *specs, dtype=torch.bfloat16)
    assert all(torch.equal(rounded[name], tensor.bfloat16()) for name, tensor in exact.items())


def test_the_order_of_names_in_the_file_and_half_precision_do_not_matter(tiny_model: Path, tmp_path: Path):
    pairs = {name: (a.bfloat16(), b.bfloat16()) for name, (a, b) in random_pairs(QKV).items()}
    write_adapter(tmp_path / "a", pairs)
    ((a, b),) = pairs.values()
    (found,) = changes(tiny_model, f"{tmp_path}/a").values()
    assert near(found, 2 * b.float() @ a.float())


def test_the_adapter_files_are_hashed_while_they_are_read(tiny_model: Path, tmp_path: Path):
    import hashlib

    folder = write_adapter(tmp_path / "a", random_pairs(QKV))
    file = folder / "adapter_model.safetensors"
    assert load_file(file)
    merging = read_adapters(open_adapters([str(folder)], open_checkpoint(str(tiny_model))), CPU)
    assert merging.sha256 == {file: hashlib.sha256(file.read_bytes()).hexdigest()}


@pytest.fixture(scope="module")
def tiny_original(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from omnigen_actor.checkpoint.tiny import write_tiny_original

    folder = tmp_path_factory.mktemp("models") / "original"
    write_tiny_original(folder)
    return folder
