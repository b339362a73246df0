"""A trainer learns, and goes on from its state as if it had never stopped."""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import Any

import pytest
import torch
from torch import Tensor

from omnigen_actor.checkpoint.tiny import transformer_config
from omnigen_actor.model.prompt import segments
from omnigen_actor.training.flow import Dropout, Example
from omnigen_actor.training.low_rank import add_low_rank, is_factor
from omnigen_actor.training.network import Network
from omnigen_actor.training.schedule import share_of_rate
from omnigen_actor.training.trainer import FlowRecipe, FlowTrainer

CONFIG = transformer_config(
    hidden_size=32, num_attention_heads=2, num_layers=2, vocab_size=64, pos_embed_max_size=8
) | {
    "num_key_value_heads": 2,
    "intermediate_size": 64,
    "in_channels": 4,
    "patch_size": 2,
    "rms_norm_eps": 1e-5,
    "rope_base": 10000,
    "time_step_dim": 32,
    "flip_sin_to_cos": True,
    "downscale_freq_shift": 0,
}
DROPOUT = Dropout(negative=0.2, images_only=0.2, words=0.05)
RECIPE = FlowRecipe(num_steps=8, targets_per_row=2, average=0.8, dropout=DROPOUT)


def tokenize(text: str) -> list[int]:
    """Few ids, the same for the same words."""
    return [3 + sum(word.encode()) % 60 for word in text.split()]


def random(seed: int) -> Tensor:
    return torch.randn(4, 4, 4, generator=torch.Generator().manual_seed(seed))


EXAMPLES = [
    Example(segments=segments("a red boat", tokenize), inputs=(), target=random(1)),
    Example(segments=segments("a blue cat on a roof", tokenize), inputs=(), target=random(2)),
    Example(segments=segments("<img><|image_1|></img> at night", tokenize), inputs=(random(3),), target=random(4)),
    Example(segments=segments("<img><|image_1|></img> at day", tokenize), inputs=(random(3),), target=random(5)),
]


def network_of(seed: int = 0, *, rank: int = 0) -> Network:
    network = Network(CONFIG)
    generator = torch.Generator().manual_seed(seed)
    network.draw(generator)
    if rank:  # beside weights that are no longer zero
        for parameter in network.parameters():
            parameter.data.add_(torch.randn(parameter.shape, generator=generator), alpha=0.05)
        add_low_rank(network, rank, rank, generator=generator)
    return network


def trainer_of(recipe: FlowRecipe = RECIPE, seed: int = 0, *, rank: int = 0) -> FlowTrainer:
    return FlowTrainer(network_of(seed, rank=rank), tokenize, recipe)


def through_a_file(state: dict[str, Any]) -> dict[str, Any]:
    file = io.BytesIO()
    torch.save(state, file)
    file.seek(0)
    loaded: dict[str, Any] = torch.load(file)
    return loaded


def weights_of(trainer: FlowTrainer) -> dict[str, Tensor]:
    """Of the network and of the average, as copies."""
    state = trainer.network.state_dict() | {f"average {k}": v for k, v in trainer.average.tensors.items()}
    return {name: tensor.clone() for name, tensor in state.items()}


def differing(first: dict[str, Tensor], second: dict[str, Tensor]) -> set[str]:
    assert first.keys() == second.keys()
    return {name for name, tensor in first.items() if not torch.equal(tensor, second[name])}


@pytest.mark.parametrize("muon_rate", [0.01, 0.0])
def test_four_examples_are_learned(muon_rate: float) -> None:
    nothing = Dropout(negative=0.0, images_only=0.0, words=0.0)
    recipe = FlowRecipe(
        num_steps=100, targets_per_row=4, muon_rate=muon_rate, adam_rate=0.01, average=0.9, dropout=nothing
    )
    trainer = trainer_of(recipe)
    before = trainer.validate(EXAMPLES * 8)
    for _ in range(recipe.num_steps):
        trainer.train(EXAMPLES)
    assert trainer.validate(EXAMPLES * 8) < 0.3 * before


