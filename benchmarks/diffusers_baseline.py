"""Diffusers' transformer as its users call it: its own prompt processing and collator, and classifier-free guidance.

``batched``: all branches of all rows padded into one call with a dense mask, as OmniGenPipeline does; where lengths
differ its rotary embedding is wrong (tests/test_parity.py), so its time counts and its result does not. Otherwise one
branch at a time without padding: the reference. Integration is in fp32 in both. What diffusers would also pay is left
out: collating (on the device here), and encoding each input image once per branch.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

import numpy as np
import torch
from diffusers.pipelines.omnigen.processor_omnigen import OmniGenCollator, OmniGenMultiModalProcessor
from PIL import Image
from torch import Tensor

from benchmarks.full_size import Model
from omnigen_actor.model.prompt import DEFAULT_NEGATIVE_PROMPT, Tokenize, images_only_prompt
from omnigen_actor.types import Request


class Call(NamedTuple):
    """One call of the transformer per step: its fixed arguments."""

    num_sequences: int
    arguments: dict[str, Any]


class Prepared(NamedTuple):
    """Rows before the first step. ``noise``: (rows, channels, h, w)."""

    requests: list[Request]
    noise: Tensor
    calls: list[Call]


class _Tokens(NamedTuple):
    input_ids: list[int]


class Baseline:
    """Diffusers' transformer over a Model's weights."""

    def __init__(self, model: Model, dtype: torch.dtype) -> None:
        self._model = model
        self._dtype = dtype
        self._transformer = model.diffusers(dtype)
        self._collator = OmniGenCollator(hidden_size=model.config["hidden_size"])
        # Its constructor needs torchvision; the prompt processing that is used here does not.
        self._processor = OmniGenMultiModalProcessor.__new__(OmniGenMultiModalProcessor)
        self._processor.text_tokenizer = _tokenizer(model.tokenize)

    @contextmanager
    def compiled(self, backend: str) -> Iterator[None]:
        """Every block compiled, for exactly the shapes that come. A shape more is a graph more, never a fall-back."""
        limits = {"recompile_limit": 64, "accumulated_recompile_limit": 4096, "fail_on_recompile_limit_hit": True}
        known: dict[str, Any] = {name: value for name, value in limits.items() if hasattr(torch._dynamo.config, name)}
        with torch._dynamo.config.patch(**known):
            for block in self._transformer.layers:
                block.compile(backend=backend, dynamic=False)
            try:
                yield
            finally:
                for block in self._transformer.layers:
                    block._compiled_call_impl = None

    @torch.inference_mode()
    def prepare(self, requests: Sequence[Request], *, batched: bool) -> Prepared:
        """Everything before the first step. All requests have one size and one number of images."""
        rows = [[encode(self._model, image) for image in request.images] for request in requests]
        branches = self._branches(requests, rows)
        groups = [branches] if batched else [[branch] for branch in branches]
        request = requests[0]
        calls = [self._call(group, (request.height or 0, request.width or 0)) for group in groups]
        noise = torch.stack([initial_noise(request) for request in requests])
        return Prepared(list(requests), noise.to(self._model.device), calls)

    @torch.inference_mode()
    def denoise(self, prepared: Prepared, steps: int) -> Tensor:
        """The first ``steps`` Euler steps: latents (rows, channels, h, w), fp32."""
        latent = prepared.noise
        times = torch.linspace(0, 1, prepared.requests[0].steps + 1, device=latent.device)
        for now, then in itertools.pairwise(times[: steps + 1]):
            latent = latent + guide(prepared.requests[0], self._velocities(prepared, latent, now)) * (then - now)
        return latent

    def _velocities(self, prepared: Prepared, latent: Tensor, time: Tensor) -> list[Tensor]:
        """One (rows, channels, h, w) for each branch, in the order full, negative, images."""
        num_rows = len(latent)
        found = []
        for index, call in enumerate(prepared.calls):
            which = [(index + i) % num_rows for i in range(call.num_sequences)]
            given = latent[which].to(self._dtype)
            found.append(
                self._transformer(
                    hidden_states=given, timestep=time.expand(len(given)), return_dict=False, **call.arguments
                )[0].float()
            )
        return list(torch.split(torch.cat(found), num_rows))

    def _branches(
        self, requests: Sequence[Request], rows: Sequence[list[Tensor]]
    ) -> list[tuple[dict[str, Any], list[Tensor]]]:
        """Diffusers' inputs and image latents of each sequence: all rows' full ones, then negative, then images."""
        pixels = [[torch.empty(3, image.height, image.width) for image in request.images] for request in requests]
        process = self._processor.process_multi_modal_prompt
        full = [(process(r.prompt, p), latents) for r, p, latents in zip(requests, pixels, rows, strict=True)]
        negative = [(process(DEFAULT_NEGATIVE_PROMPT, None), list[Tensor]()) for _ in requests]
        if not requests[0].images:
            return full + negative
        only = [(process(images_only_prompt(len(p)), p), latents) for p, latents in zip(pixels, rows, strict=True)]
        return full + negative + only

    def _call(self, group: Sequence[tuple[dict[str, Any], list[Tensor]]], size: tuple[int, int]) -> Call:
        with self._model.device:  # the mask of one edit at 1024² takes seconds on a CPU
            ids, positions, mask, _, _, spans = self._collator.process_mllm_input(
                [dict(inputs) for inputs, _ in group], [list(size)] * len(group)
            )
        arguments = {
            "input_ids": ids.to(self._model.device),
            "position_ids": positions.to(self._model.device),
            "attention_mask": mask.to(self._model.device),
            "input_image_sizes": spans,
            "input_img_latents": [latent[None].to(self._dtype) for _, latents in group for latent in latents],
        }
        return Call(len(group), arguments)


def guide(request: Request, velocities: Sequence[Tensor]) -> Tensor:
    """Classifier-free guidance as the authors write it; the branches are full, negative[, images]."""
    if len(velocities) == 2:
        full, negative = velocities
        return negative + request.guidance_scale * (full - negative)
    full, negative, images = velocities
    return negative + request.img_guidance_scale * (images - negative) + request.guidance_scale * (full - images)


def initial_noise(request: Request) -> Tensor:
    """fp32 noise of a row, drawn on the CPU."""
    generator = torch.Generator("cpu").manual_seed(request.seed)
    return torch.randn(4, (request.height or 0) // 8, (request.width or 0) // 8, generator=generator)


@torch.inference_mode()
def encode(model: Model, image: Image.Image) -> Tensor:
    """The mode of the latent distribution, scaled, (channels, h, w), fp32."""
    pixels = torch.from_numpy(np.array(image)).to(model.device).permute(2, 0, 1)[None].float() / 127.5 - 1
    latent: Tensor = model.vae.encode(pixels).latent_dist.mode()[0] * model.vae.config.scaling_factor
    return latent


@torch.inference_mode()
def decode(model: Model, latent: Tensor) -> Tensor:
    """A latent (channels, h, w) -> pixels (3, height, width) in [0, 1], fp32."""
    decoded = model.vae.decode(latent[None].float() / model.vae.config.scaling_factor, return_dict=False)[0][0]
    pixels: Tensor = (decoded / 2 + 0.5).clamp(0, 1)
    return pixels


def _tokenizer(tokenize: Tokenize) -> Any:
    return lambda text: _Tokens(list(tokenize(text)))
