"""The tiny checkpoint has the real files, and the stock classes load it."""

from __future__ import annotations

import filecmp
from pathlib import Path

from omnigen_actor.checkpoint.tiny import write_tiny_checkpoint


def test_the_same_seed_writes_the_same_files(tmp_path: Path):
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        write_tiny_checkpoint(tmp_path / name, seed)
    assert weights(tmp_path / "a") == weights(tmp_path / "b") != weights(tmp_path / "c")
    same, different, _ = filecmp.cmpfiles(tmp_path / "a", tmp_path / "b", files(tmp_path / "a"), shallow=False)
    assert len(same) == 8
    assert different == []


def test_it_is_small(tiny_model: Path):
    assert sum((tiny_model / file).stat().st_size for file in files(tiny_model)) < 5_000_000


def test_the_stock_classes_load_it(reference):
    assert reference.transformer.config.num_layers == 3
    assert reference.vae.config.latent_channels == 4


def test_the_tokenizer_knows_the_special_tokens(reference):
    tokenizer = reference.processor.text_tokenizer
    for token in ("<|user|>", "<|end|>", "<|assistant|>", "<|diffusion|>", "<img>", "</img>"):
        assert len(tokenizer(token).input_ids) == 1
    assert tokenizer.convert_tokens_to_ids(["<unk>", "<s>", "</s>"]) == [0, 1, 2]


def test_the_tokenizer_loses_nothing(reference):
    text = "Zwölf Boxkämpfer jagen Viktor, 拳击手!"
    tokenizer = reference.processor.text_tokenizer
    assert tokenizer.decode(tokenizer(text).input_ids) == text


def files(folder: Path) -> list[str]:
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())


def weights(folder: Path) -> list[bytes]:
    return [path.read_bytes() for path in sorted(folder.rglob("*.safetensors"))]
