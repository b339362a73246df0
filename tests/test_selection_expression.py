from __future__ import annotations

import ast
import math
import operator
import time
from collections.abc import Callable
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from omnigen_actor.errors import ConfigError
from pipelines.selection import terms
from pipelines.selection.columns import Columns
from pipelines.selection.expression import compile_number, compile_operands
from pipelines.selection.functions import FUNCTIONS
from pipelines.selection.syntax import MAX_LENGTH, ExpressionError
from pipelines.selection.where import KEPT, Where

TYPES = {
    "n": pa.int32(),
    "x": pa.float64(),
    "t": pa.string(),
    "b": pa.bool_(),
    "tags": pa.list_(pa.string()),
    "sizes": pa.list_(pa.int64()),
    "when": pa.timestamp("us"),
    "phash": pa.uint64(),
}
CLIP = pa.schema([("clip", pa.float32()), ("aesthetic score", pa.float64())])
COLUMNS = Columns({"record": [pa.schema(list(TYPES.items()))], "clip": [CLIP]})

Row = dict[str, Any]


def rows_as_table(rows: list[Row]) -> pa.Table:
    types = {f"record.{name}": one for name, one in TYPES.items()}
    types |= {f"clip.{field.name}": field.type for field in CLIP}
    return pa.table(
        {key: pa.array([row.get(key.partition(".")[2]) for row in rows], one) for key, one in types.items()}
    )


def evaluate(text: str, *rows: Row) -> list[bool | None]:
    table = rows_as_table(list(rows))
    operands = compile_operands(text, "where", COLUMNS)
    values = [terms.as_array(term.evaluate(table), len(rows)) for _, term in operands]
    found: list[bool | None] = terms.all_of(*values).to_pylist()
    return found


def number(text: str, **row: Any) -> float | None:
    value = compile_number(text, "by", COLUMNS).evaluate(rows_as_table([row]))
    found: float | None = terms.as_array(value, 1)[0].as_py()
    return found


def problem(text: str) -> ExpressionError:
    with pytest.raises(ExpressionError) as caught:
        compile_operands(text, "where", COLUMNS)
    return caught.value


# --- what it says ---


@pytest.mark.parametrize(
    ("text", "row", "expected"),
    [
        ("n > 3 and not b", {"n": 4, "b": False}, True),
        ('t in ("edit", "canny") or n >= 1024', {"t": "depth", "n": 1024}, True),
        ('t not in ["edit"]', {"t": "edit"}, False),
        ('"cat" in t', {"t": "a cat"}, True),
        ('"cat" not in t', {"t": "a cat"}, False),
        ('"cat" in tags', {"tags": ["dog", None, "cat"]}, True),
        ('"cat" in tags', {"tags": []}, False),
        ('"cat" in tags', {}, None),
        ("3 in sizes", {"sizes": [1, 3]}, True),
        ("0 < x <= n", {"x": 2.5, "n": 3}, True),
        ("(x + 1) * 2 - n / 2 == 4", {"x": 2.0, "n": 4}, True),
        ("true and b == false", {"b": False}, True),
        ('contains(lower(t), "cat")', {"t": "CAT"}, True),
        ('starts_with(t, "a") and ends_with(t, "z")', {"t": "a–z"}, True),
        (r'matches(t, "^\d+ cats?$")', {"t": "12 cats"}, True),
        ("length(t) == 3 and length(tags) == 2", {"t": "äöü", "tags": ["", ""]}, True),
        ("between(n, 3, 5) and between(t, 'a', 'c')", {"n": 5, "t": "b"}, True),
        ("abs(x) == 2 and min(x, n) == -2 and max(x, n, 7) == 7", {"x": -2.0, "n": 1}, True),
        ("coalesce(x, n, 0) == 0", {}, True),
        ("is_null(x) and is_null(when)", {}, True),
        ("is_null(x)", {"x": math.nan}, True),
        ("clip > 0.25 and clip.clip > 0.25 and column('clip.clip') > 0.25", {"clip": 0.5}, True),
        ('column("aesthetic score") > 5', {"aesthetic score": 6.0}, True),
        ("n ==\n 3", {"n": 3}, True),
        ("phash == 18446744073709551615", {"phash": 2**64 - 1}, True),
        ("phash == 18446744073709551614", {"phash": 2**64 - 1}, False),
        ("phash > n", {"phash": 2**64 - 1, "n": -1}, True),
    ],
)
def test_an_expression_says_what_it_looks_like(text: str, row: Row, expected: bool | None) -> None:
    assert evaluate(text, row) == [expected]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("x > 1", None),
        ("not x > 1", None),
        ("x > 1 or b", True),
        ("x > 1 and b", None),
        ("x > 1 and not b", False),
        ("x in (1, 2)", None),
        ("x + 1 > 0", None),
        ("min(x, 1) == 1", None),
        ("0 / 0 == 0", None),
        ("is_null(x) or x > 1", True),
        ("1 < x < 2", None),
    ],
)
def test_a_missing_value_is_neither_true_nor_false(text: str, expected: bool | None) -> None:
    assert evaluate(text, {"b": True}) == [expected]


