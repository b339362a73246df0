"""A tiny random OmniGen checkpoint with all the real files, for the ordinary loading path.

The images that it makes are noise shaped by the prompt; what it proves is the path. Knows nothing of engines.
"""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import Any

import torch

from omnigen_actor.checkpoint.layouts import (
    DIFFUSERS_STEM,
    ORIGINAL_STEM,
    PIPELINE,
    SCHEDULER,
    TOKENIZER,
    TRANSFORMER,
    VAE,
)
from omnigen_actor.checkpoint.rewriting import split_into_shards, write_original_layout
from omnigen_actor.model.prompt import DEFAULT_NEGATIVE_PROMPT
from omnigen_actor.tasks import TASKS

SPECIAL_TOKENS = (
    "<unk>", "<s>", "</s>", "<|endoftext|>", "<|assistant|>", "<|placeholder1|>", "<|placeholder2|>",
    "<|placeholder3|>", "<|placeholder4|>", "<|system|>", "<|end|>", "<|placeholder5|>", "<|placeholder6|>",
    "<|user|>", "<img>", "</img>", "<|diffusion|>", "<cfg>",
)  # fmt: skip
VOCABULARY = 512
HIDDEN, HEADS, LAYERS = 96, 4, 3


def write_tiny_checkpoint(folder: Path, seed: int = 0, **changes: Any) -> None:
    """Write transformer/, vae/, tokenizer/, scheduler/ and model_index.json under ``folder``; same seed, same bytes.

    ``changes`` go into the transformer's configuration: a benchmark wants it larger.
    """
    from diffusers import AutoencoderKL, FlowMatchEulerDiscreteScheduler, OmniGenTransformer2DModel

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        transformer = OmniGenTransformer2DModel(**transformer_config(**changes))
        _spread(transformer)
        vae = AutoencoderKL(**_VAE)
    transformer.save_pretrained(folder / TRANSFORMER, safe_serialization=True)
    vae.save_pretrained(folder / VAE, safe_serialization=True)
    scheduler = FlowMatchEulerDiscreteScheduler(num_train_timesteps=1, invert_sigmas=True, shift=1.0)
    scheduler.save_pretrained(folder / SCHEDULER)
    _write_tokenizer(folder / TOKENIZER)
    (folder / "model_index.json").write_text(json.dumps(PIPELINE, indent=2) + "\n", encoding="utf-8")


def write_tiny_original(folder: Path, seed: int = 0, **changes: Any) -> None:
    """The same weights to the bit, in the layout of the original repository."""
    with tempfile.TemporaryDirectory() as scratch:
        write_tiny_checkpoint(Path(scratch), seed, **changes)
        write_original_layout(Path(scratch), folder)


def shard_transformer(folder: Path, num_shards: int) -> None:
    """Split the transformer's one file, in either layout, into shards with an index."""
    original = folder / f"{ORIGINAL_STEM}.safetensors"
    split_into_shards(
        original if original.is_file() else folder / TRANSFORMER / f"{DIFFUSERS_STEM}.safetensors", num_shards
    )


def transformer_config(**changes: Any) -> dict[str, Any]:
    """Arguments of a tiny OmniGenTransformer2DModel, with both rotary regimes within reach of small images."""
    half_head = changes.get("hidden_size", HIDDEN) // changes.get("num_attention_heads", HEADS) // 2
    config = {
        "hidden_size": HIDDEN,
        "num_attention_heads": HEADS,
        "num_key_value_heads": HEADS,
        "num_layers": LAYERS,
        "intermediate_size": 2 * HIDDEN,
        "vocab_size": VOCABULARY,
        "pad_token_id": 2,
        "max_position_embeddings": 8192,
        "original_max_position_embeddings": 384,
        "rope_scaling": {
            "type": "su",
            "short_factor": [1.0 + 0.02 * i for i in range(half_head)],
            "long_factor": [1.0 + 0.5 * i for i in range(half_head)],
        },
        "pos_embed_max_size": 64,
    }
    return config | changes


def _spread(transformer: torch.nn.Module) -> None:
    """Scale up the default initialisation until prompt, images and time all show in the output."""
    for name, parameter in transformer.named_parameters():
        if parameter.dim() >= 2 and "embed_tokens" not in name:
            parameter.data.mul_(2.0)


def _write_tokenizer(folder: Path) -> None:
    from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    tokenizer = Tokenizer(models.BPE(unk_token="<unk>", byte_fallback=False))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY,
        special_tokens=[AddedToken(token, special=True, normalized=False) for token in SPECIAL_TOKENS],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator([DEFAULT_NEGATIVE_PROMPT, *(task.wording for task in TASKS.values())], trainer)
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, unk_token="<unk>", bos_token="<s>", eos_token="</s>", pad_token="</s>"
    )
    fast.save_pretrained(folder)


_VAE: dict[str, Any] = {
    "in_channels": 3,
    "out_channels": 3,
    "down_block_types": ("DownEncoderBlock2D",) * 4,
    "up_block_types": ("UpDecoderBlock2D",) * 4,
    "block_out_channels": (16, 16, 16, 16),
    "layers_per_block": 1,
    "latent_channels": 4,
    "norm_num_groups": 8,
    "sample_size": 1024,
    "scaling_factor": 0.13025,
    "mid_block_add_attention": False,
}
