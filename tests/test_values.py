"""Cells of any type."""

from __future__ import annotations

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from omnigen_actor.errors import ErrorKind, RowError
from pipelines import values


@settings(deadline=None)
@given(st.integers(-(2**63), 2**63))
def test_whole_numbers_are_exact_from_integers_and_strings(number: int) -> None:
    assert values.integer("n", number) == number
    assert values.integer("n", f" {number} ") == number


@settings(deadline=None)
@given(st.floats(allow_nan=False, allow_infinity=False))
def test_numbers_are_exact_from_floats_and_strings(number: float) -> None:
    assert values.number("n", number) == number
    assert values.number("n", repr(number)) == number


@pytest.mark.parametrize("value", [True, "1_000", "٣", "0x10", "1.5", 1.5, [1], b"1", 2**64, "1e400", "nan", object()])
def test_what_is_no_whole_number_is_refused(value: object) -> None:
    with pytest.raises(RowError, match=r"n=.*: must be a whole number"):
        values.integer("n", value)


@pytest.mark.parametrize("value", [True, "1_0.0", "two", float("inf"), "-inf", [1.0], {"a": 1}, 10**400])
def test_what_is_no_finite_number_is_refused(value: object) -> None:
    with pytest.raises(RowError, match=r"n=.*: must be a finite number"):
        values.number("n", value)


@pytest.mark.parametrize("value", [True, 1.5, ["a"], {"a": 1}, b"a", float("nan")])
def test_what_is_no_text_is_refused(value: object) -> None:
    with pytest.raises(RowError) as caught:
        values.text("n", value, ErrorKind.BAD_ID)
    assert caught.value.kind == ErrorKind.BAD_ID


def test_shortened_values_are_short_and_bytes_are_not_shown() -> None:
    nested: list[object] = []
    for _ in range(2000):
        nested = [nested]
    for value in ("x" * 10**6, list(range(10**5)), nested, {"k": "v" * 10**6}, 10**4000, b"secret" * 1000):
        shown = values.shorten(value)
        assert len(shown) < 200
        assert "secret" not in shown


def test_a_column_of_json_texts_gives_values_and_marks_what_can_not_be_read() -> None:
    field = pa.field("n", pa.string(), metadata=values.AS_JSON)
    table = pa.Table.from_arrays([pa.array(["1", '"1"', None, "[", '"\\ud800"'])], schema=pa.schema([field]))
    cells = values.read_column(table, 0)
    assert cells[:3] == [1, "1", None]
    assert [type(cell) for cell in cells[3:]] == [values.Unreadable] * 2
