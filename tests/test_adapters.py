"""An adapter is one that can be merged exactly, or one clear error says which key is not; all without torch."""

from __future__ import annotations

import math
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from omnigen_actor.checkpoint.adapters import merged_identity, model_identity, open_adapters, parse_adapter
from omnigen_actor.checkpoint.layouts import Checkpoint
from omnigen_actor.checkpoint.opening import open_checkpoint
from omnigen_actor.errors import ModelError
from tests.adapter_files import random_pairs, write_adapter

QKV = {"llm.layers.0.self_attn.qkv_proj": (288, 96)}
NAMES = {
    "base_model.model.llm.layers.0.self_attn.qkv_proj": ((288, 96), "layers.0.self_attn.qkv.weight", 0),
    "base_model.model.llm.layers.1.self_attn.o_proj": ((96, 96), "layers.1.self_attn.to_out.0.weight", 0),
    "base_model.model.llm.layers.2.mlp.down_proj": ((96, 192), "layers.2.mlp.down_proj.weight", 0),
    "base_model.model.x_embedder.proj": ((96, 4, 2, 2), "patch_embedding.output_image_proj.weight", 0),
    "base_model.model.t_embedder.mlp.2": ((96, 96), "t_embedder.linear_2.weight", 0),
    "base_model.model.final_layer.adaLN_modulation.1": ((192, 96), "norm_out.linear.weight", 0),
    "base_model.model.layers.0.self_attn.to_k": ((96, 96), "layers.0.self_attn.qkv.weight", 96),
    "transformer.layers.0.attn.to_v": ((96, 96), "layers.0.self_attn.qkv.weight", 192),
    "transformer.layers.0.self_attn.to_out.0": ((96, 96), "layers.0.self_attn.to_out.0.weight", 0),
    "base_model.model.proj_out": ((16, 96), "proj_out.weight", 0),
}


