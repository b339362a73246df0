"""The mini model before it is trained: shapes of its parts, and a checkpoint folder of them. Knows no training.

Sixteen pixels a token are fixed in diffusers, so an autoencoder of factor 4 goes with patches of 4. Both regimes of
longrope are within reach of pictures of 64 px: a row of three images and the negative prompt are in the long one.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch

from omnigen_actor.checkpoint.layouts import DIFFUSERS_STEM
from omnigen_actor.checkpoint.reading import read_json
from omnigen_actor.model.weights import read_weights
from omnigen_actor.training.checkpoint import write_autoencoder, write_rest, write_transformer, write_word_tokenizer
from omnigen_actor.training.network import Network

FACTOR, LATENT_CHANNELS = 4, 4
HEAD_SIZE = 32
LEAST_DEVIATION = -5.0
"""Where the log variance of latents begins: the stock pipeline samples input latents, so it must be small."""


def new_autoencoder(seed: int = 0) -> Any:
    """A diffusers AutoencoderKL of 0.23 M parameters with random weights."""
    from diffusers import AutoencoderKL

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = AutoencoderKL(
            in_channels=3,
            out_channels=3,
            down_block_types=("DownEncoderBlock2D",) * 3,
            up_block_types=("UpDecoderBlock2D",) * 3,
            block_out_channels=(16, 32, 32),
            layers_per_block=1,
            latent_channels=LATENT_CHANNELS,
            norm_num_groups=4,
            sample_size=64,
            scaling_factor=1.0,
            mid_block_add_attention=False,
        )
    with torch.no_grad():
        model.quant_conv.bias[LATENT_CHANNELS:] += LEAST_DEVIATION
    return model


def transformer_config(vocab_size: int, *, hidden_size: int = 192, num_layers: int = 6) -> dict[str, Any]:
    """transformer/config.json of the mini model."""
    half_head = HEAD_SIZE // 2
    return {
        "hidden_size": hidden_size,
        "intermediate_size": 32 * round(hidden_size * 8 / 3 / 32),
        "num_attention_heads": hidden_size // HEAD_SIZE,
        "num_key_value_heads": hidden_size // HEAD_SIZE,
        "num_layers": num_layers,
        "vocab_size": vocab_size,
        "in_channels": LATENT_CHANNELS,
        "patch_size": 16 // FACTOR,
        "pos_embed_max_size": 32,
        "time_step_dim": 256,
        "max_position_embeddings": 640,
        "original_max_position_embeddings": 80,
        "rms_norm_eps": 1e-5,
        "rope_base": 10000,
        "rope_scaling": {
            "type": "su",
            "short_factor": [1.0] * half_head,
            "long_factor": [1.0 + 0.1 * number for number in range(half_head)],
        },
        "flip_sin_to_cos": True,
        "downscale_freq_shift": 0,
        "pad_token_id": 2,
        "bos_token_id": 1,
        "eos_token_id": 2,
    }


def write_untrained(
    folder: Path, autoencoder: Path, words: Iterable[str], *, hidden_size: int = 192, num_layers: int = 6, seed: int = 0
) -> None:
    """A checkpoint with random weights in its transformer, and the trained autoencoder of a vae/ folder.

    Weights are kept in fp32, to be trained. Raises ModelError where the autoencoder can't be read.
    """
    config = transformer_config(write_word_tokenizer(folder, words), hidden_size=hidden_size, num_layers=num_layers)
    network = Network(config)
    network.draw(torch.Generator().manual_seed(seed))
    write_transformer(folder, config, dict(network.state_dict()), torch.float32)
    write_autoencoder(folder, read_autoencoder(autoencoder), torch.float16)
    write_rest(folder)


def read_autoencoder(folder: Path) -> Any:
    """The diffusers AutoencoderKL of a vae/ folder, in fp32. Raises ModelError."""
    from diffusers import AutoencoderKL

    label = f"autoencoder {str(folder)!r}"
    model = AutoencoderKL.from_config(read_json(label, folder / "config.json"))
    files = [folder / f"{DIFFUSERS_STEM}.safetensors"]
    model.load_state_dict(read_weights(label, files, torch.device("cpu"), torch.float32).tensors)
    return model
