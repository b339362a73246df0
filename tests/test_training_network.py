"""The network in training equals diffusers' transformer, row by row and target by target, gradients included."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch
from diffusers import OmniGenTransformer2DModel
from PIL import Image
from torch import Tensor

from omnigen_actor.checkpoint.tiny import transformer_config, write_tiny_checkpoint
from omnigen_actor.engine import OmniGenEngine
from omnigen_actor.engine_settings import EngineSettings
from omnigen_actor.model.prompt import segments
from omnigen_actor.model.sampler import noise
from omnigen_actor.training.network import POSITIONS, Network
from omnigen_actor.training.packing import PackedBatch, TrainingRow, pack, patchify
from omnigen_actor.types import Request
from tests.reference import Reference, relative_error, to_tensor

TOLERANCE = 1e-5
TARGETS = 2
WIDTH, HEIGHT = 64, 96
SIZES = ((64, 64), (96, 64), (32, 80))
CASES = {
    "text": ("a red boat", 0),
    "one image": ("<img><|image_1|></img> make it blue", 1),
    "two images, out of order": ("<img><|image_2|></img> behind <img><|image_1|></img>", 2),
    "three images, one of them twice": (
        "in <img><|image_3|></img> and <img><|image_1|></img> and <img><|image_3|></img> and <img><|image_2|></img>",
        3,
    ),
    "a long text": ("a boat " * 100, 0),
    "a long text between two images": ("<img><|image_1|></img>" + "a boat " * 90 + "<img><|image_2|></img>", 2),
}
Picture = Callable[..., Image.Image]


class Compared(NamedTuple):
    """All cases as one batch, in order, and diffusers' velocities of the same targets, each (channels, h, w)."""

    batch: PackedBatch
    expected: list[Tensor]


