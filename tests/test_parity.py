"""The engine equals the reference, row by row, whatever rows it is packed with."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from omnigen_actor import placeholders
from omnigen_actor.engine import OmniGenEngine
from omnigen_actor.engine_settings import EngineSettings
from omnigen_actor.model.blocks import CompiledBlocks
from omnigen_actor.types import Request, Result
from tests.reference import Reference, initial_noise, relative_error, to_tensor

TOLERANCE = 1e-5
WORDS = [
    "a",
    "red",
    "cat",
    "on",
    "the",
    "roof",
    "of",
    "an",
    "old",
    "house",
    "at",
    "night",
    "with",
    "rain",
    "two",
    "dogs",
]

sides = st.integers(1, 20).map(lambda tokens: 16 * tokens)
scales = st.floats(0.0, 4.0).map(lambda scale: round(scale, 2))


@st.composite
def requests(draw: st.DrawFn, picture) -> Request:
    num_images = draw(st.integers(0, 3))
    order = draw(st.permutations(range(1, num_images + 1)))
    texts = [" ".join(draw(st.lists(st.sampled_from(WORDS), max_size=60))) for _ in range(num_images + 1)]
    marks = [placeholders.placeholder(number) for number in order]
    prompt = texts[0] + "".join(f" {mark} {text}" for mark, text in zip(marks, texts[1:], strict=True))
    prompt = prompt.strip() or "a cat"  # images may come first, where the branches share what they know
    # No side of 16: a thin picture may be one that was fitted, and is left as it is, where the authors shrink it again.
    images = tuple(picture(draw(st.integers(17, 260)), draw(st.integers(17, 260)), seed) for seed in range(num_images))
    sized = not num_images or draw(st.booleans())
    return Request(
        id="row",
        prompt=prompt,
        images=images,
        width=draw(sides) if sized else None,
        height=draw(sides) if sized else None,
        steps=draw(st.integers(1, 4)),
        seed=draw(st.integers(0, 2**32)),
        guidance_scale=draw(scales),
        img_guidance_scale=draw(scales),
        max_input_image_size=draw(st.sampled_from([64, 144, 256])),
    )


@pytest.mark.slow
@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture], derandomize=True)
@given(data=st.data())
def test_a_mixed_wave_equals_the_reference_row_by_row(data, engine: OmniGenEngine, reference: Reference, picture):
    wave = data.draw(st.lists(requests(picture), min_size=1, max_size=3))
    for request, latent in zip(wave, engine.latents(wave), strict=True):
        assert relative_error(latent, reference.latent(request)) <= TOLERANCE


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("g++") is None, reason="torch.compile needs a C++ compiler")
@pytest.mark.filterwarnings("ignore::DeprecationWarning:torch")  # torch's own, while it compiles
def test_compiled_blocks_in_bounded_waves_equal_the_reference(tiny_model: Path, reference: Reference, picture):
    """Every optimisation on: compiled, packed, rows that wait for others to leave, conditions that are shared."""
    settings = EngineSettings(device="cpu", compile="on", rows_per_wave=2)
    engine = OmniGenEngine.from_pretrained(str(tiny_model), settings)
    assert isinstance(engine._transformer.blocks, CompiledBlocks)
    first, second = (placeholders.placeholder(number) for number in (1, 2))
    wave = [
        Request(id="text", prompt="a red cat", width=64, height=96, steps=4, seed=1),
        Request(id="edit", prompt=f"{first} make it blue", images=(picture(80, 64),), steps=2, seed=2),
        Request(id="again", prompt=f"{first} make it green", images=(picture(80, 64),), steps=2, seed=3),
        Request(id="two", prompt=f"{first} {second} both", images=(picture(64, 64, 1), picture(48, 64, 2)), steps=3,
                seed=4),
        Request(id="same", prompt=f"{first} {second}", images=(picture(64, 64, 1), picture(48, 64, 2)), steps=3,
                seed=5),
        Request(id="sample", prompt="a red cat", width=64, height=96, steps=4, seed=6),
    ]  # fmt: skip
    found = {outcome.request.id: outcome for outcome in engine.generate(wave)}
    for request in wave:
        outcome = found[request.id]
        assert isinstance(outcome, Result)
        with torch.no_grad():
            latent = reference.latent(request)[None] / reference.vae.config.scaling_factor
            expected = reference.vae.decode(latent, return_dict=False)[0][0].permute(1, 2, 0) / 2 + 0.5
        pixels = torch.from_numpy(np.array(outcome.image)) / 255
        assert (pixels - expected.clamp(0, 1)).abs().max() < 0.6 / 255


def test_both_rotary_regimes_equal_the_reference(engine: OmniGenEngine, reference: Reference):
    limit = reference.transformer.config.original_max_position_embeddings
    for side, is_long in ((64, False), (352, True)):
        request = Request(id="row", prompt="a cat", width=side, height=side, steps=2, seed=3)
        inputs = reference.processor.process_multi_modal_prompt(request.prompt, None)["input_ids"]
        assert (len(inputs) + 1 + (side // 16) ** 2 > limit) == is_long
        assert relative_error(engine.latents([request])[0], reference.latent(request)) <= TOLERANCE


def test_the_branches_of_one_row_may_lie_in_different_regimes(engine: OmniGenEngine, reference: Reference):
    limit = reference.transformer.config.original_max_position_embeddings
    request = Request(id="row", prompt="a cat", width=288, height=288, steps=2, seed=3)
    lengths = [len(inputs["input_ids"]) + 1 + 18 * 18 for inputs in reference.branch_inputs(request, [])]
    assert min(lengths) <= limit < max(lengths)
    assert relative_error(engine.latents([request])[0], reference.latent(request)) <= TOLERANCE


def test_a_prompt_of_its_own_negative_equals_the_reference(engine: OmniGenEngine, reference: Reference):
    request = Request(id="row", prompt="a cat", negative_prompt="blurry", width=64, height=64, steps=2, seed=3)
    assert relative_error(engine.latents([request])[0], reference.latent(request)) <= TOLERANCE


def test_diffusers_batched_call_is_wrong_on_rows_longer_than_row_0(reference: Reference, picture):
    """Its rotary embedding takes row 0's positions for all rows: the reference must not be 'fixed' to agree with it."""
    image = to_tensor(picture(64, 64))
    request = Request(id="row", prompt="a cat", width=64, height=64, steps=1, seed=3)
    short, negative = reference.branch_inputs(request, [])
    with_image = reference.processor.process_multi_modal_prompt("<img><|image_1|></img> " + "a red cat " * 30, [image])
    z, t = initial_noise(3, 64, 64)[None], torch.tensor(0.5)
    alone = [_velocity(reference, [inputs], z, t)[0] for inputs in (short, negative, with_image)]
    batched = _velocity(reference, [short, negative, with_image], z, t)
    errors = [relative_error(found, expected) for found, expected in zip(batched, alone, strict=True)]
    assert errors[0] < TOLERANCE  # its own positions
    assert min(errors[1:]) > 1e-2  # somebody else's


def test_diffusers_batched_call_is_right_where_all_rows_have_one_length(reference: Reference):
    """The control: the error above is that of mixed lengths, not of our way of calling."""
    request = Request(id="row", prompt="a cat", width=64, height=64, steps=1, seed=3)
    short, _ = reference.branch_inputs(request, [])
    z, t = initial_noise(3, 64, 64)[None], torch.tensor(0.5)
    alone = _velocity(reference, [short], z, t)[0]
    assert relative_error(_velocity(reference, [short, short], z, t)[1], alone) < 1e-6


@torch.no_grad()
def _velocity(reference: Reference, inputs: list[dict], z: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
    batch = reference.collate([dict(one) for one in inputs], 64, 64)
    return reference.velocity(
        z.expand(len(inputs), -1, -1, -1), t, batch, reference.encode(batch["input_pixel_values"])
    )
