"""Values of an expression: their kinds, and what is computed of columns of them with pyarrow. Knows no syntax.

A missing value is null, and so is a number that is none (NaN). What is computed of a missing value is missing, but for
``and`` and ``or`` where the other side decides.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from functools import reduce
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

Value = Any
"""A pyarrow Array with an element for each row, or a Scalar for all."""


class Kind(StrEnum):
    """What can be done with a value. The text is what a message calls it."""

    NUMBER = "a number"
    TEXT = "text"
    TRUTH = "true or false"
    NUMBERS = "a list of numbers"
    TEXTS = "a list of texts"
    OTHER = "of a kind that can't be computed with"


@dataclass(frozen=True, slots=True)
class Term:
    """A part of an expression, ready to compute.

    ``columns``: keys of all columns that it reads. ``doubtful``: of those, in order, the ones whose missing value may
    make this one missing. ``literal``: its value, where it is written out.
    """

    kind: Kind
    evaluate: Callable[[pa.Table], Value]
    columns: tuple[str, ...] = ()
    doubtful: tuple[str, ...] = ()
    literal: str | int | float | bool | None = None


def kind_of(data_type: pa.DataType) -> Kind:
    """The kind of a column of this type."""
    if pa.types.is_dictionary(data_type):
        return kind_of(data_type.value_type)
    if pa.types.is_list(data_type) or pa.types.is_large_list(data_type):
        inner = kind_of(data_type.value_type)
        return {Kind.NUMBER: Kind.NUMBERS, Kind.TEXT: Kind.TEXTS}.get(inner, Kind.OTHER)
    if pa.types.is_boolean(data_type):
        return Kind.TRUTH
    if pa.types.is_integer(data_type) or pa.types.is_floating(data_type) or pa.types.is_decimal(data_type):
        return Kind.NUMBER
    return Kind.TEXT if pa.types.is_string(data_type) or pa.types.is_large_string(data_type) else Kind.OTHER


def literal(value: str | int | float | bool) -> Term:
    """A value that is written out. An integer must fit 64 bits."""
    if isinstance(value, bool):
        kind, data_type = Kind.TRUTH, pa.bool_()
    elif isinstance(value, str):
        kind, data_type = Kind.TEXT, pa.string()
    else:
        whole = pa.int64() if value < 2**63 else pa.uint64()
        kind, data_type = Kind.NUMBER, whole if isinstance(value, int) else pa.float64()
    scalar = pa.scalar(value, data_type)
    return Term(kind, lambda _: scalar, literal=value)


def column(key: str, kind: Kind) -> Term:
    """A column of the table."""
    return Term(kind, lambda table: plain(table[key].combine_chunks(), kind), (key,), (key,))


def derived(kind: Kind, compute: Callable[..., Value], *terms: Term) -> Term:
    """What ``compute`` makes of the values of other terms; missing where one of them is."""

    def evaluate(table: pa.Table) -> Value:
        return compute(*(term.evaluate(table) for term in terms))

    return Term(kind, evaluate, merged(*(one.columns for one in terms)), merged(*(one.doubtful for one in terms)))


def merged(*names: tuple[str, ...]) -> tuple[str, ...]:
    """All names, each once, in order."""
    return tuple(dict.fromkeys(name for some in names for name in some))


def plain(values: Value, kind: Kind) -> Value:
    """A column's values in the types that are computed with: texts as string, no NaN, no dictionaries."""
    if isinstance(values, pa.ChunkedArray):  # combine_chunks of a column without rows
        values = pa.concat_arrays(values.chunks) if values.num_chunks else pa.array([], values.type)
    if pa.types.is_dictionary(values.type):
        values = values.dictionary_decode()
    if kind is Kind.TEXT:
        return values if pa.types.is_string(values.type) else values.cast(pa.string())
    if kind is Kind.NUMBER and not pa.types.is_integer(values.type):
        return _number(values)
    return values


def compare(operator: str, left: Value, right: Value) -> Value:
    """``operator``: a function of pyarrow, such as ``less``. Of two values of one kind."""
    if pa.types.is_integer(left.type) and pa.types.is_integer(right.type):
        if pa.types.is_uint64(left.type) != pa.types.is_uint64(right.type):
            left, right = (one.cast(pa.decimal128(20, 0)) for one in (left, right))
    elif kind_of(left.type) is Kind.NUMBER:
        left, right = as_float(left), as_float(right)
    return pc.call_function(operator, [left, right])


def calculate(operator: str, left: Value, right: Value) -> Value:
    """``operator``: add, subtract, multiply or divide. In float64; x / 0 is infinite, 0 / 0 is missing."""
    return _number(pc.call_function(operator, [as_float(left), as_float(right)]))


def negate(value: Value) -> Value:
    """In float64."""
    return pc.negate(as_float(value))


def all_of(*values: Value) -> Value:
    """False where one is false, else missing where one is missing, else true."""
    return reduce(pc.and_kleene, values)


def any_of(*values: Value) -> Value:
    """True where one is true, else missing where one is missing, else false."""
    return reduce(pc.or_kleene, values)


def has_element(lists: Value, wanted: str | int | float) -> Value:
    """Whether a list has this element; missing where the list is."""
    flat = pc.list_flatten(lists)
    kind = Kind.TEXT if isinstance(wanted, str) else Kind.NUMBER
    is_it = compare("equal", plain(flat, kind), literal(wanted).evaluate(pa.table({})))
    rows = pc.list_parent_indices(lists).filter(is_it.fill_null(False)).to_numpy()
    found = np.zeros(len(lists), bool)
    found[rows] = True
    return pa.array(found, mask=lists.is_null().to_numpy(zero_copy_only=False))


def as_float(value: Value) -> Value:
    """A number as float64, rounded where it must be."""
    return value if pa.types.is_float64(value.type) else value.cast(pa.float64(), safe=False)


def as_array(value: Value, num_rows: int) -> pa.Array:
    """An element for each row."""
    return pa.repeat(value, num_rows) if isinstance(value, pa.Scalar) else value


def _number(value: Value) -> Value:
    """In float64, missing where it is no number."""
    value = as_float(value)
    return pc.if_else(pc.is_nan(value), pa.scalar(None, pa.float64()), value)
