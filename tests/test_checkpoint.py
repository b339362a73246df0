"""A checkpoint is whole, or one clear error says what is wrong, before torch is loaded."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from omnigen_actor.checkpoint.opening import open_checkpoint
from omnigen_actor.errors import ModelError

TRANSFORMER = "transformer/diffusion_pytorch_model.safetensors"


@pytest.fixture
def model(tiny_model: Path, tmp_path: Path) -> Path:
    """A copy to break."""
    return Path(shutil.copytree(tiny_model, tmp_path / "model"))


def refuse(model: Path | str) -> str:
    with pytest.raises(ModelError) as caught:
        open_checkpoint(str(model))
    message = str(caught.value)
    assert "\n" not in message
    return message


def test_a_whole_checkpoint_opens(model: Path):
    checkpoint = open_checkpoint(str(model))
    assert checkpoint.folder == model
    assert len(checkpoint.weights) == 2


def test_identity_is_that_of_the_bytes(model: Path, tiny_model: Path):
    assert open_checkpoint(str(model)).identity == open_checkpoint(str(tiny_model)).identity
    data = bytearray((model / TRANSFORMER).read_bytes())
    data[-1] ^= 1
    (model / TRANSFORMER).write_bytes(data)
    assert open_checkpoint(str(model)).identity != open_checkpoint(str(tiny_model)).identity


@pytest.mark.parametrize("name", ["nowhere", "./nowhere", "/no/such/folder"])
def test_no_such_model(name: str):
    assert name in refuse(name)


@pytest.mark.parametrize(
    "file",
    [
        "model_index.json",
        "transformer/config.json",
        TRANSFORMER,
        "vae/config.json",
        "vae/diffusion_pytorch_model.safetensors",
        "tokenizer/tokenizer.json",
        "scheduler/scheduler_config.json",
    ],
)
def test_a_missing_file_is_named(model: Path, file: str):
    (model / file).unlink()
    assert file in refuse(model)


@pytest.mark.parametrize("size", [0, 4, 1000, -1])
@pytest.mark.parametrize("file", [TRANSFORMER, "vae/diffusion_pytorch_model.safetensors"])
def test_a_shard_cut_short_is_named(model: Path, file: str, size: int):
    data = (model / file).read_bytes()
    (model / file).write_bytes(data[:size])
    assert file in refuse(model)


def test_a_shard_that_is_no_safetensors_file_is_named(model: Path):
    (model / TRANSFORMER).write_bytes((16).to_bytes(8, "little") + b"not json at all!")
    assert TRANSFORMER in refuse(model)


def test_a_missing_shard_of_an_index_is_named(model: Path):
    folder = model / "transformer"
    (folder / "diffusion_pytorch_model.safetensors").rename(folder / "a.safetensors")
    index = {"weight_map": {"norm.weight": "a.safetensors", "proj_out.bias": "b.safetensors"}}
    (folder / "diffusion_pytorch_model.safetensors.index.json").write_text(json.dumps(index))
    assert "b.safetensors" in refuse(model)


def test_a_shard_of_an_index_is_read(model: Path, tiny_model: Path):
    folder = model / "transformer"
    (folder / "diffusion_pytorch_model.safetensors").rename(folder / "a.safetensors")
    index = {"weight_map": {"norm.weight": "a.safetensors"}}
    (folder / "diffusion_pytorch_model.safetensors.index.json").write_text(json.dumps(index))
    assert open_checkpoint(str(model)).weights[0].name == "a.safetensors"


def test_pickled_weights_are_refused(model: Path):
    shard = model / TRANSFORMER
    shard.rename(shard.with_suffix(".bin"))
    assert "pickled" in refuse(model)


def test_another_kind_of_model_is_refused(model: Path):
    change(model / "transformer/config.json", _class_name="FluxTransformer2DModel")
    assert "FluxTransformer2DModel" in refuse(model)


def test_another_kind_of_scheduler_is_refused(model: Path):
    change(model / "scheduler/scheduler_config.json", invert_sigmas=False)
    assert "invert_sigmas" in refuse(model)


def test_weights_that_do_not_fit_their_config_are_refused(model: Path):
    change(model / "transformer/config.json", num_layers=4)
    assert "layers.3." in refuse(model)
    change(model / "transformer/config.json", num_layers=3, intermediate_size=100)
    assert "shape" in refuse(model)


def test_a_config_that_is_no_json_is_named(model: Path):
    (model / "transformer/config.json").write_text("{")
    assert "transformer/config.json" in refuse(model)


def test_a_model_is_fetched_from_a_uri_once(model: Path, tmp_path: Path, monkeypatch):
    monkeypatch.setenv("OMNIGEN_BATCH_CACHE", str(tmp_path / "cache"))
    first = open_checkpoint(f"file://{model}")
    assert first.folder.is_relative_to(tmp_path / "cache")
    shutil.rmtree(model)
    assert open_checkpoint(f"file://{model}").identity == first.identity


def test_a_uri_without_a_model_is_refused(tmp_path: Path, monkeypatch):
    monkeypatch.setenv("OMNIGEN_BATCH_CACHE", str(tmp_path / "cache"))
    assert "no such model" in refuse(f"file://{tmp_path}/nothing")


def test_opening_a_checkpoint_does_not_load_torch(model: Path):
    code = f"""
import sys
from omnigen_actor.checkpoint.opening import open_checkpoint
open_checkpoint({str(model)!r})
assert not {{"torch", "transformers", "diffusers", "ray"}} & set(sys.modules)
"""
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)


def change(path: Path, **values: object) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | values))
