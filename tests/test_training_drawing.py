"""Pictures drawn in training are those of the engine, of the averaged weights, and leave the training as it was."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from omnigen_actor.engine import OmniGenEngine
from omnigen_actor.model.prompt import segments
from omnigen_actor.model.sampler import noise
from omnigen_actor.training.drawing import GUIDANCE_SCALE, IMG_GUIDANCE_SCALE, draw
from omnigen_actor.training.flow import Example
from omnigen_actor.training.network import Network, trainable
from omnigen_actor.training.session import Row, Session, SessionSpec
from omnigen_actor.training.trainer import FlowRecipe
from omnigen_actor.types import Request
from tests.reference import Reference, relative_error, to_tensor

WIDTH, HEIGHT, STEPS = 64, 96, 8
SIZES = ((64, 64), (96, 64), (32, 80))
CASES = {
    "text": ("a red boat", 0),
    "one image": ("<img><|image_1|></img> make it blue", 1),
    "two images, out of order": ("<img><|image_2|></img> behind <img><|image_1|></img>", 2),
    "nothing but an image": ("<img><|image_1|></img>", 1),
    "a long text with three images": ("<img><|image_3|></img> <img><|image_1|></img>" + " a boat" * 90
                                      + " <img><|image_2|></img>", 3),
}  # fmt: skip
RECIPE = FlowRecipe(num_steps=4, targets_per_row=2, average=0.5, seed=3)


@pytest.fixture(scope="module")
def network(tiny_model: Path, reference: Reference) -> Network:
    network = Network(json.loads((tiny_model / "transformer" / "config.json").read_text()))
    network.load_state_dict(reference.transformer.state_dict())
    return network


def requests(picture: Callable[..., Image.Image]) -> list[Request]:
    return [
        Request(
            id=case, prompt=prompt, images=tuple(picture(*size, n) for n, size in enumerate(SIZES[:num_images])),
            seed=seed, width=WIDTH, height=HEIGHT, steps=STEPS,
            guidance_scale=GUIDANCE_SCALE, img_guidance_scale=IMG_GUIDANCE_SCALE,
        )
        for seed, (case, (prompt, num_images)) in enumerate(CASES.items())
    ]  # fmt: skip


def test_latents_are_those_of_the_engine(
    network: Network, engine: OmniGenEngine, reference: Reference, picture: Callable[..., Image.Image]
) -> None:
    def tokenize(text: str) -> list[int]:
        ids: list[int] = reference.processor.text_tokenizer(text).input_ids
        return ids

    asked = requests(picture)
    noises = [noise(request.seed, 4, HEIGHT // 8, WIDTH // 8) for request in asked]
    with torch.no_grad():
        inputs = [tuple(reference.encode([to_tensor(i)[None]])[0][0] for i in request.images) for request in asked]
    examples = [
        Example(segments=segments(request.prompt, tokenize), inputs=given, target=torch.zeros(4, 12, 8))
        for request, given in zip(asked, inputs, strict=True)
    ]
    before = [one.clone() for one in noises]
    found = draw(network, tokenize, examples, noises, num_steps=STEPS)
    errors = {
        request.id: relative_error(ours, theirs)
        for request, ours, theirs in zip(asked, found, engine.latents(asked), strict=True)
    }
    assert max(errors.values()) <= 1e-5, errors
    assert all(torch.equal(a, b) for a, b in zip(before, noises, strict=True))


def rows() -> list[Row]:
    """Three with 0, 1 and 2 input images."""
    texts = [prompt for prompt, _ in list(CASES.values())[:3]]
    return [row(f"r{number}", text, number) for number, text in enumerate(texts)]


def row(row_id: str, prompt: str, num_images: int) -> Row:
    latents = [
        torch.randn(4, 8, 4, generator=torch.Generator().manual_seed(10 * num_images + n)).half()
        for n in range(num_images + 1)
    ]
    return {
        "id": row_id, "sample": 0, "prompt": prompt, "latents": [one.numpy().tobytes() for one in latents],
        "latent_sizes": [side for one in latents for side in one.shape],
    }  # fmt: skip


def session_of(model: Path, **more: Any) -> Session:
    return Session(SessionSpec(model=str(model), recipe=RECIPE, device="cpu", **more))


def pixels(line: tuple[Image.Image, ...]) -> list[bytes]:
    return [picture.tobytes() for picture in line]


def weights_of(session: Session) -> dict[str, Tensor]:
    trainer = session.trainer
    averages = {f"average {name}": one for name, one in trainer.average.tensors.items()}
    return {**trainer.network.state_dict(), **averages}


@pytest.mark.parametrize("more", [{}, {"lora_rank": 2}, {"dtype": "bfloat16"}], ids=str)
def test_a_training_that_draws_ends_in_the_same_bits(tiny_model: Path, more: dict[str, Any]) -> None:
    drawing, other = session_of(tiny_model, **more), session_of(tiny_model, **more)
    chance = torch.get_rng_state()
    for _ in range(RECIPE.num_steps):
        drawing.draw(rows())
        assert drawing.train(rows()) == other.train(rows())
    drawing.draw(rows()[:1])
    assert torch.equal(torch.get_rng_state(), chance)
    first, second = weights_of(drawing), weights_of(other)
    assert first.keys() == second.keys()
    assert [name for name in first if not torch.equal(first[name], second[name])] == []
    assert drawing.state() == other.state()


@pytest.mark.parametrize("more", [{}, {"lora_rank": 2}], ids=str)
def test_what_is_drawn_follows_the_averaged_weights_and_nothing_else(tiny_model: Path, more: dict[str, Any]) -> None:
    session = session_of(tiny_model, **more)
    first = [pixels(line) for line in session.draw(rows())]
    assert [pixels(line) for line in session.draw(rows()[::-1])] == first[::-1]
    for _ in range(3):
        session.train(rows())
    later = [pixels(line) for line in session.draw(rows())]
    assert [a[:-1] for a in first] == [b[:-1] for b in later]
    assert all(a[-1] != b[-1] for a, b in zip(first, later, strict=True))
    with torch.no_grad():
        for parameter in trainable(session.trainer.network):
            parameter.zero_()
    assert [pixels(line) for line in session.draw(rows())] == later


def test_a_row_shows_its_inputs_the_right_picture_and_the_drawn_one(tiny_model: Path) -> None:
    session = session_of(tiny_model)
    lines = session.draw([*rows(), row("other", CASES["text"][0], 0)])
    assert [len(line) for line in lines] == [2, 3, 4, 2]
    assert {picture.size for line in lines for picture in line} == {(32, 64)}
    assert pixels(lines[0])[0] == pixels(lines[3])[0]
    assert pixels(lines[0])[1] != pixels(lines[3])[1], "noise is a row's own"
    black = {**rows()[0], "latents": [bytes(2 * 4 * 8 * 4)]}
    assert not np.array_equal(session.draw([black])[0][0], lines[0][0])
