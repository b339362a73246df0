"""Depths, contents that follow parents, and every graph that can't be made named before a run starts."""

from __future__ import annotations

from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from omnigen_actor.errors import ManifestError
from pipelines.check import check_table
from pipelines.config import GenerationConfig
from pipelines.graph import Graph
from pipelines.ledger import digest


def settle(parents: dict[str, list[str]], instructions: dict[str, str] | None = None) -> dict[str, tuple[int, str]]:
    """Depth and row hash of every row that refers to others; a row is its id and the references that it makes."""
    rows = [_row(row_id, refs, (instructions or {}).get(row_id, "x")) for row_id, refs in parents.items()]
    graph, children = Graph(), list[str]()
    for start in range(0, len(rows), 3):  # tables of a few rows, as they come
        table = check_table(pa.Table.from_pylist(rows[start : start + 3]), GenerationConfig(), "/base")
        is_child = graph.add(table, digest(table))
        children += [row_id for row_id, child in zip(table["id"].to_pylist(), is_child, strict=True) if child]
    if not children:
        return {}
    settled = graph.settle(lambda numbers: [children[number] for number in numbers])
    return dict(zip(children, zip(settled.depth.tolist(), settled.row_hash, strict=True), strict=True))


def _row(row_id: str, refs: list[str], instruction: str) -> dict[str, Any]:
    text = instruction + "".join(f"<|image_{n}|>" for n in range(1, len(refs) + 1))
    return {"id": row_id, "task": "custom", "instruction": text, "images": [f"row:{ref}" for ref in refs]}


def depths(parents: dict[str, list[str]]) -> dict[str, int]:
    return {row_id: depth for row_id, (depth, _) in settle(parents).items()}


def test_a_row_is_one_deeper_than_its_deepest_parent():
    graph = {"d": ["c", "a"], "a": [], "c": ["b"], "b": ["a"], "e": ["a", "a"]}
    assert depths(graph) == {"b": 1, "c": 2, "d": 3, "e": 1}


@given(st.data())
def test_depths_are_those_of_the_definition(data: st.DataObject):
    names = [f"r{i}" for i in range(data.draw(st.integers(1, 12)))]
    graph = {name: data.draw(st.lists(st.sampled_from(names[:i]), max_size=3, unique=True)) if i else []
             for i, name in enumerate(names)}  # fmt: skip
    expected: dict[str, int] = {}
    for name in names:
        expected[name] = max((expected[parent] + 1 for parent in graph[name]), default=0)
    shuffled = dict(data.draw(st.permutations(list(graph.items()))))
    assert depths(shuffled) == {name: depth for name, depth in expected.items() if depth}


def test_a_changed_row_changes_all_that_comes_from_it_and_nothing_else():
    graph = {"a": [], "b": ["a"], "c": ["b"], "other": [], "d": ["other"]}
    before, after = settle(graph), settle(graph, {"a": "y"})
    assert {row_id for row_id in before if before[row_id] != after[row_id]} == {"b", "c"}


def test_the_order_of_rows_is_no_part_of_a_content():
    graph = {"a": [], "b": ["a"], "c": ["b", "a"]}
    assert settle(graph) == settle(dict(reversed(graph.items())))


def test_a_long_chain_settles():
    assert depths({"0": []} | {str(n): [str(n - 1)] for n in range(1, 300)})["299"] == 299


def test_unknown_rows_are_an_error_that_names_who_refers_to_them():
    with pytest.raises(ManifestError, match=r"^2 rows of the manifest refer to rows that it does not have: 'b', 'c'"):
        settle({"a": [], "b": ["nobody"], "c": ["a", "none"], "d": ["a"]})


def test_a_sample_that_a_row_does_not_make_is_unknown():
    with pytest.raises(ManifestError, match="'b'; a reference is row:<id> or row:<id>#<sample>"):
        settle({"a": [], "b": ["a#1"]})


def test_a_row_that_refers_to_itself_is_named():
    with pytest.raises(ManifestError, match="row 'b' of the manifest refers to itself"):
        settle({"a": [], "b": ["b", "a"]})


def test_a_circle_is_named_all_the_way_round():
    with pytest.raises(ManifestError, match="refer to each other in a circle: ") as caught:
        settle({"a": [], "x": ["z", "a"], "y": ["x"], "z": ["y"], "tail": ["z"]})
    assert sorted(set(str(caught.value).partition(": ")[2].split(" → "))) == ["'x'", "'y'", "'z'"]
