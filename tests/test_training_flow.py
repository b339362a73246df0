"""What is noised can be had back, and conditions are left out as sampling leaves them out."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

import pytest
import torch
from torch import Tensor

from omnigen_actor.model.prompt import DEFAULT_NEGATIVE_PROMPT, ImageSpan, Text, images_only_prompt, segments
from omnigen_actor.training.flow import Dropout, Example, Noiser, flow_loss
from omnigen_actor.training.network import Network
from omnigen_actor.training.packing import PackedBatch, TrainingRow, patchify

NONE = Dropout(negative=0.0, images_only=0.0, words=0.0)
SHAPE = (4, 4, 6)


def tokenize(text: str) -> list[int]:
    """A begin mark, then one id for each byte."""
    return [1, *(3 + byte for byte in text.encode())]


def random(seed: int, *shape: int) -> Tensor:
    return torch.randn(*(shape or SHAPE), generator=torch.Generator().manual_seed(seed))


def example(prompt: str, num_images: int = 0, seed: int = 0) -> Example:
    inputs = tuple(random(seed + 1 + number) for number in range(num_images))
    return Example(segments=segments(prompt, tokenize), inputs=inputs, target=random(seed))


TEXT = example("a boat")
EDIT = example("<img><|image_2|></img> with <img><|image_1|></img>", 2, seed=10)


def noiser(dropout: Dropout, seed: int = 0) -> Noiser:
    return Noiser(tokenize, dropout, torch.Generator().manual_seed(seed))


def noisy_and_times(rows: list[TrainingRow]) -> tuple[Tensor, Tensor]:
    return torch.cat([row.noisy for row in rows]), torch.cat([row.times for row in rows])


def near(found: Tensor, expected: Tensor) -> bool:
    return torch.allclose(found, expected, rtol=0, atol=1e-5)


def test_times_are_logit_normal() -> None:
    rows, _ = noiser(NONE).rows([TEXT, EDIT], 4000)
    times = noisy_and_times(rows)[1]
    assert len(times) == 8000
    assert 0 < times.min() < times.max() < 1
    logits = times.logit().sort().values
    expected = torch.special.ndtri((torch.arange(8000) + 0.5) / 8000)
    assert (logits - expected)[40:-40].abs().max() < 0.15
    assert times[:4000].sort().values.ne(times[4000:].sort().values).any()


def test_the_velocity_leads_from_any_time_to_the_image_and_back_to_the_noise() -> None:
    rows, velocities = noiser(NONE).rows([TEXT, EDIT], 50)
    noisy, times = noisy_and_times(rows)
    shares = times[:, None, None, None]
    targets = torch.stack([TEXT.target, EDIT.target]).repeat_interleave(50, dim=0)
    assert near(noisy + (1 - shares) * velocities, targets)
    noise = noisy - shares * velocities
    assert near(noise, targets - velocities)
    assert abs(float(noise.mean())) < 0.05
    assert abs(float(noise.std()) - 1) < 0.05


@pytest.mark.parametrize(("time", "is_image"), [(0.0, False), (1.0, True)])
def test_the_ends_are_noise_and_image_to_the_bit(time: float, is_image: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Tensor, "sigmoid", lambda logits: torch.full_like(logits, time))
    (row,), velocities = noiser(NONE).rows([TEXT], 2)
    targets = TEXT.target.expand(2, *SHAPE)
    assert torch.equal(row.noisy, targets) == is_image
    assert near(row.noisy, targets if is_image else targets - velocities)


def test_every_target_has_noise_of_its_own() -> None:
    (row,), velocities = noiser(NONE).rows([TEXT], 3)
    assert len({velocity.sum().item() for velocity in velocities}) == 3
    assert len(set(row.times.tolist())) == 3


def test_nothing_left_out_is_the_example_itself() -> None:
    rows, _ = noiser(NONE).rows([TEXT, EDIT], 2)
    assert [row.segments for row in rows] == [TEXT.segments, EDIT.segments]
    assert [row.inputs for row in rows] == [TEXT.inputs, EDIT.inputs]


def test_a_negative_step_has_the_negative_prompt_of_sampling_and_no_images() -> None:
    rows, velocities = noiser(Dropout(negative=1.0)).rows([EDIT, TEXT], 3)
    (row,) = rows
    assert row.segments == segments(DEFAULT_NEGATIVE_PROMPT, tokenize)
    assert row.inputs == ()
    targets = torch.stack([EDIT.target] * 3 + [TEXT.target] * 3)
    assert near(row.noisy + (1 - row.times)[:, None, None, None] * velocities, targets)


def test_the_images_only_prompt_is_that_of_sampling_and_keeps_the_images() -> None:
    dropout = Dropout(negative=0.0, images_only=1.0, words=0.0)
    text, edit = noiser(dropout).rows([TEXT, EDIT], 1)[0]
    assert edit.segments == segments(images_only_prompt(2), tokenize)
    assert edit.inputs == EDIT.inputs
    assert text.segments == TEXT.segments


def test_words_become_unknown_at_their_share_and_images_stay() -> None:
    long = example("a boat " * 1500 + "<img><|image_1|></img>" + "a boat " * 200, 1)
    (row,), _ = noiser(Dropout(negative=0.0, images_only=0.0, words=0.2)).rows([long], 1)
    changed = []
    for before, after in zip(long.segments, row.segments, strict=True):
        if isinstance(before, ImageSpan):
            assert after == before
            continue
        assert isinstance(after, Text)
        changed += [a == 0 for a, b in zip(after.ids, before.ids, strict=True) if a in (0, b)]
        assert len(after.ids) == len(before.ids)
    assert len(changed) == sum(len(part.ids) for part in long.segments if isinstance(part, Text))
    assert 0.18 < sum(changed) / len(changed) < 0.22


def test_steps_and_rows_are_left_out_at_their_shares() -> None:
    made = noiser(Dropout(negative=0.2, images_only=0.3, words=0.0))
    found = [made.rows([EDIT, EDIT], 1)[0] for _ in range(1500)]
    kept = [row.segments == EDIT.segments for rows in found if len(rows) == 2 for row in rows]
    assert 0.17 < sum(len(rows) == 1 for rows in found) / 1500 < 0.23
    assert 0.67 < sum(kept) / len(kept) < 0.73


def test_the_same_state_of_the_generator_gives_the_same_rows() -> None:
    made = noiser(Dropout(negative=0.0, images_only=0.5, words=0.1))
    made.rows([TEXT, EDIT], 2)
    state = made.generator.get_state()
    first, then = made.rows([TEXT, EDIT], 2), made.rows([TEXT, EDIT], 2)
    made.generator.set_state(state)
    again = made.rows([TEXT, EDIT], 2)
    assert torch.equal(first[1], again[1])
    assert not torch.equal(first[1], then[1])
    for one, same in zip(first[0], again[0], strict=True):
        assert one.segments == same.segments
        assert torch.equal(one.noisy, same.noisy)
        assert torch.equal(one.times, same.times)


class Oracle:
    """What flow_loss sees of a network; says ``velocities`` plus ``error``, whatever it is given."""

    config = SimpleNamespace(patch_size=2, pos_embed_max_size=8)

    def __init__(self, velocities: Tensor, error: float) -> None:
        self._found = patchify(velocities, 2).flatten(0, 1) + error

    def get_parameter(self, name: str) -> Tensor:
        return torch.zeros(1)

    def __call__(self, batch: PackedBatch) -> Tensor:
        assert len(batch.noisy_patches) == len(self._found)
        return self._found


@pytest.mark.parametrize(("error", "loss"), [(0.0, 0.0), (0.5, 0.25)])
@pytest.mark.parametrize("negative", [0.0, 1.0])
def test_the_loss_is_the_mean_squared_error(error: float, loss: float, negative: float) -> None:
    rows, velocities = noiser(Dropout(negative=negative)).rows([TEXT, EDIT], 2)
    found: Any = flow_loss(cast("Network", Oracle(velocities, error)), rows, velocities)
    assert found.item() == pytest.approx(loss, abs=1e-7)