def test_low_rank_factors_learn_too() -> None:
    recipe = FlowRecipe(num_steps=40, targets_per_row=4, adam_rate=0.02, average=0.9, dropout=DROPOUT)
    trainer = trainer_of(recipe, rank=4)
    before = trainer.validate(EXAMPLES * 8)
    for _ in range(recipe.num_steps):
        trainer.train(EXAMPLES)
    assert trainer.validate(EXAMPLES * 8) < 0.9 * before


@pytest.mark.parametrize("rank", [0, 2])
def test_a_restored_training_ends_in_the_same_bits(rank: int) -> None:
    trainer = trainer_of(rank=rank)
    losses = [trainer.train(EXAMPLES) for _ in range(4)]
    state = through_a_file(trainer.state())
    losses += [trainer.train(EXAMPLES) for _ in range(4)]
    restored = trainer_of(seed=0 if rank else 1, rank=rank)  # frozen weights are not part of a state
    restored.train(EXAMPLES[:1])
    restored.restore(state)
    assert restored.step == 4
    assert [restored.train(EXAMPLES) for _ in range(4)] == losses[4:]
    assert differing(weights_of(restored), weights_of(trainer)) == set()
    assert restored.validate(EXAMPLES) == trainer.validate(EXAMPLES)
    assert len(set(losses)) == 8


def test_validating_changes_nothing_and_says_the_same_again() -> None:
    trainer, other = trainer_of(), trainer_of()
    assert trainer.train(EXAMPLES) == other.train(EXAMPLES)
    assert trainer.validate(EXAMPLES) == trainer.validate(EXAMPLES) != trainer.validate(EXAMPLES, seed=1)
    assert trainer.train(EXAMPLES) == other.train(EXAMPLES)
    assert differing(weights_of(trainer), weights_of(other)) == set()


def test_workers_have_noise_of_their_own_and_their_gradients_are_reduced() -> None:
    seen: list[int] = []
    first, second, same = (
        FlowTrainer(network_of(0), tokenize, RECIPE, worker=worker, reduce=lambda found: seen.append(len(found)))
        for worker in (0, 1, 0)
    )
    assert first.train(EXAMPLES) == same.train(EXAMPLES) != second.train(EXAMPLES)
    assert seen == [seen[0]] * 3
    assert seen[0] > 10

    def clear(gradients: Sequence[Tensor]) -> None:
        for gradient in gradients:
            gradient.zero_()

    stuck = FlowTrainer(network_of(0), tokenize, RECIPE, reduce=clear)
    before = weights_of(stuck)
    stuck.train(EXAMPLES)
    assert differing(before, weights_of(stuck)) == set()


def test_every_optimizer_has_its_share_of_its_rate() -> None:
    trainer = trainer_of()
    for step in range(5):
        trainer.train(EXAMPLES)
        rates = [optimizer["param_groups"][0]["lr"] for optimizer in trainer.state()["optimizers"]]
        share = share_of_rate(step, RECIPE.num_steps, RECIPE.decay_share)
        assert rates == [RECIPE.adam_rate * share, RECIPE.muon_rate * share]


def test_every_weight_is_trained() -> None:
    trainer = trainer_of(FlowRecipe(num_steps=4, dropout=Dropout(negative=0.0, images_only=0.0, words=0.0)))
    before = weights_of(trainer)
    for _ in range(3):  # what is behind weights of zero has a gradient only when these have changed
        trainer.train(EXAMPLES)
    still = {name for name in before.keys() - differing(before, weights_of(trainer)) if "average" not in name}
    assert still == {"patch_embedding.pos_embed"}


def test_low_rank_factors_are_trained_alone_and_never_by_muon() -> None:
    trainer = trainer_of(rank=2)
    before = weights_of(trainer)
    for _ in range(3):
        trainer.train(EXAMPLES)
    changed = differing(before, weights_of(trainer))
    factors = {name for name, _ in trainer.network.named_parameters() if is_factor(name)}
    assert changed == factors | {f"average {name}" for name in factors}
    (adam,) = trainer.state()["optimizers"]
    assert len(adam["state"]) == len(factors) == 2 * 12
    assert all("exp_avg" in state for state in adam["state"].values())
