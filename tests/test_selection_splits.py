from __future__ import annotations

import hashlib

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from omnigen_actor.errors import ConfigError
from pipelines.selection.families import Links, components
from pipelines.selection.splits import Splits, fractions, parse

EDGES = st.integers(1, 25).flatmap(
    lambda num: st.tuples(
        st.just(num), st.lists(st.tuples(st.integers(0, num - 1), st.integers(0, num - 1)), max_size=40)
    )
)


def naive_components(num_nodes: int, edges: list[tuple[int, int]]) -> list[int]:
    label = list(range(num_nodes))
    for _ in range(num_nodes):
        for one, other in edges:
            label[one] = label[other] = min(label[one], label[other])
    return label


@given(EDGES)
def test_a_component_is_called_by_its_lowest_node(graph: tuple[int, list[tuple[int, int]]]) -> None:
    num_nodes, edges = graph
    left, right = (np.array([edge[side] for edge in edges], np.int64) for side in (0, 1))
    assert components(num_nodes, left, right).tolist() == naive_components(num_nodes, edges)


def test_a_long_chain_in_any_order_is_one_component() -> None:
    names = np.random.default_rng(0).permutation(100_000)
    assert components(len(names), names[:-1], names[1:]).max() == 0


def sha256(name: str) -> str:
    return hashlib.sha256(name.encode()).hexdigest()


def image(one: str, *, parents: tuple[str, ...] = (), inputs: tuple[str, ...] = (), group: str | None = None) -> dict:
    return {
        "id": one.partition("#")[0],
        "sha256": sha256(one),
        "parents": list(parents),
        "image_sha256": [sha256(name) for name in inputs],
        "duplicate_group": group,
    }


SCHEMA = pa.schema(
    [
        ("id", pa.string()),
        ("sha256", pa.string()),
        ("parents", pa.list_(pa.string())),
        ("image_sha256", pa.list_(pa.string())),
        ("duplicate_group", pa.string()),
    ]
)


def families(images: list[dict], *, part: int = 2) -> list[int]:
    links = Links()
    for start in range(0, len(images), part):
        links.add(pa.Table.from_pylist(images[start : start + part], schema=SCHEMA))
    return links.families(np.arange(len(images))).tolist()


def test_whatever_images_share_joins_them() -> None:
    assert families([image("a#0"), image("b#0"), image("a#1")]) == [0, 1, 0]
    assert families([image("a#0"), image("b#0"), image("c#0", parents=("b#0", "x#1#3"))]) == [0, 1, 1]
    assert families([image("a#0", parents=("lost#0",)), image("b#0", parents=("lost#1",))]) == [0, 0]
    assert families([image("a#0", inputs=("cat",)), image("b#0"), image("c#0", inputs=("dog", "cat"))]) == [0, 1, 0]
    assert families([image("a#0"), image("b#0", inputs=("a#0",))]) == [0, 0]
    assert families([image("a#0", group="g"), image("b#0"), image("c#0"), image("d#0", group="g")]) == [0, 1, 2, 0]
    assert families([]) == []


def test_an_id_that_looks_like_a_parent_joins_nothing() -> None:
    """``x#1`` is the row of ``x#1#0``, and not the second sample of ``x``."""
    images = [image("x"), image("x") | {"id": "x#1", "sha256": sha256("other")}, image("c", parents=("x#1#0",))]
    assert families(images) == [0, 1, 1]


def test_first_is_what_the_order_says() -> None:
    links = Links()
    links.add(pa.Table.from_pylist([image("b#0"), image("a#0"), image("b#1")], schema=SCHEMA))
    assert links.families(np.array([1, 0, 2])).tolist() == [0, 1, 1]


@given(EDGES, st.integers(0, 5))
def test_no_family_is_torn_whatever_joins_it(graph: tuple[int, list[tuple[int, int]]], seed: int) -> None:
    num, edges = graph
    images = [
        image(f"{index:03d}#0", parents=tuple(f"{other:03d}#0" for one, other in edges if one == index))
        for index in range(num)
    ]
    family = np.array(families(images, part=7), np.int64)
    assert family.tolist() == naive_components(num, edges)
    splits = Splits((("validation", 0.3), ("test", 0.2)))
    split = splits.assign(family, pa.array([one["id"] for one in images]), seed)
    assert all(split[one] == split[other] for one, other in edges)


def test_the_shares_are_met_where_families_are_small() -> None:
    ids = [f"row {number}" for number in range(20_000)]
    splits = parse("validation=0.1, test=0.05")
    assert splits.names == ["train", "validation", "test"]
    split = splits.assign(np.arange(len(ids)), pa.array(ids), 0)
    shares = np.bincount(split) / len(ids)
    assert shares == pytest.approx([0.85, 0.1, 0.05], abs=0.01)
    assert (split != splits.assign(np.arange(len(ids)), pa.array(ids), 1)).mean() > 0.1


def test_rows_that_are_added_move_no_other_family() -> None:
    ids = [f"{number:04d}" for number in range(0, 2000, 2)]
    family = np.arange(len(ids)) // 3 * 3
    splits = parse("validation=0.3")
    before = dict(zip(ids, splits.assign(family, pa.array(ids), 0).tolist(), strict=True))
    more = sorted([*ids, *(f"{number:04d}" for number in range(1, 2000, 2))])
    family_of = {one: ids[root] for one, root in zip(ids, family.tolist(), strict=True)}
    position = {one: index for index, one in enumerate(more)}
    roots = np.array([position[family_of.get(one, one)] for one in more], np.int64)
    after = dict(zip(more, splits.assign(roots, pa.array(more), 0).tolist(), strict=True))
    assert {one: after[one] for one in ids} == before


def test_a_share_that_is_appended_takes_from_train_alone() -> None:
    ids = pa.array([str(number) for number in range(1000)])
    one = parse("validation=0.2").assign(np.arange(1000), ids, 0)
    two = parse("validation=0.2,test=0.3").assign(np.arange(1000), ids, 0)
    assert ((one == 1) == (two == 1)).all()


def test_quotas_and_splits_draw_apart() -> None:
    """Else the lowest ids by one would be all in one split by the other."""
    ids = [str(number) for number in range(2000)]
    assert abs(np.corrcoef(fractions("quota", ids, 0), fractions("split", ids, 0))[0, 1]) < 0.1


@pytest.mark.parametrize(
    "text",
    ["validation", "validation=", "validation=x", "validation=0", "validation=1", "train=0.5", "a=0.1,a=0.1", "A b=0.1",
     "a=0.5,b=0.5", "a=nan", "=0.5"],
)  # fmt: skip
def test_what_are_no_splits_is_named(text: str) -> None:
    with pytest.raises(ConfigError, match=r"^split"):
        parse(text)
