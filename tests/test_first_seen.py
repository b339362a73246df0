"""The index of keys says of each key what a dictionary would, however long its runs and wherever they lie."""

from __future__ import annotations

import hashlib

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipelines.first_seen import VALUE, FirstSeen, in_file


def keys_of(numbers: list[int]) -> np.ndarray:
    return np.array([hashlib.blake2b(str(number).encode(), digest_size=16).digest() for number in numbers], "S16")


def values_of(numbers: list[int], start: int) -> np.ndarray:
    values = np.empty(len(numbers), VALUE)
    values["number"] = np.arange(start, start + len(numbers))
    values["content"] = [2**64 - 1 - number for number in numbers]
    return values


@given(st.lists(st.lists(st.integers(0, 60), min_size=1, max_size=30), max_size=20), st.sampled_from([0, 8, 1000]))
def test_it_says_what_a_dictionary_says(tables: list[list[int]], in_memory: int) -> None:
    seen, known, start = FirstSeen(in_memory), dict[bytes, int](), 0
    for numbers in tables:
        keys, values = keys_of(numbers), values_of(numbers, start)
        expected = [known.setdefault(key, start + place) for place, key in enumerate(keys.tolist())]
        found = seen.add(keys, values)
        assert found["number"].tolist() == expected
        assert found["content"].tolist() == [2**64 - 1 - number for number in numbers]
        start += len(numbers)


def test_keys_that_end_in_zeros_are_told_apart() -> None:
    keys = np.frombuffer(b"".join([b"a" + bytes(15), b"a" + bytes(14) + b"b", bytes(16)]), "S16")
    seen = FirstSeen()
    assert seen.add(keys, values_of([1, 2, 3], 0))["number"].tolist() == [0, 1, 2]
    assert seen.add(keys, values_of([1, 2, 3], 3))["number"].tolist() == [0, 1, 2]


def test_there_are_few_runs_and_the_long_ones_lie_in_files() -> None:
    seen = FirstSeen(in_memory=1000)
    for start in range(0, 20_000, 50):
        numbers = list(range(start, start + 50))
        seen.add(keys_of(numbers), values_of(numbers, start))
    lengths = [len(run.keys) for run in seen._runs]
    assert sum(lengths) == 20_000
    assert len(lengths) <= np.log2(20_000 / 50) + 1
    assert all(isinstance(run.keys, np.memmap) == (len(run.keys) > 1000) for run in seen._runs)


@pytest.mark.parametrize("dtype", ["S16", VALUE])
def test_an_array_in_a_file_is_the_same_and_can_be_changed(dtype: object) -> None:
    array = values_of([1, 2, 3], 5) if dtype == VALUE else keys_of([1, 2, 3])
    kept = in_file(array)
    assert np.array_equal(kept, array)
    kept[0] = kept[1]
    assert kept[0] == array[1]
