"""Muon: updates are orthogonal, of AdamW's size, and lead somewhere."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from omnigen_actor.training.muon import Muon, orthogonalised, split_parameters


def random(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def stepped(shape: tuple[int, ...], gradient: Tensor, **settings: float) -> Tensor:
    """What one step adds to weights of ones."""
    parameter = nn.Parameter(torch.ones(shape))
    parameter.grad = gradient
    Muon([parameter], **settings).step()
    return parameter.detach() - 1


@pytest.mark.parametrize("shape", [(24, 24), (16, 64), (64, 16), (1, 8), (8, 1)])
def test_singular_values_become_about_one_and_directions_stay(shape: tuple[int, int]) -> None:
    matrix = random(*shape)
    u, _, v = torch.linalg.svd(matrix, full_matrices=False)
    found = orthogonalised(matrix)
    assert found.shape == shape
    inner = u.T @ found @ v.T
    values = inner.diagonal()
    assert 0.65 < values.min() <= values.max() < 1.3
    assert torch.allclose(inner, values.diag(), rtol=0, atol=1e-4)


@pytest.mark.parametrize("factor", [1e-6, 1e6])
def test_the_size_of_a_matrix_does_not_matter(factor: float) -> None:
    matrix = random(8, 12)
    assert torch.allclose(orthogonalised(factor * matrix), orthogonalised(matrix), atol=0.05)


def test_a_matrix_of_zeros_stays() -> None:
    assert not orthogonalised(torch.zeros(3, 5)).any()


@pytest.mark.parametrize("shape", [(12, 48), (48, 12), (32, 4, 3, 3), (64, 4, 3, 3)])
def test_an_update_has_the_size_of_one_of_adamw(shape: tuple[int, ...]) -> None:
    update = stepped(shape, random(*shape), lr=0.1)
    root_mean_square = float(update.square().mean().sqrt())
    assert 0.7 * 0.2 * 0.1 < root_mean_square < 1.3 * 0.2 * 0.1


def test_a_convolution_is_a_matrix_of_its_outputs() -> None:
    gradient = random(64, 4, 3, 3)
    update = stepped((64, 4, 3, 3), gradient, lr=0.1)
    assert torch.allclose(update.flatten(1), stepped((64, 36), gradient.flatten(1), lr=0.1), rtol=0, atol=1e-6)


def test_weights_decay_with_the_rate() -> None:
    assert torch.allclose(stepped((2, 3), torch.zeros(2, 3), lr=0.1, weight_decay=0.5), torch.tensor(-0.05))


def test_what_has_no_gradient_stays() -> None:
    parameter = nn.Parameter(torch.ones(2, 2))
    Muon([parameter], lr=0.1, weight_decay=0.5).step()
    assert torch.equal(parameter, torch.ones(2, 2))


def test_the_momentum_goes_on() -> None:
    parameter = nn.Parameter(torch.zeros(3, 3))
    optimizer = Muon([parameter], lr=0.1)
    parameter.grad = random(3, 3)
    optimizer.step()
    before = parameter.detach().clone()
    parameter.grad = torch.zeros(3, 3)
    optimizer.step()
    assert (parameter - before).norm() > 0.01


@pytest.mark.parametrize("shape", [(6, 20), (20, 6)])
def test_least_squares_are_found(shape: tuple[int, int]) -> None:
    inputs, right = random(200, shape[1]), random(*shape, seed=1)
    parameter = nn.Parameter(torch.zeros(shape))
    optimizer = Muon([parameter], lr=0.3)
    losses = []
    for step in range(150):
        optimizer.param_groups[0]["lr"] = 0.3 * (1 - step / 150)
        optimizer.zero_grad()
        loss = (inputs @ (parameter - right).T).square().mean()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 1e-3 * losses[0]


def test_matrices_are_what_is_named_so_and_can_be_trained() -> None:
    model = nn.ModuleDict({"in": nn.Linear(2, 3), "conv": nn.Conv2d(1, 2, 3), "frozen": nn.Linear(2, 2)})
    model["frozen"].requires_grad_(False)
    matrices, others = split_parameters(model, lambda name: name.startswith(("conv", "frozen")))
    assert [id(one) for one in matrices] == [id(model["conv"].weight)]
    assert {id(one) for one in others} == {id(model["in"].weight), id(model["in"].bias), id(model["conv"].bias)}
