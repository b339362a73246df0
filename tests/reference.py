"""The reference: slow, obvious, and made of diffusers' own parts, one row and one branch at a time.

No cache, no packing, a dense mask, the branch's own positions and rotary regime. This is what the engine has to equal;
when they differ, the engine is wrong. It is *not* what diffusers' batched call computes: see test_parity.py.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from diffusers import AutoencoderKL, FlowMatchEulerDiscreteScheduler, OmniGenTransformer2DModel
from diffusers.pipelines.omnigen.processor_omnigen import OmniGenCollator, OmniGenMultiModalProcessor, crop_image
from PIL import Image
from torch import Tensor
from transformers import AutoTokenizer

from omnigen_actor.prompt import DEFAULT_NEGATIVE_PROMPT
from omnigen_actor.types import Request


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

    @torch.no_grad()
    def latent(self, request: Request) -> Tensor:
        """The final latent (channels, h, w) of one request."""
        pixels = [to_tensor(crop_image(image, request.max_input_image_size)) for image in request.images]
        height, width = (request.height, request.width) if request.height else pixels[0].shape[-2:]
        branches = [self.collate([inputs], height, width) for inputs in self.branch_inputs(request, pixels)]
        latents = [self.encode(branch["input_pixel_values"]) for branch in branches]
        z = initial_noise(request.seed, height, width)[None]
        self.scheduler.set_timesteps(sigmas=np.linspace(1, 0, request.steps + 1)[: request.steps])
        for t in self.scheduler.timesteps:
            v = [self.velocity(z, t, branch, given) for branch, given in zip(branches, latents, strict=True)]
            z = self.scheduler.step(guide(request, v), t, z, return_dict=False)[0]
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


def initial_noise(seed: int, height: int, width: int) -> Tensor:
    """fp32 noise of a row, drawn on the CPU."""
    generator = torch.Generator("cpu").manual_seed(seed)
    return torch.randn(4, height // 8, width // 8, generator=generator)


def to_tensor(image: Image.Image) -> Tensor:
    """What torchvision's ToTensor and Normalize(0.5, 0.5) do."""
    return (torch.from_numpy(np.array(image)).permute(2, 0, 1).float() / 255 - 0.5) / 0.5


def relative_error(found: Tensor, expected: Tensor) -> float:
    """Euclidean norm of the difference over that of the expected."""
    return float((found - expected).norm() / expected.norm())