def test_an_order_is_a_number_of_a_row() -> None:
    assert number("-x", x=2.0) == -2
    assert number("clip.clip * 2 + n", clip=0.5, n=1) == 2
    assert number("x / 0", x=1.0) == math.inf
    assert number("x", x=math.nan) is None
    with pytest.raises(ExpressionError, match="this is true or false and must be a number"):
        number("b")


def test_an_integer_that_no_float_holds_is_compared_exactly() -> None:
    columns = Columns({"record": [pa.schema([("seed", pa.int64())])]})
    table = pa.table({"record.seed": [2**53, 2**53 + 1, -(2**63)]})
    assert [term.evaluate(table).to_pylist() for _, term in compile_operands(f"seed == {2**53 + 1}", "", columns)] == [
        [False, True, False]
    ]
    assert compile_operands(f"seed == -{2**63}", "", columns)[0][1].evaluate(table).to_pylist()[2] is True


# --- what is refused, before a row is read ---


@pytest.mark.parametrize(
    ("text", "message", "place"),
    [
        ("n > 3 and clp > 0.28", "unknown column 'clp'; the nearest known one is clip", "clp"),
        ("clip.clp > 0.28", "unknown column 'clip.clp'; the nearest known one is clip.clip", "clip.clp"),
        ("contain(t, 'a')", "unknown function 'contain'; the nearest known one is contains", "contain"),
        ("n > 3 and t > 3", "text can't be compared with a number", "t > 3"),
        ("n > 3 or t in ('a', 3)", "text can't be compared with a number", "3"),
        ("n > 3 and clip", "this is a number and must be true or false; compare it with something", "clip"),
        ("b < b and b", "can't be compared so", "b < b"),
        ("tags == tags", "two values that are a list of texts can't be compared so", "tags == tags"),
        ("x > 1 and when > 3", "of a kind that can't be computed with can't be compared with a number", "when > 3"),
        ("t + t == 'a'", "this is text and must be a number", "t"),
        ("x is None", "is_null(x)", "x is None"),
        ("x == None", "is_null(x)", "None"),
        ("x == 9**9**9", "there is + - * / alone", "9**9**9"),
        ("b & b", "joined by `and`", "b & b"),
        ("~b", "write `not`", "~b"),
        ("n in x", "a list in brackets", "x"),
        ("n in ()", "nothing in it", "()"),
        ("t in 'abc'", "a list in brackets", "'abc'"),
        ("x > 1e999", "too large", "1e999"),
        ("n > 99999999999999999999", "too large", "99999999999999999999"),
        ("n > 1j", "only numbers", "1j"),
        ("t == '\\ud800'", "can't be written", "'\\ud800'"),
        ("matches(t, '(')", "missing )", "matches(t, '(')"),
        ("contains(t, t)", "written out", "contains(t, t)"),
        ("contains('a')", 'contains(text, "…") takes text, 2 of them', "contains('a')"),
        ("t.upper() == 'A'", "not part of the language", "t.upper()"),
        ("t.__class__ == 'A'", "unknown column 't.__class__'", "t.__class__"),
        ("t.a.b == 'A'", "a point stands only between", "t.a.b"),
        ("[n for n in tags]", "not part of the language", "[n for n in tags]"),
        ("(lambda: 1)()", "not part of the language", "(lambda: 1)()"),
        ("f'{n}' == 'a'", "not part of the language", "f'{n}'"),
        ("(n := 3) == 3", "not part of the language", "n := 3"),
        ("tags[0] == 'a'", "not part of the language", "tags[0]"),
        ("between(n, low=1, high=2)", "not part of the language", "between(n, low=1, high=2)"),
        ("column(t) == 'a'", "between quotes", "column(t)"),
        ("__import__('os')", "unknown function '__import__'", "__import__"),
    ],
)
def test_what_it_may_not_say_is_named_with_its_place(text: str, message: str, place: str) -> None:
    error = problem(text)
    assert message in str(error)
    shown, carets = error.place.splitlines()
    assert shown.strip() == text
    assert shown[carets.index("^") : carets.rindex("^") + 1] == place


