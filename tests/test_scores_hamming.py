"""The index finds what a comparison of all pairs finds, and no more."""

from __future__ import annotations

import time

import numpy as np
import numpy.typing as npt
import pytest

from omnigen_actor.errors import ConfigError
from pipelines.scores import hamming
from pipelines.scores.hamming import MAX_RADIUS, NONE, Groups, group

Hashes = npt.NDArray[np.uint64]


def drawn(seed: int, size: int) -> Hashes:
    return np.random.default_rng(seed).integers(0, 2**64, size, dtype=np.uint64)


def changed(hashes: Hashes, num_bits: int, seed: int) -> Hashes:
    """Each with up to that many bits turned over."""
    rng = np.random.default_rng(seed)
    for _ in range(num_bits):
        bit = rng.integers(0, 64, len(hashes), dtype=np.uint64)
        hashes = np.where(rng.random(len(hashes)) < 0.8, hashes ^ (np.uint64(1) << bit), hashes)
    return hashes


def planted(seed: int, radius: int, mask: int) -> Hashes:
    """3000 hashes: a half drawn, a third copies with a few bits changed, the rest all the same."""
    alone = drawn(seed, 1500) & np.uint64(mask)
    copies = changed(np.random.default_rng(seed + 1).choice(alone, 1000), radius + 1, seed + 2)
    every: Hashes = np.random.default_rng(seed + 3).permutation(
        np.concatenate([alone, copies, np.zeros(500, np.uint64)])
    )
    return every


def all_pairs(hashes: Hashes, radius: int) -> tuple[list[int], list[int]]:
    """The first member of each hash's group, and its distance to the nearest other one: slow and obvious."""
    distance = np.bitwise_count(hashes[:, None] ^ hashes[None, :]).astype(int)
    first = [-1] * len(hashes)
    for start in range(len(hashes)):
        waiting = [start] if first[start] < 0 else []
        while waiting:
            one = waiting.pop()
            if first[one] < 0:
                first[one] = start
                waiting += [other for other in np.flatnonzero(distance[one] <= radius).tolist() if first[other] < 0]
    np.fill_diagonal(distance, 99)
    nearest = distance.min(axis=1)
    return first, np.where(nearest <= radius, nearest, NONE).tolist()


def first_members(groups: Groups) -> list[int]:
    _, first, place = np.unique(groups.number, return_index=True, return_inverse=True)
    found: list[int] = first[place].tolist()
    return found


@pytest.mark.parametrize("mask", [2**64 - 1, 0xFFFF00000000FFFF, 0x3FFF], ids=["even", "half", "crowded"])
@pytest.mark.parametrize("radius", [0, 1, 4, 5, 8, 10])
def test_groups_and_distances_are_those_of_all_pairs(radius: int, mask: int) -> None:
    hashes = planted(radius, radius, mask)
    groups = group(hashes, radius)
    first, nearest = all_pairs(hashes, radius)
    assert first_members(groups) == first
    assert groups.distance.tolist() == nearest


def test_groups_are_the_same_however_many_are_asked_and_joined_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    hashes = planted(5, 3, 0xFFF)
    expected = all_pairs(hashes, 3)
    for most_asked, most_pairs in ((7, 1 << 21), (4096, 7), (1000, 100)):
        monkeypatch.setattr(hamming, "_MOST_ASKED", most_asked)
        monkeypatch.setattr(hamming, "_MOST_PAIRS", most_pairs)
        groups = group(hashes, 3)
        assert (first_members(groups), groups.distance.tolist()) == expected


def test_the_order_does_not_matter() -> None:
    hashes = planted(1, 4, 2**64 - 1)
    order = np.random.default_rng(9).permutation(len(hashes))
    groups, mixed = group(hashes), group(hashes[order])
    assert (mixed.distance == groups.distance[order]).all()
    same = groups.number[:, None] == groups.number[None, :]
    assert (same[np.ix_(order, order)] == (mixed.number[:, None] == mixed.number[None, :])).all()


def test_a_chain_is_one_group_and_its_ends_know_their_neighbours_alone() -> None:
    chain = np.array([0, 0b111, 0b111111, 0b111111111], np.uint64)
    assert len(set(group(chain, 3).number.tolist())) == 1
    assert group(chain, 3).distance.tolist() == [3] * 4
    assert group(chain, 2).distance.tolist() == [NONE] * 4


@pytest.mark.parametrize("radius", [1, 4, 5, 8, 10])
def test_a_pair_is_joined_at_the_radius_and_not_beyond_whichever_bits_differ(radius: int) -> None:
    rng = np.random.default_rng(radius)
    for _ in range(50):
        bits = rng.permutation(64)[: radius + 1].tolist()
        at = sum(1 << bit for bit in bits[:radius])
        beyond = at | 1 << bits[radius]
        assert group(np.array([0, at], np.uint64), radius).distance.tolist() == [radius] * 2
        assert group(np.array([0, beyond], np.uint64), radius).distance.tolist() == [NONE] * 2


def test_many_equal_hashes_take_no_time() -> None:
    hashes = np.concatenate([np.zeros(300_000, np.uint64), drawn(0, 1000)])
    started = time.process_time()
    groups = group(hashes)
    assert (groups.distance[:300_000] == 0).all()
    assert (groups.distance[300_000:] == NONE).all()
    assert time.process_time() - started < 5  # 45 billion pairs take minutes


@pytest.mark.parametrize("size", [0, 1, 2])
def test_few_hashes_are_no_special_case(size: int) -> None:
    groups = group(np.zeros(size, np.uint64))
    assert groups.distance.tolist() == [0 if size > 1 else NONE] * size


@pytest.mark.parametrize("radius", [-1, MAX_RADIUS + 1])
def test_a_radius_out_of_bounds_is_refused(radius: int) -> None:
    with pytest.raises(ConfigError, match=f"radius={radius}: must be between 0 and 10"):
        group(drawn(0, 3), radius)
