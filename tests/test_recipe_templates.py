"""Templates: marks, values that keep their type, braces, what is missing."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from omnigen_actor.errors import ConfigError
from pipelines.recipes import templates

NAMES: dict[str, object] = {
    "id": "cat",
    "steps": [20, 50],
    "edit": {"do": "Add {snow}.", "undo": None},
    "2": {"image": "b.jpg"},
    "width": 512.0,
    "blank": "  ",
}


@pytest.mark.parametrize(
    ("template", "filled"),
    [
        ("{id}-edited", "cat-edited"),
        ("{edit.do} {id}", "Add {snow}. cat"),
        ("{2.image}", "b.jpg"),
        ("{steps}", [20, 50]),
        ("a{{b}}c", "a{b}c"),
        ("{{id}}", "{id}"),
        ("{width} px", "512 px"),
        (["{id}", 3, "x"], ["cat", 3, "x"]),
        (7, 7),
        (None, None),
    ],
)
def test_marks_become_their_values(template: object, filled: object) -> None:
    assert templates.fill(template, NAMES) == filled


@pytest.mark.parametrize("template", ["{caption}", "{edit.undo}", "{edit.name}", "{id.x}", "{blank}", "{3.image}"])
def test_a_name_without_a_value_is_missing_under_the_name_that_was_written(template: str) -> None:
    with pytest.raises(templates.Missing, match=f"^{template[1:-1]}$"):
        templates.fill(template, NAMES)


@pytest.mark.parametrize("template", ["{", "a}", "{a b}", "{}", "{a.b.c}", "{a!r}", ["x", "{"]])
def test_a_brace_that_is_no_mark_is_refused(template: object) -> None:
    with pytest.raises(ConfigError, match="brace"):
        list(templates.paths(template))


def test_the_names_of_a_template_are_listed_as_they_are_written() -> None:
    assert list(templates.paths(["{id}", "x {edit.do} {2.image}", 4, "{{no}}"])) == ["id", "edit.do", "2.image"]


@given(st.text())
def test_a_value_is_never_read_again(value: str) -> None:
    names: dict[str, Any] = {"caption": value or "x", "id": "secret"}
    assert templates.fill_text("<{caption}>", {**names, "caption": f"{value}{{id}}"}) == f"<{value}{{id}}>"
