"""What training writes is a checkpoint for the engine and for diffusers' own classes, and both say the same of it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import AutoencoderKL, OmniGenTransformer2DModel
from PIL import Image
from safetensors import safe_open

from omnigen_actor.checkpoint.opening import open_checkpoint
from omnigen_actor.checkpoint.tiny import transformer_config
from omnigen_actor.engine import OmniGenEngine
from omnigen_actor.engine_settings import EngineSettings
from omnigen_actor.errors import ModelError
from omnigen_actor.model.loading import load_tokenizer
from omnigen_actor.model.prompt import DEFAULT_NEGATIVE_PROMPT, Tokenize
from omnigen_actor.model.sampler import noise
from omnigen_actor.training.checkpoint import (
    PUNCTUATION,
    SPECIAL_TOKENS,
    write_autoencoder,
    write_rest,
    write_transformer,
    write_word_tokenizer,
)
from omnigen_actor.training.network import Network
from omnigen_actor.types import Request, Result
from tests.reference import Reference, relative_error

WORDS = ("Boat", "a", "red", "at", "night", "make", "it", "blue", "generate", "an", "image", "according")
FACTOR, PATCH, CHANNELS = 4, 4, 4
CONFIG = transformer_config(
    hidden_size=32,
    num_attention_heads=2,
    num_key_value_heads=2,
    num_layers=2,
    intermediate_size=64,
    pos_embed_max_size=8,
) | {
    "in_channels": CHANNELS,
    "patch_size": PATCH,
    "rms_norm_eps": 1e-5,
    "rope_base": 10000,
    "time_step_dim": 32,
    "flip_sin_to_cos": True,
    "downscale_freq_shift": 0,
}
DTYPES = {"fp32": torch.float32, "fp16": torch.float16}
Picture = Callable[..., Image.Image]


def trained_network(vocab_size: int) -> Network:
    """Random weights, those that begin at zero too."""
    network = Network(CONFIG | {"vocab_size": vocab_size})
    generator = torch.Generator().manual_seed(0)
    network.draw(generator)
    for parameter in network.parameters():
        parameter.data.add_(torch.randn(parameter.shape, generator=generator), alpha=0.1)
    return network


def autoencoder() -> Any:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return AutoencoderKL(
            in_channels=3,
            out_channels=3,
            down_block_types=("DownEncoderBlock2D",) * 3,
            up_block_types=("UpDecoderBlock2D",) * 3,
            block_out_channels=(8, 8, 8),
            layers_per_block=1,
            latent_channels=CHANNELS,
            norm_num_groups=4,
            sample_size=64,
            scaling_factor=1.0,
            mid_block_add_attention=False,
        )


@pytest.fixture(scope="module", params=DTYPES)
def dtype(request: pytest.FixtureRequest) -> torch.dtype:
    return DTYPES[request.param]


def write_checkpoint(folder: Path, dtype: torch.dtype) -> Path:
    """All parts, in the order in which training writes them."""
    vocab_size = write_word_tokenizer(folder, WORDS)
    tensors = trained_network(vocab_size).state_dict()
    write_transformer(folder, CONFIG | {"vocab_size": vocab_size}, tensors, dtype)
    write_autoencoder(folder, autoencoder(), dtype)
    write_rest(folder)
    return folder


@pytest.fixture(scope="module")
def folder(dtype: torch.dtype, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_checkpoint(tmp_path_factory.mktemp("models") / "trained", dtype)


@pytest.fixture(scope="module")
def tokenize(tmp_path_factory: pytest.TempPathFactory) -> Tokenize:
    """The word tokenizer, as the engine loads it."""
    folder = write_checkpoint(tmp_path_factory.mktemp("models") / "words", torch.float32)
    return load_tokenizer(open_checkpoint(str(folder)))


@pytest.fixture(scope="module")
def trained_engine(folder: Path) -> OmniGenEngine:
    return OmniGenEngine.from_pretrained(str(folder), EngineSettings(device="cpu"))


def requests(picture: Picture) -> list[Request]:
    edit = "<img><|image_1|></img> make it blue"
    return [
        Request(id="text", prompt="a red boat", width=64, height=32, steps=3, seed=1),
        Request(id="edit", prompt=edit, images=(picture(48, 64),), steps=3, seed=2),
    ]


def test_the_engine_agrees_with_the_reference_on_it(
    folder: Path, trained_engine: OmniGenEngine, picture: Picture
) -> None:
    reference = Reference(folder)
    wave = requests(picture)
    for request, latent in zip(wave, trained_engine.latents(wave), strict=True):
        prepared = reference.prepare(request)
        z = noise(request.seed, CHANNELS, *latent.shape[1:])[None]  # the reference's own has an eighth of the sides
        expected = reference.denoise(request, prepared._replace(noise=z))
        assert latent.shape[1:] == (
            (request.height or 64) // FACTOR,
            (request.width or 48) // FACTOR,
        )
        assert relative_error(latent, expected) <= 1e-5
        assert relative_error(z[0], expected) > 0.1


def test_the_engine_makes_images_with_it(trained_engine: OmniGenEngine, picture: Picture) -> None:
    outcomes = list(trained_engine.generate(requests(picture)))
    assert {one.request.id: one.image.size for one in outcomes if isinstance(one, Result)} == {
        "text": (64, 32),
        "edit": (48, 64),
    }


def test_the_classes_of_diffusers_load_the_same_weights(folder: Path, dtype: torch.dtype) -> None:
    transformer = OmniGenTransformer2DModel.from_pretrained(folder / "transformer", low_cpu_mem_usage=False)
    vae = AutoencoderKL.from_pretrained(folder / "vae", low_cpu_mem_usage=False)
    expected = trained_network(transformer.config.vocab_size).state_dict() | autoencoder().state_dict()
    found = transformer.state_dict() | vae.state_dict()
    assert found.keys() == expected.keys()
    assert all(torch.equal(found[name], tensor.to(dtype).float()) for name, tensor in expected.items())


def test_files_hold_the_dtype_that_was_asked_for(folder: Path, dtype: torch.dtype) -> None:
    for part in ("transformer", "vae"):
        with safe_open(folder / part / "diffusion_pytorch_model.safetensors", "pt") as file:
            assert {file.get_tensor(name).dtype for name in file.keys()} == {dtype}  # noqa: SIM118


def test_without_its_last_file_it_is_no_checkpoint(tmp_path: Path) -> None:
    write_checkpoint(tmp_path, torch.float32)
    (tmp_path / "model_index.json").unlink()
    with pytest.raises(ModelError, match="model_index"):
        open_checkpoint(str(tmp_path))


def test_the_last_file_is_written_last(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    written: list[str] = []
    write_text = Path.write_text

    def noted(path: Path, *args: Any, **settings: Any) -> int:
        written.append(path.name)
        return write_text(path, *args, **settings)

    monkeypatch.setattr(Path, "write_text", noted)
    write_rest(tmp_path)
    assert written == ["scheduler_config.json", "model_index.json"]


def test_the_first_ids_are_unknown_begin_and_end(tokenize: Tokenize) -> None:
    assert [list(tokenize(text)) for text in ("<unk>", "<s>", "</s>")] == [[0], [1], [2]]


def test_special_tokens_and_marks_are_known_whatever_is_beside_them(tokenize: Tokenize) -> None:
    text = "".join(SPECIAL_TOKENS) + "".join(PUNCTUATION)
    assert list(tokenize(text)) == list(range(len(SPECIAL_TOKENS) + len(PUNCTUATION)))


def test_letters_may_be_small_or_large(tokenize: Tokenize) -> None:
    assert list(tokenize("A RED bOAT")) == list(tokenize("a red boat"))
    assert 0 not in tokenize("a red boat")


def test_marks_are_ids_of_their_own(tokenize: Tokenize) -> None:
    ids = {text: list(tokenize(text)) for text in ("boat", "red", ".", ")", ",", "?", '"')}
    assert list(tokenize("boat, red).")) == ids["boat"] + ids[","] + ids["red"] + ids[")"] + ids["."]
    assert list(tokenize('boat?"')) == ids["boat"] + ids["?"] + ids['"']


def test_an_unknown_word_is_one_unknown_id(tokenize: Tokenize) -> None:
    boat = tokenize("boat")[0]
    assert list(tokenize("boat submarine boat")) == [boat, 0, boat]
    assert set(tokenize(DEFAULT_NEGATIVE_PROMPT)) & {0} == {0}


def test_ids_hang_on_the_words_and_not_on_their_order(tmp_path: Path) -> None:
    sizes = [
        write_word_tokenizer(tmp_path / name, words)
        for name, words in (("a", WORDS), ("b", [*reversed(WORDS), "RED", "boat"]))
    ]
    assert sizes == [len(SPECIAL_TOKENS) + len(PUNCTUATION) + len(WORDS)] * 2
    files = [(tmp_path / name / "tokenizer" / "tokenizer.json").read_bytes() for name in "ab"]
    assert files[0] == files[1]