@pytest.mark.parametrize(
    "text",
    ["(" * 30, "(" * 1999, "n" + "[0]" * 600, "not " * 400 + "b", "-" * 1900 + "1 > n", "n" + "+n" * 900 + " > 0", "",
     "n > 1 " * 1000, "b if b else b", "n >", "b; b", "import os", "\ud800 > 1", "n\0 > 1", "b #", "()"],
)  # fmt: skip
def test_what_is_no_expression_or_too_deep_is_refused_at_once(text: str) -> None:
    began = time.monotonic()
    error = problem(text)
    assert len(str(error).splitlines()) == 1
    assert len(str(error)) < 400
    assert time.monotonic() - began < 5


def test_a_long_expression_is_shown_around_the_place() -> None:
    text = " or ".join(f"n == {number}" for number in range(150)) + " or clp == 1"
    assert len(text) < MAX_LENGTH
    shown, carets = problem(text).place.splitlines()
    assert len(shown) < 110
    assert shown[carets.index("^") : carets.rindex("^") + 1] == "clp"


def test_the_place_is_right_behind_letters_of_several_bytes() -> None:
    shown, carets = problem("t == 'äöü€' and clp > 1").place.splitlines()
    assert shown[carets.index("^") :].startswith("clp")


def test_a_column_of_two_scores_must_be_qualified() -> None:
    columns = Columns({"record": [pa.schema([("id", pa.string())])], "clip": [CLIP], "clip-large": [CLIP]})
    with pytest.raises(ExpressionError, match=r"'clip' is a column of several: write clip\.clip or clip-large\.clip"):
        compile_operands("clip > 0", "where", columns)
    ((_, term),) = compile_operands("column('clip-large.clip') > clip.clip", "where", columns)
    assert term.columns == ("clip-large.clip", "clip.clip")


def test_a_column_of_two_kinds_can_not_be_asked() -> None:
    schemas = [pa.schema([("label", one)]) for one in (pa.string(), pa.int64())]
    with pytest.raises(ExpressionError, match="'label' is of another kind in other files of record"):
        compile_operands("label == 'a'", "where", Columns({"record": schemas}))
    columns = Columns({"record": [pa.schema([("label", pa.null())]), schemas[1], pa.schema([("label", pa.float32())])]})
    assert compile_operands("label > 1", "where", columns)


# --- reasons ---


def reasons(text: str, *rows: Row) -> list[str | None]:
    where = Where(text, COLUMNS)
    found = where.reject(rows_as_table(list(rows)))
    return [None if number == KEPT else where.reasons[number] for number in found]


def test_the_reason_is_the_first_operand_that_is_false_as_written() -> None:
    text = "clip>0.28 and (not b  and (n in (1, 2) or x > 0))"
    found = reasons(
        text,
        {"clip": 0.5, "b": False, "n": 1, "x": 0.0},
        {"clip": 0.1, "b": True, "n": 5, "x": 0.0},
        {"clip": 0.5, "b": True, "n": 5, "x": 0.0},
        {"clip": 0.5, "b": False, "n": 5, "x": 0.0},
    )
    assert found == [None, "clip>0.28", "not b", "n in (1, 2) or x > 0"]


