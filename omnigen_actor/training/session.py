"""One worker's training: a checkpoint opened as a network, steps on prepared rows, its state as bytes, its result.

Knows no Ray and no places of files: what is saved goes to a folder that it is given, and comes from bytes.
"""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor

from omnigen_actor import seeding
from omnigen_actor.checkpoint.headers import read_header
from omnigen_actor.checkpoint.opening import Checkpoint, open_checkpoint
from omnigen_actor.checkpoint.tensors import diffusers_places
from omnigen_actor.model.loading import load_tokenizer, pick_device, pick_dtype
from omnigen_actor.model.prompt import segments
from omnigen_actor.model.sampler import noise
from omnigen_actor.model.vae import Vae, to_image
from omnigen_actor.model.weights import DTYPES, read_weights
from omnigen_actor.training.checkpoint import copy_rest, write_transformer
from omnigen_actor.training.drawing import draw
from omnigen_actor.training.encoding import read_latents
from omnigen_actor.training.flow import Example
from omnigen_actor.training.low_rank import add_low_rank, write_adapter
from omnigen_actor.training.network import Network
from omnigen_actor.training.trainer import FlowRecipe, FlowTrainer, Reduce
from omnigen_actor.uri import redact

Row = Mapping[str, Any]
"""A row of the schema PREPARED."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SessionSpec:
    """What it takes to begin: plain values that travel to a worker."""

    model: str
    recipe: FlowRecipe
    device: str = "auto"
    dtype: str = "auto"
    cpu_threads: int = 1
    saves_memory: bool = False
    lora_rank: int | None = None
    lora_alpha: float | None = None
    result_dtype: str = "auto"


class Session:
    """A checkpoint in training. Raises ModelError where it can't be opened."""

    def __init__(self, spec: SessionSpec, *, worker: int = 0, reduce: Reduce | None = None) -> None:
        torch.set_num_threads(spec.cpu_threads)
        self._spec = spec
        self._device = pick_device(spec.device)
        self.checkpoint = open_checkpoint(spec.model)
        self._tokenize = load_tokenizer(self.checkpoint)
        network = open_network(self.checkpoint, saves_memory=spec.saves_memory).to(self._device)
        if spec.lora_rank is not None:
            alpha = spec.lora_rank if spec.lora_alpha is None else spec.lora_alpha
            add_low_rank(network, spec.lora_rank, alpha, generator=torch.Generator().manual_seed(spec.recipe.seed))
        self.trainer = FlowTrainer(network, self._tokenize, spec.recipe, worker=worker, reduce=reduce)
        self._dtype = pick_dtype(spec.dtype, self._device)

    @property
    def step(self) -> int:
        """How many steps are done."""
        return self.trainer.step

    def train(self, rows: Sequence[Row]) -> float:
        """One step; its loss."""
        with self._precision():
            return self.trainer.train([self._example(row) for row in rows])

    def validate(self, rows: Sequence[Row]) -> float:
        """The loss of the averaged weights on held-out rows, comparable from call to call."""
        with self._precision():
            return self.trainer.validate([self._example(row) for row in rows])

    def draw(self, rows: Sequence[Row]) -> list[tuple[Image.Image, ...]]:
        """Each row's pictures, decoded from latents: its inputs, the right one, what the averaged weights draw.

        A row's noise follows from the recipe's seed and its id: the same at every call. The training goes on as if
        nothing had been drawn.
        """
        trainer = self.trainer
        examples = [self._example(row) for row in rows]
        noises = [
            noise(seeding.row_seed(trainer.recipe.seed, row["id"], row["sample"]), *example.target.shape)
            for row, example in zip(rows, examples, strict=True)
        ]
        with trainer.average.in_place(trainer.network), self._precision():
            drawn = draw(trainer.network, self._tokenize, examples, noises)
        lines = [(*example.inputs, example.target, one) for example, one in zip(examples, drawn, strict=True)]
        return [tuple(self._picture(latent) for latent in line) for line in lines]

    def state(self) -> bytes:
        """All that goes on from here."""
        sink = io.BytesIO()
        torch.save(self.trainer.state(), sink)
        return sink.getvalue()

    def restore(self, state: bytes) -> None:
        """Go on from ``state``, which may hold tensors and plain values, nothing that runs."""
        self.trainer.restore(torch.load(io.BytesIO(state), map_location="cpu", weights_only=True))

    def write_result(self, folder: Path) -> None:
        """The averaged weights: a PEFT folder with LoRA, else a checkpoint in diffusers' layout."""
        trainer, checkpoint = self.trainer, self.checkpoint
        with trainer.average.in_place(trainer.network):
            if self._spec.lora_rank is not None:
                write_adapter(folder, trainer.network, base=redact(self._spec.model))
                return
            tensors = dict(trainer.network.state_dict())
            write_transformer(folder, checkpoint.transformer, tensors, self._result_dtype())
        copy_rest(checkpoint, folder)

    def _example(self, row: Row) -> Example:
        latents = read_latents(dict(row))
        return Example(segments=segments(row["prompt"], self._tokenize), inputs=tuple(latents[:-1]), target=latents[-1])

    @cached_property
    def _vae(self) -> Vae:
        """Loaded when the first picture is drawn: training itself needs no pixels."""
        return Vae.load(self.checkpoint.vae, self._device)

    @torch.inference_mode()
    def _picture(self, latent: Tensor) -> Image.Image:
        return to_image(self._vae.decode(latent.to(self._device)))

    def _result_dtype(self) -> torch.dtype:
        name = self._spec.result_dtype
        found: torch.dtype = stored_dtype(self.checkpoint) if name == "auto" else getattr(torch, name)
        return found

    def _precision(self) -> torch.autocast:
        is_half = self._dtype == torch.bfloat16
        return torch.autocast(self._device.type, torch.bfloat16, enabled=is_half)


def stored_dtype(checkpoint: Checkpoint) -> torch.dtype:
    """The dtype of a checkpoint's files."""
    return DTYPES[read_header(checkpoint.label, checkpoint.transformer_files[0]).tensors[0].dtype]


def open_network(checkpoint: Checkpoint, *, saves_memory: bool = False) -> Network:
    """A checkpoint's transformer as a module, in fp32 on the CPU. Raises ModelError."""
    network = Network(checkpoint.transformer, saves_memory=saves_memory)
    device = torch.device("cpu")
    read = read_weights(checkpoint.label, checkpoint.transformer_files, device, torch.float32, places=checkpoint.places)
    parts = {
        name: read.tensors[place.name][place.first_row : place.first_row + place.shape[0]]
        for name, place in diffusers_places(checkpoint.transformer).items()
    }
    network.load_state_dict(parts)
    return network
