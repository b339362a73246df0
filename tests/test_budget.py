"""A wave's bounds hold, one row always may enter, and every split leaves less to plan with."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from omnigen_actor.engine import OmniGenEngine
from omnigen_actor.engine_settings import EngineSettings
from omnigen_actor.model.budget import WAVE_TOKENS, Budget, Need, make_budget
from omnigen_actor.model.sampler import Row
from omnigen_actor.types import Request

CPU = torch.device("cpu")

needs = st.builds(Need, st.integers(1, 40), st.integers(0, 1000))
bounds = st.none() | st.integers(0, 5)
budgets = st.builds(Budget, st.integers(1, 100), bounds, st.none() | st.integers(0, 3000))


def enter(budget: Budget, waiting: list[Need]) -> list[Need]:
    """Every need that may join those before it."""
    active: list[Need] = []
    for need in waiting:
        if budget.fits(active, need):
            active.append(need)
    return active


@given(budgets, needs)
def test_the_first_row_always_fits(budget: Budget, need: Need):
    assert budget.fits([], need)


@given(budgets, st.lists(needs, max_size=12))
def test_what_entered_keeps_every_bound(budget: Budget, waiting: list[Need]):
    active = enter(budget, waiting)
    if len(active) > 1:
        assert sum(need.num_tokens for need in active) <= budget.num_tokens
        assert budget.num_rows is None or len(active) <= budget.num_rows
        assert budget.num_bytes is None or sum(need.num_bytes for need in active) <= budget.num_bytes


@given(st.lists(needs, max_size=12), needs)
def test_exactly_what_there_is_room_for_fits(active: list[Need], need: Need):
    together = [*active, need]
    budget = Budget(sum(n.num_tokens for n in together), len(together), sum(n.num_bytes for n in together))
    assert budget.fits(iter(active), need)
    if active:
        assert not budget.fits(active, Need(need.num_tokens + 1, need.num_bytes))
        assert not budget.fits(active, Need(need.num_tokens, need.num_bytes + 1))
        assert not budget.fits([*active, Need(0, 0)], need)


@given(st.lists(needs, max_size=12))
def test_a_budget_without_rows_and_bytes_counts_tokens_alone(active: list[Need]):
    budget = Budget(sum(need.num_tokens for need in active) + 1)
    assert budget.fits(active, Need(1, 10**15))
    assert not budget.fits([Need(1, 0), *active], Need(1, 0))


@given(st.integers(1, 10**6), st.data())
def test_every_split_plans_less_until_one_token_is_left(num_tokens: int, data: st.DataObject):
    """Two rows or more stay within the budget, so the wave that is split never has more tokens."""
    budget = Budget(num_tokens)
    while budget.num_tokens > 1:
        before = budget.num_tokens
        wave = data.draw(st.integers(2, before))
        budget.shrink(wave)
        assert 1 <= budget.num_tokens < before
        assert budget.num_tokens <= max(1, wave // 2)
    budget.shrink(2)
    assert budget.num_tokens == 1


@given(budgets)
def test_a_budget_never_grows(budget: Budget):
    before = budget.num_tokens
    budget.shrink(10**9)
    assert budget.num_tokens == before


def test_a_wave_on_a_cpu_is_one_row():
    assert make_budget(CPU, EngineSettings(), 10**9) == Budget(WAVE_TOKENS, 1)


@given(st.integers(1, 10**5), st.integers(1, 100))
def test_settings_bound_a_wave(num_tokens: int, num_rows: int):
    settings = EngineSettings(wave_tokens=num_tokens, rows_per_wave=num_rows)
    assert make_budget(CPU, settings, 10**9) == Budget(num_tokens, num_rows)


@pytest.mark.parametrize("settings", [{"rows_per_wave": 2}, {"rows_per_wave": 8, "wave_tokens": 100}])
def test_the_engines_waves_keep_to_its_settings(tiny_model, settings: dict):
    engine = OmniGenEngine.from_pretrained(str(tiny_model), EngineSettings(device="cpu", **settings))
    rows = [
        Request(id=str(i), prompt="a cat", width=width, height=64, seed=i, steps=1 + i % 2)
        for i, width in enumerate((64, 128, 16, 64, 256, 32))
    ]
    assert len(list(engine.generate(rows))) == len(rows)
    waves = engine.take_waves()
    assert max(wave.num_rows for wave in waves) > 1
    assert all(wave.num_rows <= settings["rows_per_wave"] for wave in waves)
    assert all(wave.num_tokens <= wave.capacity or wave.num_rows == 1 for wave in waves)
    limit = settings.get("wave_tokens", WAVE_TOKENS)
    for wave in waves:  # one that has all the rows it may have is full
        assert wave.capacity == (wave.num_tokens if wave.num_rows == settings["rows_per_wave"] else limit)


@pytest.mark.parametrize("prompt", ["<img><|image_1|></img> blue", "blue <img><|image_1|></img>"])
def test_a_row_takes_no_more_than_was_planned(engine: OmniGenEngine, picture, prompt: str):
    request = Request(id="row", prompt=prompt, images=(picture(96, 80),), width=64, height=48, seed=1, steps=9)
    planned = engine._waves._preparer.plan(request)
    need = engine._waves._sizes.need(planned)
    with torch.inference_mode():
        row = engine._waves._preparer.prepare(planned)
    assert need.num_tokens == row.num_tokens * len(row.branches) == 3 * 12
    assert held_bytes(row) <= need.num_bytes


def held_bytes(row: Row) -> int:
    """Bytes of all keys and values of a row, what its branches share counted once."""
    parts = [part for branch in row.branches for part in (*branch.condition.parts, branch.condition.times)]
    storages = {part.untyped_storage().data_ptr(): part.untyped_storage().nbytes() for part in parts}
    return sum(storages.values())
