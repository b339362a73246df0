"""Packed attention is each sequence's own softmax, however sequences are packed and whichever kernel computes it."""

from __future__ import annotations

from itertools import accumulate, pairwise

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from omnigen_actor.errors import ModelError
from omnigen_actor.model.attention import BACKENDS, Layout, attend, grouped, has_varlen, pick_kernel

CPU = torch.device("cpu")
HEAD_SIZE = 16
ON_A_CPU = ["auto", "math", "flash"]

Lengths = list[tuple[int, int]]
lengths = st.lists(st.sampled_from([(1, 1), (1, 4), (3, 3), (3, 5), (6, 9)]), min_size=1, max_size=7)
"""(queries, keys) of each sequence, from few, so that neighbours are often equal."""

heads = st.sampled_from([(1, 1), (4, 4), (4, 2), (6, 1)])
"""(query heads, key/value heads)."""


@settings(deadline=None)
@given(lengths, heads, st.sampled_from(ON_A_CPU))
def test_packed_attention_is_each_sequences_own_softmax(sizes: Lengths, num_heads: tuple[int, int], name: str):
    query, key, value = random_tensors(sizes, num_heads)
    found = pick_kernel(name, CPU, torch.float32, query.shape[-1])(query, key, value, layout(sizes))
    assert found.shape == query.shape
    assert (found - expected(query, key, value, sizes)).abs().max() < 1e-5


@settings(deadline=None)
@given(lengths)
def test_a_sequence_does_not_see_the_others(sizes: Lengths):
    query, key, value = random_tensors(sizes, (4, 2))
    last_query, last_key = sizes[-1]
    before = grouped(query, key, value, layout(sizes))[-last_query:]
    key[:-last_key], value[:-last_key] = 1e4, torch.nan
    assert (grouped(query, key, value, layout(sizes))[-last_query:] - before).abs().max() < 1e-6


@settings(deadline=None)
@given(lengths)
def test_groups_are_equal_neighbours_and_cover_everything_once_in_order(sizes: Lengths):
    found = layout(sizes)
    covered: Lengths = []
    for group in found.groups:
        queries, keys = (len(range(part.start, part.stop)) for part in (group.queries, group.keys))
        assert (queries % group.num_sequences, keys % group.num_sequences) == (0, 0)
        assert (group.queries.start, group.keys.start) == tuple(map(sum, zip(*covered, strict=True))) or not covered
        covered += [(queries // group.num_sequences, keys // group.num_sequences)] * group.num_sequences
    assert covered == sizes
    assert len(found.groups) == 1 + sum(one != other for one, other in pairwise(sizes))


@settings(deadline=None)
@given(lengths)
def test_starts_are_the_sums_of_the_lengths_before(sizes: Lengths):
    found = layout(sizes)
    for starts, longest, part in (
        (found.query_starts, found.max_queries, [queries for queries, _ in sizes]),
        (found.key_starts, found.max_keys, [keys for _, keys in sizes]),
    ):
        assert starts.tolist() == [0, *accumulate(part)]
        assert starts.dtype == torch.int32
        assert longest == max(part)


def test_different_numbers_of_queries_and_keys_are_no_layout():
    with pytest.raises(ValueError, match="zip"):
        Layout.of([1, 2], [1], CPU)


@pytest.mark.parametrize("num_heads", [(4, 4), (4, 2)])
def test_a_mask_hides_keys(num_heads: tuple[int, int]):
    query, key, value = random_tensors([(5, 7)], num_heads)
    mask = torch.ones(5, 7, dtype=torch.bool).tril(2)
    found = attend(query, key, value, mask)
    for row in range(5):
        own = [part[: 3 + row] for part in (key, value)]
        assert (found[row : row + 1] - softmax_attention(query[row : row + 1], *own)).abs().max() < 1e-5


def test_without_a_mask_every_key_counts():
    query, key, value = random_tensors([(5, 7)], (4, 2))
    assert (attend(query, key, value) - softmax_attention(query, key, value)).abs().max() < 1e-5


def test_an_unknown_kernel_is_refused_with_the_known_ones():
    with pytest.raises(ModelError, match="'flsh'") as raised:
        pick_kernel("flsh", CPU, torch.float32, 32)
    assert all(name in str(raised.value) for name in ("auto", "varlen", *BACKENDS))


def test_variable_lengths_are_refused_on_a_cpu():
    assert not has_varlen(CPU, torch.bfloat16)
    with pytest.raises(ModelError, match=r"'varlen' needs a GPU.*not cpu"):
        pick_kernel("varlen", CPU, torch.bfloat16, 32)


@pytest.mark.parametrize("name", ["cudnn", "efficient"])
def test_a_kernel_that_the_device_does_not_have_is_refused_before_the_first_row(name: str):
    with pytest.raises(ModelError, match=f"'{name}' can't run on cpu"):
        pick_kernel(name, CPU, torch.float32, 32)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("num_heads", [(4, 4), (4, 2)])
def test_variable_lengths_in_one_call_are_the_groups(num_heads: tuple[int, int]):
    device, sizes = torch.device("cuda"), [(64, 100), (64, 100), (7, 9), (1, 1), (300, 555)]
    parts = [part.to(device, torch.bfloat16) for part in random_tensors(sizes, num_heads, head_size=64)]
    packed = Layout.of(*map(list, zip(*sizes, strict=True)), device)
    found, alike = (
        pick_kernel(name, device, torch.bfloat16, parts[0].shape[-1])(*parts, packed).float()
        for name in ("varlen", "math")
    )
    assert (found - alike).norm() / alike.norm() < 0.01


def layout(sizes: Lengths) -> Layout:
    return Layout.of([queries for queries, _ in sizes], [keys for _, keys in sizes], CPU)


def random_tensors(sizes: Lengths, num_heads: tuple[int, int], head_size: int = HEAD_SIZE) -> tuple[Tensor, ...]:
    """Query, key and value, where the query is a view of something wider, as blocks make it."""
    generator = torch.Generator().manual_seed(0)
    num_queries, num_keys = map(sum, zip(*sizes, strict=True))
    wide = torch.randn(num_queries, num_heads[0] + 1, head_size, generator=generator)
    key, value = torch.randn(2, num_keys, num_heads[1], head_size, generator=generator)
    return wide[:, : num_heads[0]], key, value


def expected(query: Tensor, key: Tensor, value: Tensor, sizes: Lengths) -> Tensor:
    num_queries, num_keys = map(list, zip(*sizes, strict=True))
    pieces = zip(query.split(num_queries), key.split(num_keys), value.split(num_keys), strict=True)
    return torch.cat([softmax_attention(*piece) for piece in pieces])


def softmax_attention(query_NHD: Tensor, key_SGD: Tensor, value_SGD: Tensor) -> Tensor:
    """The textbook's attention in fp64, each head by itself."""
    query, key, value = (part.double() for part in (query_NHD, key_SGD, value_SGD))
    group = query.shape[1] // key.shape[1]
    found = []
    for head in range(query.shape[1]):
        scores = query[:, head] @ key[:, head // group].T / query.shape[2] ** 0.5
        found.append(scores.softmax(dim=-1) @ value[:, head // group])
    return torch.stack(found, dim=1)
