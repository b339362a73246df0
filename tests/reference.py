"""The reference: slow, obvious, and made of diffusers' own parts, one row and one branch at a time.

No cache, no packing, a dense mask, the branch's own positions and rotary regime. This is what the engine has to equal;
when they differ, the engine is wrong. It is *not* what diffusers' batched call computes: see test_parity.py.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from diffusers import AutoencoderKL, FlowMatchEulerDiscreteScheduler, OmniGenTransformer2DModel
from diffusers.pipelines.omnigen.processor_omnigen import OmniGenCollator, OmniGenMultiModalProcessor, crop_image
from PIL import Image
from torch import Tensor
from transformers import AutoTokenizer

from omnigen_actor.model.prompt import DEFAULT_NEGATIVE_PROMPT
from omnigen_actor.types import Request


class Prepared(NamedTuple):
    """The starting noise (1, channels, h, w), the collated inputs of each call, and the image latents of each call."""

    noise: Tensor
    calls: list[dict[str, Any]]
    latents: list[list[Tensor]]


class Reference:
    """Diffusers' transformer, VAE, scheduler, prompt processing and collator, called with a batch of 1."""

    def __init__(self, folder: Path) -> None:
        self.transformer = OmniGenTransformer2DModel.from_pretrained(
            folder / "transformer", low_cpu_mem_usage=False
        ).eval()
        self.vae = AutoencoderKL.from_pretrained(folder / "vae", low_cpu_mem_usage=False).eval()
        self.scheduler = FlowMatchEulerDiscreteScheduler.from_pretrained(folder / "scheduler")
        self.collator = OmniGenCollator(hidden_size=self.transformer.config.hidden_size)
        # Its constructor needs torchvision; the prompt processing that is used here does not.
        self.processor = OmniGenMultiModalProcessor.__new__(OmniGenMultiModalProcessor)
        self.processor.text_tokenizer = AutoTokenizer.from_pretrained(folder / "tokenizer")

    def latent(self, request: Request) -> Tensor:
        """The final latent (channels, h, w) of one request."""
        return self.denoise(request, self.prepare(request))

    @torch.no_grad()
    def prepare(self, request: Request, *, batched: bool = False) -> Prepared:
        """What comes before the first step. ``batched``: all branches in one padded call, as diffusers' users have it;
        the result is wrong then where their lengths differ.
        """
        pixels = [to_tensor(crop_image(image, request.max_input_image_size)) for image in request.images]
        height, width = (request.height, request.width) if request.height else pixels[0].shape[-2:]
        inputs = self.branch_inputs(request, pixels)
        groups = [inputs] if batched else [[one] for one in inputs]
        calls = [self.collate(group, height, width) for group in groups]
        latents = [self.encode(call["input_pixel_values"]) for call in calls]
        factor = 2 ** (len(self.vae.config.block_out_channels) - 1)
        return Prepared(initial_noise(request.seed, height, width, factor)[None], calls, latents)

    @torch.no_grad()
    def denoise(self, request: Request, prepared: Prepared) -> Tensor:
        """All steps: the final latent (channels, h, w)."""
        z = prepared.noise
        self.scheduler.set_timesteps(sigmas=np.linspace(1, 0, request.steps + 1)[: request.steps])
        for t in self.scheduler.timesteps:
            calls = zip(prepared.calls, prepared.latents, strict=True)
            v = [self.velocity(z.expand(len(call["input_ids"]), -1, -1, -1), t, call, given) for call, given in calls]
            z = self.scheduler.step(guide(request, torch.cat(v).split(1)), t, z, return_dict=False)[0]
        return z[0]

    def branch_inputs(self, request: Request, pixels: list[Tensor]) -> list[dict[str, Any]]:
        """Diffusers' prompt processing for the (full, negative[, images-only]) branches."""
        inputs = [
            self.processor.process_multi_modal_prompt(request.prompt, pixels),
            self.processor.process_multi_modal_prompt(request.negative_prompt or DEFAULT_NEGATIVE_PROMPT, None),
        ]
        if pixels:
            images_only = " ".join(f"<img><|image_{i + 1}|></img>" for i in range(len(pixels)))
            inputs.append(self.processor.process_multi_modal_prompt(images_only, pixels))
        return inputs

    def collate(self, inputs: list[dict[str, Any]], height: int, width: int) -> dict[str, Any]:
        """Diffusers' collator: padded ids, positions and the dense mask."""
        ids, positions, mask, _, pixels, sizes = self.collator.process_mllm_input(
            inputs, [[height, width]] * len(inputs)
        )
        return {
            "input_ids": ids,
            "position_ids": positions,
            "attention_mask": mask,
            "input_pixel_values": pixels,
            "input_image_sizes": sizes,
        }

    def encode(self, pixels: Sequence[Tensor]) -> list[Tensor]:
        """The mode of the latent distribution, scaled."""
        return [self.vae.encode(image).latent_dist.mode() * self.vae.config.scaling_factor for image in pixels]

    def velocity(self, z: Tensor, t: Tensor, branch: dict[str, Any], latents: list[Tensor]) -> Tensor:
        """One forward pass of diffusers' transformer."""
        inputs = {name: value for name, value in branch.items() if name != "input_pixel_values"}
        return self.transformer(
            hidden_states=z, timestep=t.expand(len(z)), input_img_latents=latents, return_dict=False, **inputs
        )[0]


def guide(request: Request, v: Sequence[Tensor]) -> Tensor:
    """Classifier-free guidance as the authors write it."""
    if len(v) == 2:
        return v[1] + request.guidance_scale * (v[0] - v[1])
    return v[1] + request.img_guidance_scale * (v[2] - v[1]) + request.guidance_scale * (v[0] - v[2])


def initial_noise(seed: int, height: int, width: int, factor: int = 8) -> Tensor:
    """fp32 noise of a row, drawn on the CPU, for an autoencoder of that factor."""
    generator = torch.Generator("cpu").manual_seed(seed)
    return torch.randn(4, height // factor, width // factor, generator=generator)


def to_tensor(image: Image.Image) -> Tensor:
    """What torchvision's ToTensor and Normalize(0.5, 0.5) do."""
    return (torch.from_numpy(np.array(image)).permute(2, 0, 1).float() / 255 - 0.5) / 0.5


def relative_error(found: Tensor, expected: Tensor) -> float:
    """Euclidean norm of the difference over that of the expected."""
    return float((found - expected).norm() / expected.norm())