@pytest.fixture(scope="module")
def checkpoint(tiny_model: Path) -> Checkpoint:
    return open_checkpoint(str(tiny_model))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A whole adapter, to break."""
    return write_adapter(tmp_path / "adapter", random_pairs(QKV))


def refuse(spec: str | Path, checkpoint: Checkpoint) -> str:
    with pytest.raises(ModelError) as caught:
        open_adapters([str(spec)], checkpoint)
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize(
    ("spec", "name", "weight"),
    [
        ("style", "style", 1.0),
        ("style@0.8", "style", 0.8),
        ("owner/style@-1e-1", "owner/style", -0.1),
        ("s3://bucket/a@2", "s3://bucket/a", 2.0),
        ("s3://key:secret@bucket/a", "s3://key:secret@bucket/a", 1.0),
        ("folder@home/a", "folder@home/a", 1.0),
    ],
)
def test_the_weight_follows_the_last_at(spec: str, name: str, weight: float):
    assert parse_adapter(spec) == (name, weight)


@pytest.mark.parametrize("spec", ["", "@1", "style@nan", "style@inf"])
def test_a_weight_is_finite_and_a_name_is_not_empty(spec: str):
    with pytest.raises(ModelError, match="weight"):
        parse_adapter(spec)


@pytest.mark.parametrize("name", NAMES)
def test_a_module_is_found_by_the_names_of_either_layout(name: str, tmp_path: Path, checkpoint: Checkpoint):
    shape, tensor, first_row = NAMES[name]
    write_adapter(tmp_path / "a", random_pairs({name: shape}), prefix="")
    ((part,),) = (adapter.parts for adapter in open_adapters([str(tmp_path / "a")], checkpoint))
    assert (part.place.name, part.place.shape, part.place.first_row) == (tensor, shape, first_row)


@pytest.mark.parametrize(
    ("config", "scale"),
    [
        ({}, 2.0),
        ({"lora_alpha": 1.5}, 0.5),
        ({"use_rslora": True}, 6 / math.sqrt(3)),
        ({"alpha_pattern": {"qkv_proj": 3}}, 1.0),
        ({"alpha_pattern": {"o_proj": 3}}, 2.0),
        ({"alpha_pattern": {r"layers\.0\..*qkv_proj": 9}}, 3.0),
        ({"r": 16, "rank_pattern": {"self_attn.qkv_proj": 3}}, 2.0),
    ],
)
def test_the_scale_is_that_of_peft(config: dict[str, Any], scale: float, tmp_path: Path, checkpoint: Checkpoint):
    write_adapter(tmp_path / "a", random_pairs(QKV), **config)
    (adapter,) = open_adapters([f"{tmp_path}/a@0.5"], checkpoint)
    assert adapter.weight == 0.5
    assert adapter.parts[0].scale == pytest.approx(scale)


@pytest.mark.parametrize(
    "config",
    [
        {"peft_type": "LOHA"},
        {"use_dora": True},
        {"bias": "all"},
        {"modules_to_save": ["proj_out"]},
        {"fan_in_fan_out": True},
        {"init_lora_weights": "pissa_niter_16"},
        {"alpha_pattern": {"(": 1}},
        {"r": None},
        {"lora_alpha": "much"},
    ],
)
def test_what_is_not_plain_lora_is_refused_by_its_name(config: dict[str, Any], tmp_path: Path, checkpoint: Checkpoint):
    write_adapter(tmp_path / "a", random_pairs(QKV), **config)
    message = refuse(tmp_path / "a", checkpoint)
    assert next(iter(config)) in message or "rank" in message


@pytest.mark.parametrize(
    "key",
    [
        "base_model.model.llm.layers.3.self_attn.qkv_proj.lora_A.weight",
        "base_model.model.llm.layers.0.self_attn.q_proj.lora_A.weight",
        "base_model.model.llm.layers.0.self_attn.qkv_proj.lora_magnitude_vector",
        "base_model.model.llm.layers.0.self_attn.qkv_proj.lora_B.bias",
        "base_model.model.llm.embed_tokens.lora_embedding_A",
        "base_model.model.llm.embed_tokens.lora_A.weight",
        "base_model.model.llm.norm.lora_A.weight",
        "unet.up.lora_A.weight",
    ],
)
def test_an_unknown_key_is_named(key: str, folder: Path, checkpoint: Checkpoint):
    add(folder, **{key: torch.ones(3, 96)})
    assert key in refuse(folder, checkpoint)


def test_a_wrong_shape_is_named(tmp_path: Path, checkpoint: Checkpoint):
    for shape, rank, half in (((288, 95), 3, "lora_A"), ((96, 96), 3, "lora_B"), ((288, 96), 4, "lora_A")):
        write_adapter(tmp_path / "a", random_pairs({next(iter(QKV)): shape}, rank))
        assert f"qkv_proj.{half}.weight has shape" in refuse(tmp_path / "a", checkpoint)


def test_half_a_pair_is_named(folder: Path, checkpoint: Checkpoint):
    add(folder, **{"base_model.model.llm.layers.1.self_attn.o_proj.lora_B.weight": torch.ones(96, 3)})
    assert "layers.1.self_attn.o_proj.lora_B.weight" in refuse(folder, checkpoint)


def test_an_empty_adapter_is_refused(tmp_path: Path, checkpoint: Checkpoint):
    assert "no tensors" in refuse(write_adapter(tmp_path / "a", {}), checkpoint)


@pytest.mark.parametrize("file", ["adapter_config.json", "adapter_model.safetensors"])
def test_a_missing_or_broken_file_is_named(file: str, folder: Path, checkpoint: Checkpoint):
    content = (folder / file).read_bytes()
    (folder / file).write_bytes(content[:-1])
    assert file in refuse(folder, checkpoint)
    (folder / file).unlink()
    assert file in refuse(folder, checkpoint)


def test_there_is_no_such_adapter(checkpoint: Checkpoint):
    assert "no such adapter './nowhere'" in refuse("./nowhere@0.5", checkpoint)


def test_an_adapter_is_fetched_from_a_uri(folder: Path, checkpoint: Checkpoint, tmp_path: Path, monkeypatch):
    monkeypatch.setenv("OMNIGEN_BATCH_CACHE", str(tmp_path / "cache"))
    (folder / "optimizer.safetensors").write_bytes(b"not wanted")
    (adapter,) = open_adapters([f"file://{folder}@0.25"], checkpoint)
    assert adapter.weights.is_relative_to(tmp_path / "cache")
    assert sorted(path.name for path in adapter.weights.parent.iterdir()) == [
        "adapter_config.json",
        "adapter_model.safetensors",
    ]


def test_the_identity_tells_adapters_weights_order_and_scale_apart(tiny_model: Path, folder: Path, tmp_path: Path):
    model, base = str(tiny_model), open_checkpoint(str(tiny_model)).identity
    other = write_adapter(tmp_path / "other", random_pairs(QKV, seed=1))
    scaled = write_adapter(tmp_path / "scaled", random_pairs(QKV), lora_alpha=7)
    copied = Path(shutil.copytree(folder, tmp_path / "copied"))
    lists = [[], [folder], [f"{folder}@0.5"], [other], [scaled], [folder, other], [other, folder], [folder, folder]]
    found = [model_identity(model, [str(spec) for spec in adapters]) for adapters in lists]
    assert found[0] == base
    assert len(set(found)) == len(found)
    assert model_identity(model, [str(copied)]) == found[1]


def test_a_record_tells_name_weight_and_content(folder: Path, checkpoint: Checkpoint):
    (adapter,) = open_adapters([f"{folder}@0.80"], checkpoint)
    assert adapter.describe("0123456789abcdef" * 4) == f"{folder}@0.8#0123456789ab"
    assert merged_identity("ab" * 32, (), {}) == "ab" * 32


def test_secrets_of_a_uri_are_in_no_message(checkpoint: Checkpoint):
    assert "secret" not in refuse("nosuchscheme://user:secret@host/adapter@0.5", checkpoint)


def test_verifying_does_not_load_torch(tiny_model: Path, folder: Path):
    code = f"""
import sys
from omnigen_actor.checkpoint.adapters import model_identity
model_identity({str(tiny_model)!r}, [{str(folder)!r}])
assert not {{"torch", "transformers", "diffusers", "ray"}} & set(sys.modules)
"""
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)


def add(folder: Path, **tensors: torch.Tensor) -> None:
    from safetensors.torch import load_file, save_file

    file = folder / "adapter_model.safetensors"
    save_file(load_file(file) | tensors, file)
