"""Both published layouts, whole or in shards, load to the same weights, the same tokens and the same latents."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from omnigen_actor.checkpoint.adapters import model_identity
from omnigen_actor.checkpoint.layouts import Checkpoint
from omnigen_actor.checkpoint.opening import open_checkpoint
from omnigen_actor.checkpoint.tiny import shard_transformer, write_tiny_checkpoint, write_tiny_original
from omnigen_actor.engine import OmniGenEngine
from omnigen_actor.engine_settings import EngineSettings
from omnigen_actor.errors import ModelError
from omnigen_actor.model.loading import load_model, load_tokenizer, pick_device, pick_dtype
from omnigen_actor.model.weights import read_weights
from omnigen_actor.types import Request
from tests.adapter_files import random_pairs, write_adapter

CPU = torch.device("cpu")
LAYOUTS = ["diffusers", "original", "diffusers in shards", "original in shards"]
REQUEST = Request(id="a", prompt="A cat sat on a mat.", width=64, height=48, seed=3, steps=3)


@pytest.fixture(scope="module")
def models(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The same weights in every form."""
    folder = tmp_path_factory.mktemp("layouts")
    write_tiny_original(folder / "original")
    for layout, source in (("diffusers", tiny_model), ("original", folder / "original")):
        shutil.copytree(source, folder / f"{layout} in shards")
        shard_transformer(folder / f"{layout} in shards", 3)
    return {layout: folder / layout for layout in LAYOUTS} | {"diffusers": tiny_model}


@pytest.fixture(scope="module")
def expected(tiny_model: Path) -> dict[str, Tensor]:
    """Canonical tensors, put together the obvious way."""
    tensors = load_file(tiny_model / "transformer/diffusion_pytorch_model.safetensors")
    for i in range(3):
        parts = [tensors.pop(f"layers.{i}.self_attn.to_{part}.weight") for part in "qkv"]
        tensors[f"layers.{i}.self_attn.qkv.weight"] = torch.cat(parts)
    return tensors


def read(checkpoint: Checkpoint, dtype: torch.dtype) -> dict[str, Tensor]:
    return read_weights("model", checkpoint.transformer_files, CPU, dtype, places=checkpoint.places).tensors


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_every_layout_holds_the_same_tensors(layout: str, dtype: torch.dtype, models, expected):
    checkpoint = open_checkpoint(str(models[layout]))
    assert len(checkpoint.transformer_files) == (3 if "shards" in layout else 1)
    found = read(checkpoint, dtype)
    assert found.keys() == expected.keys()
    assert all(torch.equal(found[name], tensor.to(dtype)) for name, tensor in expected.items())


def test_grouped_key_heads_have_their_rows(tmp_path: Path):
    write_tiny_checkpoint(tmp_path / "a", num_key_value_heads=2)
    write_tiny_original(tmp_path / "b", num_key_value_heads=2)
    first, second = (read(open_checkpoint(str(tmp_path / name)), torch.float32) for name in "ab")
    assert first["layers.0.self_attn.qkv.weight"].shape == (96 + 2 * 48, 96)
    assert all(torch.equal(first[name], second[name]) for name in first)


@pytest.fixture(scope="module")
def latent(models: dict[str, Path]) -> Tensor:
    return latent_of(models["diffusers"])


@pytest.mark.parametrize("layout", LAYOUTS[1:])
def test_every_layout_gives_the_same_latents(layout: str, models, latent: Tensor):
    assert torch.equal(latent_of(models[layout]), latent)


def test_an_adapter_changes_the_latents_and_the_model_s_identity(models, latent: Tensor, tmp_path: Path):
    adapter = write_adapter(tmp_path / "a", random_pairs({"llm.layers.0.self_attn.qkv_proj": (288, 96)}))
    settings = EngineSettings(device="cpu", adapters=(f"{adapter}@0.5",))
    engine = OmniGenEngine.from_pretrained(str(models["original"]), settings)
    assert not torch.allclose(engine.latents([REQUEST])[0], latent, atol=1e-3)
    assert engine.info.sha256 == model_identity(str(models["original"]), settings.adapters)
    assert engine.info.sha256 != model_identity(str(models["original"]))
    assert [text.split("#")[0] for text in engine.info.adapters] == [f"{adapter}@0.5"]


def latent_of(model: Path) -> Tensor:
    engine = OmniGenEngine.from_pretrained(str(model), EngineSettings(device="cpu"))
    (latent,) = engine.latents([REQUEST])
    return latent


@pytest.mark.parametrize("layout", LAYOUTS)
def test_the_identity_of_the_bytes_read_is_that_which_the_driver_computes(layout: str, models):
    checkpoint = open_checkpoint(str(models[layout]))
    loaded = load_model(checkpoint, CPU, torch.float32)
    assert loaded.sha256 == checkpoint.identity == model_identity(str(models[layout]))
    assert loaded.adapters == ()


def test_every_layout_has_the_same_tokenizer(models):
    first, *others = (load_tokenizer(open_checkpoint(str(models[layout]))) for layout in LAYOUTS)
    for text in ("<|user|>\nA cat,  two dogs<|end|>\n<|assistant|>\n<|diffusion|>", "Zwölf 拳击手"):
        assert all(other(text) == first(text) for other in others)


def test_the_tokenizer_is_the_file_whatever_class_is_named(tiny_model: Path, tmp_path: Path):
    import json

    model = Path(shutil.copytree(tiny_model, tmp_path / "model"))
    config = model / "tokenizer/tokenizer_config.json"
    config.write_text(json.dumps(json.loads(config.read_text()) | {"tokenizer_class": "LlamaTokenizer"}))
    plain, named = (load_tokenizer(open_checkpoint(str(path))) for path in (tiny_model, model))
    assert named("<|user|>\nA cat<|end|>\n") == plain("<|user|>\nA cat<|end|>\n")


def test_a_file_that_shrank_after_it_was_checked_is_an_error(tiny_model: Path, tmp_path: Path):
    model = Path(shutil.copytree(tiny_model, tmp_path / "model"))
    checkpoint = open_checkpoint(str(model))
    with checkpoint.transformer_files[0].open("r+b") as file:
        file.truncate(100_000)
    with pytest.raises(ModelError, match=r"diffusion_pytorch_model\.safetensors"):
        load_model(checkpoint, CPU, torch.float32)


def test_device_and_dtype_follow_the_machine():
    assert pick_device("cpu") == CPU
    assert pick_dtype("auto", CPU) == torch.float32
    assert pick_dtype("bfloat16", CPU) == torch.bfloat16
    with pytest.raises(ModelError, match="float16"):
        pick_dtype("float16", CPU)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_a_gpu_that_is_not_there_is_an_error():
    with pytest.raises(ModelError, match="sees no GPU"):
        pick_device("cuda")
