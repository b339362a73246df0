"""The memory of what is costly: bounded, and what was used last stays longest."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from omnigen_actor.model.memory import Memory

SIZES = {"a": 1, "b": 2, "c": 3, "d": 5, "e": 20}
uses = st.lists(st.sampled_from(sorted(SIZES)), max_size=30)
limits = st.integers(0, 12)


def kept_after(keys: list[str], limit: int) -> list[str]:
    """What should be kept: walking back from the last use, as much as fits, and the last one in any case."""
    kept: list[str] = []
    for key in keys:
        kept = [*(other for other in kept if other != key), key]
        while sum(SIZES[other] for other in kept) > limit and len(kept) > 1:
            kept.pop(0)
    return kept


@given(uses, limits)
def test_what_is_kept_is_what_was_used_last_and_fits(keys: list[str], limit: int):
    memory: Memory[str, int] = Memory(limit, size=lambda size: size)
    for position, key in enumerate(keys):
        was_kept = key in kept_after(keys[:position], limit)
        computed: list[str] = []
        assert memory.get(key, lambda key=key, computed=computed: computed.append(key) or SIZES[key]) == SIZES[key]
        assert computed == ([] if was_kept else [key])
        assert len(memory) == len(kept_after(keys[: position + 1], limit))


@given(st.lists(st.integers(0, 9), max_size=30), st.integers(1, 5))
def test_without_sizes_the_limit_is_a_number_of_entries(keys: list[int], limit: int):
    memory: Memory[int, int] = Memory(limit)
    for key in keys:
        memory.get(key, lambda: 1000)
        assert len(memory) <= limit
    assert len(memory) == min(limit, len(set(keys)))


def test_what_is_recently_used_survives_the_newer():
    memory: Memory[str, str] = Memory(2)
    for key in ("old", "new", "old", "newest"):
        memory.get(key, lambda key=key: key)
    assert memory.get("old", lambda: "computed again") == "old"
    assert memory.get("new", lambda: "computed again") == "computed again"


def test_what_can_not_be_computed_leaves_nothing_behind():
    memory: Memory[str, int] = Memory(2)
    with pytest.raises(ZeroDivisionError):
        memory.get("a", lambda: 1 // 0)
    assert len(memory) == 0
    assert memory.get("a", lambda: 7) == 7


@given(uses, limits)
def test_clear_forgets_everything_and_the_sizes_too(keys: list[str], limit: int):
    memory: Memory[str, int] = Memory(limit, size=lambda size: size)
    for _ in range(2):
        for key in keys:
            memory.get(key, lambda key=key: SIZES[key])
        assert len(memory) == len(kept_after(keys, limit))
        memory.clear()
        assert len(memory) == 0
