"""Targets that share a prefix, and rows that share a batch, know nothing of each other."""

from __future__ import annotations

import dataclasses

import pytest
import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor

from omnigen_actor.checkpoint.tiny import transformer_config
from omnigen_actor.model.prompt import ImageSpan, Segment, Text
from omnigen_actor.training.network import Network
from omnigen_actor.training.packing import PackedBatch, TrainingRow, pack, patchify

PATCH, TABLE_SIDE, CHANNELS = 2, 8, 4
CONFIG = transformer_config(
    hidden_size=32, num_attention_heads=2, num_layers=2, vocab_size=64, pos_embed_max_size=8
) | {
    "num_key_value_heads": 2,
    "in_channels": CHANNELS,
    "patch_size": PATCH,
    "rms_norm_eps": 1e-5,
    "rope_base": 10000,
    "time_step_dim": 32,
    "flip_sin_to_cos": True,
    "downscale_freq_shift": 0,
}
SHORT = (Text((1, 2, 3)),)
WITH_IMAGES = (Text((4, 5)), ImageSpan(1), Text((6,)), ImageSpan(0), ImageSpan(0), Text((7, 8)))


def random(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def row_of(parts: tuple[Segment, ...], num_targets: int, seed: int = 0, side: int = 4) -> TrainingRow:
    return TrainingRow(
        segments=parts,
        inputs=(random(CHANNELS, 4, 6, seed=seed + 1), random(CHANNELS, 2, 4, seed=seed + 2)),
        noisy=random(num_targets, CHANNELS, side, side, seed=seed + 3),
        times=torch.linspace(0.2, 0.7, num_targets),
    )


def packed(*rows: TrainingRow) -> PackedBatch:
    return pack(rows, PATCH, TABLE_SIDE)


@pytest.fixture(scope="module")
def network() -> Network:
    """Random weights, those that begin at zero too."""
    network = Network(CONFIG)
    generator = torch.Generator().manual_seed(0)
    network.draw(generator)
    for parameter in network.parameters():
        parameter.data.add_(torch.randn(parameter.shape, generator=generator), alpha=0.1)
    return network.requires_grad_(False)


def velocities(network: Network, *rows: TrainingRow) -> list[Tensor]:
    """Of each target, (tokens, values)."""
    num_tokens = [patchify(row.noisy, PATCH).shape[1] for row in rows for _ in row.times]
    return list(network(packed(*rows)).split(num_tokens))


def near(found: Tensor, expected: Tensor) -> bool:
    return torch.allclose(found, expected, rtol=0, atol=1e-6)


@pytest.mark.parametrize("parts", [SHORT, WITH_IMAGES])
def test_other_targets_of_a_row_do_not_matter_to_the_bit(parts: tuple[Segment, ...], network: Network) -> None:
    row = row_of(parts, 3)
    noisy, times = row.noisy.clone(), row.times.clone()
    noisy[[0, 2]] += 1
    times[[0, 2]] += 0.2
    changed = dataclasses.replace(row, noisy=noisy, times=times)
    before, after = velocities(network, row), velocities(network, changed)
    assert torch.equal(after[1], before[1])
    assert not near(after[0], before[0])
    assert not near(after[2], before[2])


@pytest.mark.parametrize("parts", [SHORT, WITH_IMAGES])
def test_a_target_among_others_is_that_of_a_row_of_its_own(parts: tuple[Segment, ...], network: Network) -> None:
    row = row_of(parts, 3)
    for number, together in enumerate(velocities(network, row)):
        one = slice(number, number + 1)
        (alone,) = velocities(network, dataclasses.replace(row, noisy=row.noisy[one], times=row.times[one]))
        assert near(together, alone)


def test_other_rows_do_not_matter_to_the_bit(network: Network) -> None:
    row, other, another = row_of(SHORT, 2), row_of(WITH_IMAGES, 1, seed=10), row_of(WITH_IMAGES, 1, seed=20)
    first, second = velocities(network, row, other), velocities(network, row, another)
    assert torch.equal(torch.cat(first[:2]), torch.cat(second[:2]))
    assert not near(first[2], second[2])


def test_a_row_padded_beside_longer_ones_is_that_row_alone(network: Network) -> None:
    rows = [row_of(SHORT, 2), row_of(WITH_IMAGES, 3, seed=10), row_of(WITH_IMAGES, 1, seed=20, side=6)]
    lengths = {packed(row).ids.shape[1] for row in rows}
    assert len(lengths) == 3
    together = velocities(network, *rows)
    assert near(torch.cat(together), torch.cat([one for row in rows for one in velocities(network, row)]))


def test_the_prompt_and_the_images_do_matter(network: Network) -> None:
    """The control: a network that reads nothing would pass all of the above."""
    row = row_of(WITH_IMAGES, 1)
    (before,) = velocities(network, row)
    for change in (
        {"segments": (Text((4, 9)), *WITH_IMAGES[1:])},
        {"segments": (*WITH_IMAGES[:1], ImageSpan(0), *WITH_IMAGES[2:])},
        {"inputs": (row.inputs[0] + 1, row.inputs[1])},
        {"inputs": (row.inputs[0], row.inputs[1] + 1)},
    ):
        assert not near(velocities(network, dataclasses.replace(row, **change))[0], before)


PREFIX, IMAGE, TIME, NOISY, PADDING = "prefix", "image", "time", "noisy", "padding"


def kinds(row: TrainingRow, length: int) -> list[tuple[str, int]]:
    """What each place of a row is, and which image or target it is of."""
    found: list[tuple[str, int]] = []
    for number, part in enumerate(row.segments):
        if isinstance(part, Text):
            found += [(PREFIX, 0)] * len(part.ids)
        else:
            found += [(IMAGE, number)] * len(patchify(row.inputs[part.index][None], PATCH)[0])
    for target in range(len(row.times)):
        found += [(TIME, target)] + [(NOISY, target)] * patchify(row.noisy, PATCH).shape[1]
    return found + [(PADDING, 0)] * (length - len(found))


def sees(query: tuple[str, int], key: tuple[str, int], *, is_later: bool) -> bool:
    """The rules, for two different places; ``is_later``: whether the key comes after the query."""
    if PADDING in (query[0], key[0]):
        return False
    if query[0] in (PREFIX, IMAGE):
        return not is_later or (query == key and query[0] == IMAGE)
    if key[0] in (PREFIX, IMAGE):
        return True
    return query[0] == NOISY and query[1] == key[1]


def test_the_mask_has_its_rules_and_no_others() -> None:
    rows = [row_of(WITH_IMAGES, 2), row_of(SHORT, 3), row_of(SHORT, 1)]
    batch = packed(*rows)
    length = batch.ids.shape[1]
    assert batch.mask.shape == (3, 1, length, length)
    for row, mask in zip(rows, batch.mask[:, 0].tolist(), strict=True):
        places = kinds(row, length)
        for i, query in enumerate(places):
            for j, key in enumerate(places):
                assert mask[i][j] == (i == j or sees(query, key, is_later=j > i)), (i, query, j, key)


def test_positions_go_on_from_the_prefix_in_every_target() -> None:
    batch = packed(row_of(SHORT, 2), row_of(WITH_IMAGES, 1))
    assert batch.positions[0, : 3 + 2 * 5].tolist() == [0, 1, 2, *range(3, 8), *range(3, 8)]
    assert batch.num_positions.tolist() == [3 + 5, 2 + 2 + 1 + 6 + 6 + 2 + 5]


def test_places_find_every_token_once() -> None:
    rows = [row_of(WITH_IMAGES, 2), row_of(SHORT, 3)]
    batch = packed(*rows)
    length = batch.ids.shape[1]
    flat = [kind for row in rows for kind, _ in kinds(row, length)]
    assert [flat[place] for place in batch.input_places] == [IMAGE] * len(batch.input_patches)
    assert [flat[place] for place in batch.noisy_places] == [NOISY] * len(batch.noisy_patches)
    assert [flat[place] for place in batch.time_places] == [TIME] * len(batch.times)
    assert batch.is_text.flatten().tolist() == [kind == PREFIX for kind in flat]
    assert flat.count(IMAGE) == len(batch.input_patches)
    assert batch.noisy_targets.tolist() == [target for target in range(5) for _ in range(4)]
    assert batch.ids[batch.is_text].tolist() == [4, 5, 6, 7, 8, 1, 2, 3]


def test_input_images_come_as_the_prompt_names_them() -> None:
    row = row_of(WITH_IMAGES, 1)
    first, second = (patchify(latent[None], PATCH)[0] for latent in row.inputs)
    assert torch.equal(packed(row).input_patches, torch.cat((second, first, first)))


def test_cells_are_the_middle_of_the_table() -> None:
    batch = packed(row_of((ImageSpan(0),), 1))  # 2 × 3 patches and 2 × 2 patches in a table of 8 × 8
    assert batch.input_cells.tolist() == [26, 27, 28, 34, 35, 36]
    assert batch.noisy_cells.tolist() == [27, 28, 35, 36]


@pytest.mark.parametrize(("patch", "height", "width"), [(1, 2, 3), (2, 4, 6), (4, 8, 4)])
def test_patchify_loses_nothing(patch: int, height: int, width: int) -> None:
    latents = random(3, CHANNELS, height, width)
    grid = patchify(latents, patch).view(3, height // patch, width // patch, patch, patch, CHANNELS)
    assert torch.equal(grid.permute(0, 5, 1, 3, 2, 4).reshape(latents.shape), latents)


@pytest.mark.parametrize("patch", [1, 2, 4])
def test_patches_are_what_a_convolution_reads(patch: int) -> None:
    latents, weight = random(2, CHANNELS, 8, 4), random(5, CHANNELS, patch, patch, seed=1)
    expected = F.conv2d(latents, weight, stride=patch).flatten(2).transpose(1, 2)
    found = patchify(latents, patch) @ weight.permute(0, 2, 3, 1).flatten(1).T
    assert torch.allclose(found, expected, rtol=0, atol=1e-5)


def test_a_batch_goes_to_a_device_as_a_whole() -> None:
    batch = packed(row_of(WITH_IMAGES, 2)).to(torch.device("meta"))
    assert all(getattr(batch, field.name).is_meta for field in dataclasses.fields(batch))
