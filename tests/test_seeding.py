"""Seeds are a contract: other values would be other images."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from omnigen_actor.seeding import row_seed, sample_seed
from omnigen_actor.types import MAX_SEED, check_seed

_SEEDS = st.integers(0, MAX_SEED)


def test_the_values_are_those_of_every_earlier_version() -> None:
    assert row_seed(0, "a", 0) == 6086439313791470399
    assert row_seed(1, "ü", 2) == 836283338375049387
    assert sample_seed(7, 1) == 816941732182682705


@settings(deadline=None)
@given(_SEEDS, st.text(), st.integers(0, 10_000))
def test_every_seed_is_a_legal_seed(run_seed: int, row_id: str, sample: int) -> None:
    check_seed(row_seed(run_seed, row_id, sample))
    check_seed(sample_seed(run_seed, sample))


@settings(deadline=None)
@given(_SEEDS)
def test_sample_0_of_a_row_with_a_seed_is_that_seed(seed: int) -> None:
    assert sample_seed(seed, 0) == seed


@settings(deadline=None)
@given(st.lists(st.tuples(_SEEDS, st.text(st.characters(codec="utf-8", min_codepoint=32)), _SEEDS), unique=True))
def test_seeds_of_different_rows_differ(rows: list[tuple[int, str, int]]) -> None:
    assert len({row_seed(*row) for row in rows}) == len(rows)


def test_samples_of_one_seed_differ() -> None:
    assert len({sample_seed(0, sample) for sample in range(10_000)}) == 10_000
