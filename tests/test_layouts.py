"""The original layout tells the same facts as diffusers', and says what it lacks."""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from omnigen_actor.checkpoint.layouts import Checkpoint
from omnigen_actor.checkpoint.opening import open_checkpoint
from omnigen_actor.checkpoint.rewriting import read_tensors, write_tensors
from omnigen_actor.checkpoint.tensors import canonical_shapes, diffusers_places, original_name, original_places
from omnigen_actor.checkpoint.tiny import shard_transformer, write_tiny_original
from omnigen_actor.errors import ModelError

PUBLISHED = {
    "hidden_size": 3072, "intermediate_size": 8192, "num_attention_heads": 32, "num_key_value_heads": 32,
    "num_layers": 32, "vocab_size": 32064, "in_channels": 4, "patch_size": 2, "pos_embed_max_size": 192,
    "time_step_dim": 256,
}  # fmt: skip


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models") / "original"
    write_tiny_original(folder)
    return folder


@pytest.fixture
def model(original: Path, tmp_path: Path) -> Path:
    """A copy to break."""
    return Path(shutil.copytree(original, tmp_path / "model"))


def refuse(model: Path) -> str:
    with pytest.raises(ModelError) as caught:
        open_checkpoint(str(model))
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_both_layouts_tell_the_same(original: Path, tiny_model: Path):
    def facts(checkpoint: Checkpoint) -> tuple[object, ...]:
        unused = {"_class_name", "_diffusers_version", "timestep_activation_fn", "pad_token_id"}
        config = {key: value for key, value in checkpoint.transformer.items() if key not in unused}
        scheduler = {key: checkpoint.scheduler[key] for key in ("shift", "invert_sigmas", "num_train_timesteps")}
        return config, scheduler, {place.name for place in checkpoint.places.values()}

    assert facts(open_checkpoint(str(original))) == facts(open_checkpoint(str(tiny_model)))


def test_the_published_model_has_its_published_size():
    num_elements = sum(math.prod(shape) for shape in canonical_shapes(PUBLISHED).values())
    assert round(num_elements / 1e9, 2) == 3.88


@pytest.mark.parametrize(
    ("canonical", "original"),
    [
        ("embed_tokens.weight", "llm.embed_tokens.weight"),
        ("norm.weight", "llm.norm.weight"),
        ("layers.11.self_attn.qkv.weight", "llm.layers.11.self_attn.qkv_proj.weight"),
        ("layers.0.self_attn.to_out.0.weight", "llm.layers.0.self_attn.o_proj.weight"),
        ("layers.0.mlp.gate_up_proj.weight", "llm.layers.0.mlp.gate_up_proj.weight"),
        ("layers.0.post_attention_layernorm.weight", "llm.layers.0.post_attention_layernorm.weight"),
        ("time_token.linear_1.bias", "time_token.mlp.0.bias"),
        ("t_embedder.linear_2.weight", "t_embedder.mlp.2.weight"),
        ("patch_embedding.pos_embed", "pos_embed"),
        ("patch_embedding.output_image_proj.bias", "x_embedder.proj.bias"),
        ("patch_embedding.input_image_proj.weight", "input_x_embedder.proj.weight"),
        ("norm_out.linear.weight", "final_layer.adaLN_modulation.1.weight"),
        ("proj_out.bias", "final_layer.linear.bias"),
    ],
)
def test_names_of_the_original_repository(canonical: str, original: str):
    assert original_name(canonical) == original


def test_the_parts_of_a_tensor_cover_its_rows_once():
    config = PUBLISHED | {"num_key_value_heads": 8}
    for places in (diffusers_places(config), original_places(config)):
        rows: dict[str, list[int]] = {}
        for place in places.values():
            rows.setdefault(place.name, []).extend(range(place.first_row, place.first_row + place.shape[0]))
        shapes = canonical_shapes(config)
        assert rows.keys() == shapes.keys()
        assert all(sorted(found) == list(range(shapes[name][0])) for name, found in rows.items())


@pytest.mark.parametrize("file", ["config.json", "model.safetensors", "tokenizer.json", "vae/config.json"])
def test_a_missing_file_is_named(model: Path, file: str):
    (model / file).unlink()
    assert file in refuse(model)


def test_a_missing_vae_is_told_with_its_source(model: Path):
    shutil.rmtree(model / "vae")
    message = refuse(model)
    assert "vae/config.json is missing" in message
    assert "stabilityai/sdxl-vae" in message


def test_a_pickled_fine_tune_is_refused(model: Path):
    (model / "model.safetensors").rename(model / "model.pt")
    assert "only model.pt, which is pickled and never read" in refuse(model)


def test_a_missing_shard_is_named(model: Path):
    shard_transformer(model, 3)
    (model / "model-00002-of-00003.safetensors").unlink()
    assert "model-00002-of-00003.safetensors is missing" in refuse(model)


@pytest.mark.parametrize("index", ["[]", "{}", '{"weight_map": {}}', '{"weight_map": {"norm.weight": 1}}'])
def test_an_index_that_is_none_is_named(model: Path, index: str):
    (model / "model.safetensors.index.json").write_text(index)
    assert "model.safetensors.index.json" in refuse(model)


def test_another_language_model_is_refused(model: Path):
    change(model, model_type="llama")
    assert "llama" in refuse(model)


def test_a_language_model_without_images_is_refused(model: Path):
    rename(model, lambda name: None if name.startswith("x_embedder") else name)
    assert "x_embedder.proj.weight" in refuse(model)


def test_a_tensor_that_omnigen_does_not_have_is_named(model: Path):
    rename(model, lambda name: "llm.layers.0.self_attn.q_norm.weight" if name == "llm.norm.weight" else name)
    assert "llm.layers.0.self_attn.q_norm.weight" in refuse(model)


def test_a_rotary_table_is_not_missed(model: Path):
    tensors = read_tensors(model / "model.safetensors")
    tensors["llm.rotary_emb.inv_freq"] = tensors["final_layer.linear.bias"]
    write_tensors(model / "model.safetensors", tensors)
    assert open_checkpoint(str(model)).transformer_files


@pytest.mark.parametrize("key", ["hidden_size", "num_hidden_layers", "max_position_embeddings", "rope_scaling"])
def test_a_config_without_an_entry_is_told(model: Path, key: str):
    change(model, **{key: None})
    assert key.removeprefix("num_hidden_") in refuse(model)


def test_the_words_of_newer_versions_of_transformers_are_understood(model: Path, original: Path):
    config = json.loads((model / "config.json").read_text())
    rope = {key: config.pop(key) for key in ("rope_theta", "original_max_position_embeddings")}
    rope |= config.pop("rope_scaling")
    (model / "config.json").write_text(json.dumps(config | {"rope_parameters": rope}))
    found, expected = (open_checkpoint(str(path)).transformer for path in (model, original))
    for key in ("rope_base", "original_max_position_embeddings"):
        assert found[key] == expected[key]
    for key in ("short_factor", "long_factor"):
        assert found["rope_scaling"][key] == expected["rope_scaling"][key]


def test_a_folder_of_neither_layout_is_told_what_is_needed(tmp_path: Path):
    (tmp_path / "model").mkdir()
    message = refuse(tmp_path / "model")
    assert "model_index.json" in message
    assert "model.safetensors" in message


def change(model: Path, **values: object) -> None:
    path = model / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | values))


def rename(model: Path, new_name: Callable[[str], str | None]) -> None:
    file = model / "model.safetensors"
    write_tensors(file, {new: value for name, value in read_tensors(file).items() if (new := new_name(name))})