def test_a_missing_value_is_named_where_nothing_is_false() -> None:
    found = reasons("clip > 0.28 and not b", {"b": False}, {"b": True}, {"clip": 0.5}, {})
    assert found == ["clip is missing", "not b", "b is missing", "clip is missing"]
    assert reasons("is_null(clip) or clip > 0.28", {}) == [None]
    assert reasons("coalesce(clip, x) > 0", {}) == ["x is missing"]
    assert reasons("x / n > 0", {"x": 0.0, "n": 0}) == ["x / n > 0 has no value"]
    where = Where("clip > 0.28 and n > 0", COLUMNS)
    where.reject(rows_as_table([{"clip": 0.1}, {"clip": 0.5}]))
    assert [where.reasons[one] for one in where.missing] == ["n is missing"]


def test_an_empty_table_and_a_constant_are_no_trouble() -> None:
    assert reasons("clip > 0.28 and '1' in tags") == []
    assert reasons("1 < 2 and true", {}, {}) == [None, None]


# --- against a slow and obvious evaluation, row by row ---

_OPERATORS: dict[type[ast.AST], Callable[[Any, Any], Any]] = {
    ast.Lt: operator.lt, ast.LtE: operator.le, ast.Gt: operator.gt, ast.GtE: operator.ge, ast.Eq: operator.eq,
    ast.NotEq: operator.ne, ast.Add: operator.add, ast.Sub: operator.sub, ast.Mult: operator.mul,
}  # fmt: skip


def naive(node: ast.expr, row: Row) -> Any:
    match node:
        case ast.Constant(value):
            return value
        case ast.Name(name):
            return _no_nan(row.get(name))
        case ast.UnaryOp(ast.Not(), operand):
            value = naive(operand, row)
            return None if value is None else not value
        case ast.UnaryOp(_, operand):
            value = naive(operand, row)
            return None if value is None else -value
        case ast.BoolOp(joint, operands):
            values, decides = [naive(one, row) for one in operands], isinstance(joint, ast.Or)
            return decides if decides in values else None if None in values else not decides
        case ast.BinOp(left, joint, right):
            return _calculated(joint, naive(left, row), naive(right, row))
        case ast.Compare(left, joints, others):
            nodes = [left, *others]
            links = [_linked(*link, row) for link in zip(joints, nodes[:-1], nodes[1:], strict=True)]
            return False if False in links else None if None in links else True
        case ast.Call(ast.Name(name), arguments):
            return _called(name, [naive(one, row) for one in arguments])
    raise AssertionError(ast.dump(node))


def _no_nan(value: Any) -> Any:
    return None if isinstance(value, float) and math.isnan(value) else value


def _calculated(joint: ast.operator, left: Any, right: Any) -> float | None:
    if left is None or right is None:
        return None
    left, right = float(left), float(right)
    if not isinstance(joint, ast.Div):
        return _no_nan(_OPERATORS[type(joint)](left, right))
    if right == 0:
        sign = math.copysign(1, left) * math.copysign(1, right)
        return None if left == 0 or math.isnan(left) else sign * math.inf
    return _no_nan(left / right)


def _linked(joint: ast.cmpop, left: ast.expr, right: ast.expr, row: Row) -> bool | None:
    value = naive(left, row)
    if isinstance(joint, ast.In | ast.NotIn):
        has_it = isinstance(joint, ast.In)
        if isinstance(right, ast.Tuple):
            others = [naive(one, row) for one in right.elts]
            found = [None if value is None or other is None else value == other for other in others]
            return has_it if True in found else None if None in found else not has_it
        whole = naive(right, row)
        return None if whole is None else (value in whole) == has_it
    other = naive(right, row)
    return None if value is None or other is None else bool(_OPERATORS[type(joint)](value, other))


def _ordered(low: Any, high: Any) -> bool | None:
    return None if low is None or high is None else low <= high


def _called(name: str, values: list[Any]) -> Any:
    if name == "is_null":
        return values[0] is None
    if name == "coalesce":
        return next((value for value in values if value is not None), None)
    if name == "between":
        links = [_ordered(*values[1::-1]), _ordered(values[0], values[2])]
        return False if False in links else None if None in links else True
    if None in values:
        return None
    plain: dict[str, Callable[..., Any]] = {
        "abs": abs,
        "contains": lambda text, part: part in text,
        "length": len,
        "lower": str.lower,
        "starts_with": str.startswith,
    }
    return plain[name](*values)


