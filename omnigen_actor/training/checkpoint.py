"""A checkpoint folder in diffusers' layout from weights in training. Knows no training.

The tokenizer is one of whole words: a closed world has a closed vocabulary. Ids 0, 1 and 2 are unknown, begin and end,
as the code of diffusers expects.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file

from omnigen_actor.checkpoint.layouts import (
    CONFIG,
    DIFFUSERS_STEM,
    MODEL_INDEX,
    PIPELINE,
    SCHEDULER,
    TOKENIZER,
    TRANSFORMER,
    VAE,
    Checkpoint,
)

SPECIAL_TOKENS = (
    "<unk>", "<s>", "</s>", "<|user|>", "<|end|>", "<|assistant|>", "<|diffusion|>", "<img>", "</img>", "<cfg>",
)  # fmt: skip

_TOKENIZER_FILES = (
    "tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json", "tokenizer.model",
)  # fmt: skip
"""In the original layout they lie beside the weights."""

PUNCTUATION = (".", ",", ":", ";", "?", "!", "-", "'", '"', "(", ")")


def write_transformer(
    folder: Path, config: Mapping[str, Any], tensors: Mapping[str, torch.Tensor], dtype: torch.dtype
) -> None:
    """transformer/: the configuration, and the tensors under diffusers' names."""
    target = folder / TRANSFORMER
    target.mkdir(parents=True, exist_ok=True)
    _write_json(target / CONFIG, {"_class_name": "OmniGenTransformer2DModel", **config})
    saved = {name: tensor.detach().to("cpu", dtype).contiguous() for name, tensor in tensors.items()}
    save_file(saved, target / f"{DIFFUSERS_STEM}.safetensors", metadata={"format": "pt"})


def write_autoencoder(folder: Path, model: Any, dtype: torch.dtype) -> None:
    """vae/: a diffusers AutoencoderKL."""
    target = folder / VAE
    model.save_config(target)
    saved = {name: tensor.detach().to("cpu", dtype).contiguous() for name, tensor in model.state_dict().items()}
    save_file(saved, target / f"{DIFFUSERS_STEM}.safetensors", metadata={"format": "pt"})


def write_word_tokenizer(folder: Path, words: Iterable[str]) -> int:
    """tokenizer/: one id for each word, in lower case, and for punctuation; how many ids there are."""
    from tokenizers import AddedToken, Regex, Tokenizer, models, normalizers, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    lowered = sorted({word.lower() for word in words})
    ids = {token: number for number, token in enumerate(dict.fromkeys((*SPECIAL_TOKENS, *PUNCTUATION, *lowered)))}
    tokenizer = Tokenizer(models.WordLevel(ids, unk_token="<unk>"))
    tokenizer.normalizer = normalizers.Lowercase()
    # Marks one by one: a run of them, such as ?", is no word of the vocabulary.
    tokenizer.pre_tokenizer = pre_tokenizers.Split(Regex(r"\w+|[^\w\s]"), behavior="removed", invert=True)
    tokenizer.add_special_tokens([AddedToken(token, special=True, normalized=False) for token in SPECIAL_TOKENS])
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, unk_token="<unk>", bos_token="<s>", eos_token="</s>", pad_token="</s>"
    )
    fast.save_pretrained(folder / TOKENIZER)
    return len(ids)


def write_rest(folder: Path) -> None:
    """scheduler/ and model_index.json, which is last: its presence means a whole checkpoint."""
    (folder / SCHEDULER).mkdir(parents=True, exist_ok=True)
    scheduler = {
        "_class_name": "FlowMatchEulerDiscreteScheduler",
        "_diffusers_version": "0.36.0",
        "invert_sigmas": True,
        "num_train_timesteps": 1,
        "shift": 1.0,
    }
    _write_json(folder / SCHEDULER / "scheduler_config.json", scheduler)
    _write_json(folder / MODEL_INDEX, PIPELINE)


def copy_rest(checkpoint: Checkpoint, folder: Path) -> None:
    """vae/ and tokenizer/ of a checkpoint in either layout, byte for byte; then scheduler/ and model_index.json."""
    for source, name in ((checkpoint.vae, VAE), (checkpoint.tokenizer, TOKENIZER)):
        (folder / name).mkdir(parents=True, exist_ok=True)
        wanted = _TOKENIZER_FILES if name == TOKENIZER else [path.name for path in source.iterdir() if path.is_file()]
        for file in wanted:
            if (source / file).is_file():
                shutil.copyfile(source / file, folder / name / file)
    write_rest(folder)


def _write_json(path: Path, content: Mapping[str, Any]) -> None:
    path.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
