"""The average of weights in training: what it forgets, and whose place it takes."""

from __future__ import annotations

import torch
from torch import nn

from omnigen_actor.training.average import WeightAverage


def model_of(value: float) -> nn.Linear:
    model = nn.Linear(2, 2)
    model.weight.data.fill_(value)
    model.bias.requires_grad_(False)
    return model


def set_to(model: nn.Linear, value: float) -> None:
    model.weight.data.fill_(value)


def test_it_forgets_fast_at_first_and_as_asked_later() -> None:
    model = model_of(0.0)
    average = WeightAverage(model, 0.9)
    expected = 0.0
    for n in range(200):
        set_to(model, float(n))
        average.update(model)
        kept = min(0.9, (1 + n) / (10 + n))
        expected = kept * expected + (1 - kept) * n
    assert torch.allclose(average.tensors["weight"], torch.full((2, 2), expected))
    assert average.num_updates == 200


def test_only_what_is_trained_has_an_average() -> None:
    assert set(WeightAverage(model_of(1.0), 0.9).tensors) == {"weight"}


def test_it_stands_in_for_the_weights_for_a_while() -> None:
    model = model_of(0.0)
    average = WeightAverage(model, 0.9)
    set_to(model, 1.0)
    average.update(model)
    with average.in_place(model):
        assert torch.allclose(model.weight, torch.full((2, 2), 0.9))
    assert torch.equal(model.weight, torch.ones(2, 2))
    assert torch.allclose(average.tensors["weight"], torch.full((2, 2), 0.9))


def test_a_saved_average_goes_on() -> None:
    model = model_of(0.0)
    average, restored = WeightAverage(model, 0.9), WeightAverage(model, 0.9)
    set_to(model, 1.0)
    average.update(model)
    restored.load({name: tensor.clone() for name, tensor in average.tensors.items()}, average.num_updates)
    average.update(model)
    restored.update(model)
    assert torch.equal(average.tensors["weight"], restored.tensors["weight"])