LETTERS = st.text("abAB' ", max_size=3)
NUMBERS = st.deferred(
    lambda: (
        st.sampled_from(["n", "x"])
        | st.integers(-3, 3).map(str)
        | st.sampled_from(["0.5", "2.0", "-1.5"])
        | st.builds("({} {} {})".format, NUMBERS, st.sampled_from("+-*/"), NUMBERS)
        | st.builds("(-{})".format, NUMBERS)
        | st.builds("abs({})".format, NUMBERS)
        | st.builds("coalesce({}, {})".format, NUMBERS, NUMBERS)
        | st.builds("length({})".format, TEXTS | st.just("tags"))
    )
)
TEXTS = st.deferred(lambda: st.just("t") | LETTERS.map(repr) | st.builds("lower({})".format, TEXTS))
COMPARISONS = st.sampled_from(["<", "<=", ">", ">=", "==", "!="])
TRUTHS = st.deferred(
    lambda: (
        st.just("b")
        | st.builds("({} {} {})".format, NUMBERS, COMPARISONS, NUMBERS)
        | st.builds("({} {} {})".format, TEXTS, COMPARISONS, TEXTS)
        | st.builds("({} < {} <= {})".format, NUMBERS, NUMBERS, NUMBERS)
        | st.builds("({} {} ({}, {}))".format, NUMBERS, st.sampled_from(["in", "not in"]), NUMBERS, NUMBERS)
        | st.builds("({!r} {} {})".format, LETTERS, st.sampled_from(["in", "not in"]), st.sampled_from(["t", "tags"]))
        | st.builds("({} {} {})".format, TRUTHS, st.sampled_from(["and", "or"]), TRUTHS)
        | st.builds("(not {})".format, TRUTHS)
        | st.builds("is_null({})".format, NUMBERS | TEXTS | TRUTHS | st.just("tags"))
        | st.builds("between({}, {}, {})".format, NUMBERS, NUMBERS, NUMBERS)
        | st.builds("{}({}, {!r})".format, st.sampled_from(["contains", "starts_with"]), TEXTS, LETTERS)
    )
)
ROWS = st.lists(
    st.fixed_dictionaries(
        {
            "n": st.none() | st.integers(-5, 5),
            "x": st.none() | st.sampled_from([0.0, -0.0, 0.5, 1.0, -2.0, math.inf, math.nan]),
            "t": st.none() | LETTERS,
            "b": st.none() | st.booleans(),
            "tags": st.none() | st.lists(LETTERS, max_size=3),
        }
    ),
    max_size=5,
)


@settings(max_examples=150, deadline=None)
@given(text=TRUTHS.filter(lambda text: len(text) < 600), rows=ROWS)
def test_columns_at_once_give_what_one_row_after_the_other_gives(text: str, rows: list[Row]) -> None:
    try:
        found = evaluate(text, *rows)
    except ExpressionError as error:
        assert "brackets in one another" in str(error) or "nested deeper" in str(error)  # noqa: PT017
        return
    tree = ast.parse(text, mode="eval").body
    assert found == [naive(tree, row) for row in rows]


TOKENS = st.sampled_from(
    [*TYPES, "clip", *FUNCTIONS, "column", "(", ")", "[", "]", "{", "}", ",", ".", "'", '"', "\\", "and", "or", "not",
     "in", "is", "None", "True", "==", "<", "+", "-", "*", "/", "**", ":=", ":", "if", "else", "for", "lambda", "0",
     "1", "0.5", "1e999", "'a'", "f'{", "#", "\n", "\t", "\0", "…", "ﬁ", " "]
)  # fmt: skip


@settings(max_examples=200, deadline=None)
@given(
    text=st.text(max_size=40) | st.lists(TOKENS, max_size=25).map(" ".join) | st.lists(TOKENS, max_size=9).map("".join)
)
def test_any_text_is_an_expression_or_a_config_error(text: str) -> None:
    table = rows_as_table([{"n": 1, "t": "a"}, {}])
    try:
        where = Where(text, COLUMNS)
    except ConfigError as error:
        assert str(error).startswith("where: ")  # noqa: PT017
        return
    assert len(where.reject(table)) == 2


def test_the_functions_are_those_of_the_documentation() -> None:
    from tests.test_docs import code, doc, table

    listed = [code(row[0]).partition("(")[0] for row in table(doc("selection.md"), "function", "gives")]
    assert sorted(listed) == sorted([*FUNCTIONS, "column"])
