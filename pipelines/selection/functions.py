"""The functions that an expression may call: a closed list. Knows no syntax; each checks what it is given."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import pyarrow as pa
import pyarrow.compute as pc

from pipelines.selection import terms
from pipelines.selection.terms import Kind, Term, Value


class BadArguments(ValueError):  # noqa: N818
    """A function can't do with what it is given; the message says what it wants."""


def call(name: str, given: Sequence[Term]) -> Term:
    """The result of a function of FUNCTIONS. Raises BadArguments."""
    return FUNCTIONS[name](given)


def is_null(given: Sequence[Term]) -> Term:
    """``is_null(x)``: whether a value is missing. Never missing itself."""
    (one,) = _check("is_null(x)", given, 1)
    return Term(Kind.TRUTH, lambda table: pc.is_null(one.evaluate(table)), one.columns)


def coalesce(given: Sequence[Term]) -> Term:
    """``coalesce(x, y, …)``: the first that is not missing."""
    if len(given) < 2 or len({one.kind for one in given}) > 1 or given[0].kind in (Kind.OTHER, *_LISTS):
        raise BadArguments("coalesce(x, y, …) takes two or more values of one kind")
    change = terms.as_float if given[0].kind is Kind.NUMBER else _same
    found = terms.derived(given[0].kind, lambda *values: pc.coalesce(*map(change, values)), *given)
    return replace(found, doubtful=given[-1].doubtful)  # missing only where the last one is


def between(given: Sequence[Term]) -> Term:
    """``between(x, low, high)``: low <= x <= high."""
    if len(given) != 3 or given[0].kind not in (Kind.NUMBER, Kind.TEXT) or len({one.kind for one in given}) > 1:
        raise BadArguments("between(x, low, high) takes three numbers or three texts")

    def compute(value: Value, low: Value, high: Value) -> Value:
        return terms.all_of(terms.compare("less_equal", low, value), terms.compare("less_equal", value, high))

    return terms.derived(Kind.TRUTH, compute, *given)


def length(given: Sequence[Term]) -> Term:
    """``length(x)``: characters of a text, or elements of a list."""
    if len(given) != 1 or given[0].kind not in (Kind.TEXT, *_LISTS):
        raise BadArguments("length(x) takes a text or a list")
    measure = pc.utf8_length if given[0].kind is Kind.TEXT else pc.list_value_length
    return terms.derived(Kind.NUMBER, measure, *given)


def lower(given: Sequence[Term]) -> Term:
    """``lower(text)``: in small letters."""
    return terms.derived(Kind.TEXT, pc.utf8_lower, *_check("lower(text)", given, 1, Kind.TEXT))


def absolute(given: Sequence[Term]) -> Term:
    """``abs(x)``: without its sign."""
    (one,) = _check("abs(x)", given, 1, Kind.NUMBER)
    return terms.derived(Kind.NUMBER, lambda value: pc.abs(terms.as_float(value)), one)


def _extreme(name: str, compute: Callable[..., Value]) -> Callable[[Sequence[Term]], Term]:
    def least_or_most(given: Sequence[Term]) -> Term:
        if len(given) < 2 or any(one.kind is not Kind.NUMBER for one in given):
            raise BadArguments(f"{name}(x, y, …) takes two or more numbers")
        return terms.derived(
            Kind.NUMBER, lambda *values: compute(*map(terms.as_float, values), skip_nulls=False), *given
        )

    return least_or_most


def _matching(name: str, compute: Callable[..., Value]) -> Callable[[Sequence[Term]], Term]:
    def match(given: Sequence[Term]) -> Term:
        form = f'{name}(text, "…")'
        text, pattern = _check(form, given, 2, Kind.TEXT)
        if not isinstance(pattern.literal, str):
            raise BadArguments(f"{form} takes its second text written out, between quotes")
        written: str = pattern.literal
        try:
            compute(pa.array([""]), pattern=written)
        except pa.ArrowInvalid as error:
            raise BadArguments(f"{form}: {str(error).removeprefix('Invalid regular expression: ')}") from None
        return terms.derived(Kind.TRUTH, lambda value: compute(value, pattern=written), text)

    return match


def _check(form: str, given: Sequence[Term], number: int, kind: Kind | None = None) -> Sequence[Term]:
    if len(given) != number or (kind and any(one.kind is not kind for one in given)):
        what = f"{number} of them" if number > 1 else "one"
        raise BadArguments(f"{form} takes {f'{kind.value}, ' if kind else ''}{what}")
    return given


def _same(value: Value) -> Value:
    return value


_LISTS = (Kind.NUMBERS, Kind.TEXTS)

FUNCTIONS: dict[str, Callable[[Sequence[Term]], Term]] = {
    "abs": absolute,
    "between": between,
    "coalesce": coalesce,
    "contains": _matching("contains", pc.match_substring),
    "ends_with": _matching("ends_with", pc.ends_with),
    "is_null": is_null,
    "length": length,
    "lower": lower,
    "matches": _matching("matches", pc.match_substring_regex),
    "max": _extreme("max", pc.max_element_wise),
    "min": _extreme("min", pc.min_element_wise),
    "starts_with": _matching("starts_with", pc.starts_with),
}
"""By the name in an expression. ``matches`` takes a regular expression of RE2, whose time is linear in the text."""