def row_of(reference: Reference, picture: Picture, case: str, seed: int) -> tuple[TrainingRow, Request]:
    """A case with random noisy targets, as a training row and as the request for the reference."""
    prompt, num_images = CASES[case]
    images = tuple(picture(*size, number) for number, size in enumerate(SIZES[:num_images]))
    generator = torch.Generator().manual_seed(seed)
    row = TrainingRow(
        segments=segments(prompt, lambda text: reference.processor.text_tokenizer(text).input_ids),
        inputs=tuple(reference.encode([to_tensor(image)[None]])[0][0].detach() for image in images),
        noisy=torch.randn(TARGETS, 4, HEIGHT // 8, WIDTH // 8, generator=generator),
        times=torch.rand(TARGETS, generator=generator),
    )
    return row, Request(id="row", prompt=prompt, images=images, seed=1, width=WIDTH, height=HEIGHT)


def velocities_of(reference: Reference, row: TrainingRow, request: Request) -> list[Tensor]:
    """Diffusers' own, one target at a time."""
    prepared = reference.prepare(request)
    return [
        reference.velocity(noisy[None], time, prepared.calls[0], prepared.latents[0])[0]
        for noisy, time in zip(row.noisy, row.times, strict=True)
    ]


def pack_for(network: Network, *rows: TrainingRow) -> PackedBatch:
    return pack(rows, network.config.patch_size, network.config.pos_embed_max_size)


def as_patches(velocities: list[Tensor], network: Network) -> Tensor:
    return patchify(torch.stack(velocities), network.config.patch_size).flatten(0, 1)


@pytest.fixture(scope="module")
def config(tiny_model: Path) -> dict[str, Any]:
    content: dict[str, Any] = json.loads((tiny_model / "transformer" / "config.json").read_text())
    return content


@pytest.fixture(scope="module")
def network(config: dict[str, Any], reference: Reference) -> Network:
    network = Network(config)
    network.load_state_dict(reference.transformer.state_dict())
    return network


@pytest.fixture(scope="module")
def compared(network: Network, reference: Reference, picture: Picture) -> Compared:
    pairs = [row_of(reference, picture, case, seed) for seed, case in enumerate(CASES)]
    with torch.no_grad():
        expected = [velocity for row, request in pairs for velocity in velocities_of(reference, row, request)]
    return Compared(pack_for(network, *(row for row, _ in pairs)), expected)


@pytest.fixture(scope="module")
def found(network: Network, compared: Compared) -> Tensor:
    with torch.no_grad():
        velocities: Tensor = network(compared.batch)
    return velocities


@pytest.mark.parametrize("case", CASES)
def test_a_row_of_a_mixed_batch_equals_the_reference(
    case: str, found: Tensor, compared: Compared, network: Network
) -> None:
    row = list(CASES).index(case)
    of_targets = found.chunk(len(compared.expected))
    for target in range(TARGETS * row, TARGETS * (row + 1)):
        expected = as_patches([compared.expected[target]], network)
        assert relative_error(of_targets[target], expected) <= TOLERANCE


def test_that_batch_has_rows_of_different_lengths_in_both_rotary_regimes(compared: Compared, network: Network) -> None:
    lengths = compared.batch.num_positions
    assert len(set(lengths.tolist())) == len(CASES)
    assert lengths.min() <= network.config.original_max_position_embeddings < lengths.max()


def test_gradients_of_all_weights_equal_those_of_the_reference(
    network: Network, reference: Reference, picture: Picture
) -> None:
    row, request = row_of(reference, picture, "two images, out of order", 7)
    right = torch.randn(row.noisy.shape, generator=torch.Generator().manual_seed(8))
    expected = dict(reference.transformer.named_parameters())
    loss = (torch.stack(velocities_of(reference, row, request)) - right).square().mean()
    of_reference = torch.autograd.grad(loss, list(expected.values()))
    ours = dict(network.named_parameters())
    own_loss = (network(pack_for(network, row)) - as_patches(list(right), network)).square().mean()
    of_network = dict(zip(ours, torch.autograd.grad(own_loss, list(ours.values())), strict=True))
    assert ours.keys() == expected.keys()
    for name, gradient in zip(expected, of_reference, strict=True):
        assert relative_error(of_network[name], gradient) <= 1e-4, name


def test_saving_memory_changes_neither_loss_nor_gradients(
    config: dict[str, Any], network: Network, compared: Compared
) -> None:
    saving = Network(config, saves_memory=True)
    saving.load_state_dict(network.state_dict())
    losses = [one(compared.batch).square().mean() for one in (network, saving)]
    assert torch.equal(*losses)
    both = [
        torch.autograd.grad(loss, list(one.parameters())) for loss, one in zip(losses, (network, saving), strict=True)
    ]
    assert all(torch.equal(a, b) for a, b in zip(*both, strict=True))


def engine_error(engine: OmniGenEngine, network: Network, row: TrainingRow, request: Request) -> float:
    """One step of the engine with the full branch alone, against the network at the time of that step, which is 0."""
    z = noise(request.seed, 4, HEIGHT // 8, WIDTH // 8)
    one_step = Request(
        id="row",
        prompt=request.prompt,
        images=request.images,
        seed=request.seed,
        width=WIDTH,
        height=HEIGHT,
        steps=1,
        guidance_scale=1.0,
        img_guidance_scale=1.0,
    )
    velocity = engine.latents([one_step])[0] - z
    at_noise = TrainingRow(segments=row.segments, inputs=row.inputs, noisy=z[None], times=torch.zeros(1))
    with torch.no_grad():
        return relative_error(network(pack_for(network, at_noise)), as_patches([velocity], network))


@pytest.mark.parametrize("case", ["text", "three images, one of them twice", "a long text"])
def test_a_step_of_the_engine_is_the_velocity_of_the_network(
    case: str, engine: OmniGenEngine, network: Network, reference: Reference, picture: Picture
) -> None:
    assert engine_error(engine, network, *row_of(reference, picture, case, 0)) <= TOLERANCE


def test_fewer_key_heads_than_query_heads_are_those_of_the_engine(
    tmp_path: Path, reference: Reference, picture: Picture
) -> None:
    """Diffusers' attention cannot do it; the engine can."""
    write_tiny_checkpoint(tmp_path, num_key_value_heads=2, num_layers=1)
    model = OmniGenTransformer2DModel.from_pretrained(tmp_path / "transformer", low_cpu_mem_usage=False)
    network = Network(dict(model.config))
    network.load_state_dict(model.state_dict())
    engine = OmniGenEngine.from_pretrained(str(tmp_path), EngineSettings(device="cpu"))
    assert network.config.num_kv_heads == 2
    assert engine_error(engine, network, *row_of(reference, picture, "text", 0)) <= TOLERANCE


@pytest.mark.parametrize("side", [24, 64])
def test_a_drawn_network_has_the_position_table_of_diffusers(side: int, config: dict[str, Any]) -> None:
    network = Network(config | {"pos_embed_max_size": side})
    network.draw(torch.Generator().manual_seed(0))
    stock = OmniGenTransformer2DModel(**transformer_config(pos_embed_max_size=side, num_layers=1))
    assert torch.allclose(
        network.get_buffer(POSITIONS), stock.state_dict()[POSITIONS], rtol=0, atol=1e-5
    )  # it rounds in fp32


def test_a_drawn_network_says_zero_and_hangs_on_its_seed(config: dict[str, Any], compared: Compared) -> None:
    first, same, other = (Network(config) for _ in range(3))
    for network, seed in ((first, 1), (same, 1), (other, 2)):
        network.draw(torch.Generator().manual_seed(seed))
    with torch.no_grad():
        assert not first(compared.batch).any()
    weights = [network.get_parameter("layers.0.self_attn.to_q.weight") for network in (first, same, other)]
    assert torch.equal(weights[0], weights[1])
    assert not torch.equal(weights[0], weights[2])
