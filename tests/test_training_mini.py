"""The mini model before its training, and the training of its autoencoder: resumable, loadable, of the right shapes."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from jobs import exit_codes, mini_model
from omnigen_actor.engine import OmniGenEngine
from omnigen_actor.engine_settings import EngineSettings
from omnigen_actor.errors import ConfigError
from omnigen_actor.training import autoencoder_run
from omnigen_actor.training.autoencoder import AutoencoderRecipe
from omnigen_actor.training.autoencoder_run import STATE, train_autoencoder
from omnigen_actor.training.mini import read_autoencoder
from omnigen_actor.types import Request, Result
from pipelines.world import album as album_module
from pipelines.world.album import picture, pictures
from pipelines.world.captions import vocabulary
from pipelines.world.presets import SMALL

RECIPE = AutoencoderRecipe(num_steps=6, batch_size=2, crop_batch_size=2)


def album(first: int, count: int) -> np.ndarray[tuple[int, ...], np.dtype[np.uint8]]:
    return pictures(SMALL, 1, first, count)


def train(folder: Path, recipe: AutoencoderRecipe = RECIPE) -> dict[str, torch.Tensor]:
    folder.mkdir(exist_ok=True)
    train_autoencoder(folder, recipe, album, held_out=album(900, 2), whitened_on=album(0, 8))
    weights: dict[str, torch.Tensor] = read_autoencoder(folder / "vae").state_dict()
    return weights


def test_pictures_of_an_album_hang_on_their_number_alone() -> None:
    shown = pictures(SMALL, 1, 10, 40)
    assert shown.shape == (40, 64, 64, 3)
    assert np.array_equal(shown[3], picture(SMALL, 1, 13))
    assert len({one.tobytes() for one in shown}) == 40


def test_an_autoencoder_that_was_cut_off_ends_in_the_same_weights(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = train(tmp_path / "whole")
    monkeypatch.setattr(autoencoder_run, "_SAVE_EVERY", 2)
    calls: list[int] = []

    def cut_album(first: int, count: int) -> np.ndarray[tuple[int, ...], np.dtype[np.uint8]]:
        calls.append(first)
        if len(calls) == 4:
            raise KeyboardInterrupt
        return album(first, count)

    cut = tmp_path / "cut"
    cut.mkdir()
    with pytest.raises(KeyboardInterrupt):
        train_autoencoder(cut, RECIPE, cut_album, held_out=album(900, 2), whitened_on=album(0, 8))
    assert torch.load(cut / STATE, weights_only=True)["step"] == 2
    again = train(cut)
    assert all(torch.equal(whole[name], again[name]) for name in whole)


def test_pictures_have_the_size_that_is_asked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def told(folder: Path, recipe: AutoencoderRecipe, album: object, *, held_out: np.ndarray, **_: object) -> None:
        raise ConfigError(f"{len(held_out)} of {held_out.shape[1]} px")

    monkeypatch.setattr(autoencoder_run, "train_autoencoder", told)
    monkeypatch.setattr(album_module, "pictures", lambda world, _seed, _first, count: np.zeros((count, world.size, 1)))
    for argv, message in (([], "64 of 64 px"), (["--size", "128"], "64 of 128 px"), (["--size", "100"], "size=100")):
        assert mini_model.main([str(tmp_path), *argv]) == exit_codes.NOT_STARTED
        assert message in capsys.readouterr().err


def test_the_untrained_mini_model_is_a_checkpoint_that_the_engine_loads(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    argv = [str(tmp_path), "--autoencoder-steps", "1", "--hidden-size", "64", "--layers", "1"]
    assert mini_model.main(argv) == exit_codes.OK, capsys.readouterr().err
    assert mini_model.main(argv) == exit_codes.OK
    config = json.loads((tmp_path / "untrained" / "transformer" / "config.json").read_text())
    assert (config["patch_size"], config["num_attention_heads"], config["intermediate_size"]) == (4, 2, 160)
    tokens = json.loads((tmp_path / "untrained" / "tokenizer" / "tokenizer.json").read_text())["model"]["vocab"]
    assert vocabulary(SMALL) <= set(tokens)
    assert len(tokens) == config["vocab_size"]
    engine = OmniGenEngine.from_pretrained(str(tmp_path / "untrained"), EngineSettings(device="cpu"))
    (outcome,) = engine.generate([Request(id="a", prompt="a red circle", seed=1, width=64, height=64, steps=1)])
    assert isinstance(outcome, Result)
    assert outcome.image.size == (64, 64)
