"""Expressions over columns, such as ``clip > 0.28 and not copy_through``: Python's syntax, a closed list of what it may
say, computed with pyarrow. Names, kinds and functions are checked before a row is read. Knows no store.
"""

from __future__ import annotations

import ast
import math
from collections.abc import Callable

import pyarrow.compute as pc

from pipelines.selection import functions, terms
from pipelines.selection.columns import Columns, UnknownColumn
from pipelines.selection.functions import FUNCTIONS, BadArguments
from pipelines.selection.syntax import Source, source
from pipelines.selection.terms import Kind, Term
from pipelines.settings import nearest

_COMPARISONS: dict[type[ast.cmpop], str] = {
    ast.Lt: "less",
    ast.LtE: "less_equal",
    ast.Gt: "greater",
    ast.GtE: "greater_equal",
    ast.Eq: "equal",
    ast.NotEq: "not_equal",
}
_ARITHMETIC: dict[type[ast.operator], str] = {
    ast.Add: "add",
    ast.Sub: "subtract",
    ast.Mult: "multiply",
    ast.Div: "divide",
}
_WORDS = {"true": True, "false": False}
_LANGUAGE = "there are comparisons, `and`, `or`, `not`, `in`, + - * /, and the functions " + ", ".join(
    sorted([*FUNCTIONS, "column"])
)
_MAX_NUMBER = 2**64


def compile_number(text: str, option: str, columns: Columns) -> Term:
    """An expression that is a number. Raises ExpressionError."""
    written = source(text, option)
    return _Compiler(written, columns).of_kind(written.parse(), Kind.NUMBER)


def compile_operands(text: str, option: str, columns: Columns) -> list[tuple[str, Term]]:
    """The operands of a condition's outermost ``and``, as written and ready to compute. Raises ExpressionError."""
    written = source(text, option)
    tree = written.parse()
    compiler = _Compiler(written, columns)
    compiler.truth(tree)
    return [(written.part(node), compiler.truth(node)) for node in _operands(tree)]


def _operands(tree: ast.expr) -> list[ast.expr]:
    if isinstance(tree, ast.BoolOp) and isinstance(tree.op, ast.And):
        return [one for value in tree.values for one in _operands(value)]
    return [tree]


class _Compiler:
    """One expression's nodes as terms. What it has no method for is refused."""

    def __init__(self, written: Source, columns: Columns) -> None:
        self._source = written
        self._columns = columns
        self._compilers: dict[type[ast.expr], Callable[..., Term]] = {
            ast.Attribute: self._qualified,
            ast.BinOp: self._arithmetic,
            ast.BoolOp: self._logic,
            ast.Call: self._call,
            ast.Compare: self._comparison,
            ast.Constant: self._constant,
            ast.Name: self._name,
            ast.UnaryOp: self._unary,
        }

    def term(self, node: ast.expr) -> Term:
        compiler = self._compilers.get(type(node))
        if compiler is None:
            self._source.fail(node, f"this is not part of the language: {_LANGUAGE}")
        return compiler(node)

    def truth(self, node: ast.expr) -> Term:
        return self.of_kind(node, Kind.TRUTH)

    def of_kind(self, node: ast.expr, kind: Kind) -> Term:
        found = self.term(node)
        if found.kind is not kind:
            remedy = "; compare it with something" if kind is Kind.TRUTH else ""
            self._source.fail(node, f"this is {found.kind.value} and must be {kind.value}{remedy}")
        return found

    # --- leaves ---

    def _constant(self, node: ast.Constant) -> Term:
        value = node.value
        if value is None:
            self._source.fail(node, "a missing value can't be written; ask is_null(x)")
        if not isinstance(value, str | int | float):
            self._source.fail(node, "only numbers, texts, true and false can be written")
        return self._literal(node, value)

    def _literal(self, node: ast.expr, value: str | int | float | bool) -> Term:
        if isinstance(value, str):
            try:
                value.encode()
            except UnicodeEncodeError:
                self._source.fail(node, "this text holds a character that can't be written")
        elif not -_MAX_NUMBER // 2 <= value < _MAX_NUMBER if isinstance(value, int) else not math.isfinite(value):
            self._source.fail(node, "this number is too large")
        return terms.literal(value)

    def _name(self, node: ast.Name) -> Term:
        if node.id in _WORDS and not self._columns.named(node.id):
            return terms.literal(_WORDS[node.id])
        return self._column(node, node.id)

    def _qualified(self, node: ast.Attribute) -> Term:
        if not isinstance(node.value, ast.Name):
            self._source.fail(node, "a point stands only between a score's name and its column: clip.clip")
        return self._column(node, f"{node.value.id}.{node.attr}")

    def _column(self, node: ast.expr, name: str) -> Term:
        try:
            found = self._columns.find(name)
        except UnknownColumn as error:
            self._source.fail(node, str(error.args[0]))
        assert found.kind is not None, name
        return terms.column(found.key, found.kind)

    # --- operators ---

    def _unary(self, node: ast.UnaryOp) -> Term:
        if isinstance(node.op, ast.Not):
            return terms.derived(Kind.TRUTH, pc.invert, self.truth(node.operand))
        if isinstance(node.op, ast.Invert):
            self._source.fail(node, "write `not`")
        number = self.of_kind(node.operand, Kind.NUMBER)
        if isinstance(node.op, ast.UAdd):
            return number
        if isinstance(number.literal, int | float):
            return self._literal(node, -number.literal)  # an integer stays one
        return terms.derived(Kind.NUMBER, terms.negate, number)

    def _arithmetic(self, node: ast.BinOp) -> Term:
        operator = _ARITHMETIC.get(type(node.op))
        if operator is None:
            self._source.fail(node, "of arithmetic there is + - * / alone; conditions are joined by `and` and `or`")
        both = [self.of_kind(one, Kind.NUMBER) for one in (node.left, node.right)]
        return terms.derived(Kind.NUMBER, lambda left, right: terms.calculate(operator, left, right), *both)

    def _logic(self, node: ast.BoolOp) -> Term:
        join = terms.all_of if isinstance(node.op, ast.And) else terms.any_of
        return terms.derived(Kind.TRUTH, join, *map(self.truth, node.values))

    def _comparison(self, node: ast.Compare) -> Term:
        nodes = [node.left, *node.comparators]
        links = [
            self._link(node, operator, left, right)
            for operator, left, right in zip(node.ops, nodes[:-1], nodes[1:], strict=True)
        ]
        return links[0] if len(links) == 1 else terms.derived(Kind.TRUTH, terms.all_of, *links)

    def _link(self, node: ast.Compare, operator: ast.cmpop, left: ast.expr, right: ast.expr) -> Term:
        if isinstance(operator, ast.Is | ast.IsNot):
            self._source.fail(node, "write == or !=, or is_null(x) for a missing value")
        if isinstance(operator, ast.In | ast.NotIn):
            found = self._among(left, right)
            return terms.derived(Kind.TRUTH, pc.invert, found) if isinstance(operator, ast.NotIn) else found
        return self._compared(node, _COMPARISONS[type(operator)], self.term(left), self.term(right))

    def _compared(self, node: ast.expr, operator: str, left: Term, right: Term) -> Term:
        if left.kind is not right.kind:
            self._source.fail(node, f"{left.kind.value} can't be compared with {right.kind.value}")
        ordered = (Kind.NUMBER, Kind.TEXT)
        if left.kind not in (ordered if "equal" != operator != "not_equal" else (*ordered, Kind.TRUTH)):
            self._source.fail(node, f"two values that are {left.kind.value} can't be compared so")
        return terms.derived(Kind.TRUTH, lambda one, other: terms.compare(operator, one, other), left, right)

    def _among(self, left: ast.expr, right: ast.expr) -> Term:
        """``x in (…)``, ``"cat" in text``, ``"cat" in list``."""
        wanted = self.term(left)
        if isinstance(right, ast.Tuple | ast.List):
            if not right.elts:
                self._source.fail(right, "there is nothing in it")
            matches = [self._compared(one, "equal", wanted, self.term(one)) for one in right.elts]
            return terms.derived(Kind.TRUTH, terms.any_of, *matches)
        whole = self.term(right)
        if whole.kind is Kind.TEXT and isinstance(wanted.literal, str):
            return functions.call("contains", [whole, wanted])
        element = {Kind.TEXTS: Kind.TEXT, Kind.NUMBERS: Kind.NUMBER}.get(whole.kind)
        value = wanted.literal
        if value is None or wanted.kind is not element:
            self._source.fail(right, 'after `in` stands a list in brackets: task in ("edit", "canny")')
        return terms.derived(Kind.TRUTH, lambda lists: terms.has_element(lists, value), whole)

    def _call(self, node: ast.Call) -> Term:
        if not isinstance(node.func, ast.Name) or node.keywords:
            self._source.fail(node, f"this is not part of the language: {_LANGUAGE}")
        name, given = node.func.id, node.args
        if name == "column":
            if len(given) != 1 or not isinstance(given[0], ast.Constant) or not isinstance(given[0].value, str):
                self._source.fail(node, 'column("name") takes a column\'s name between quotes')
            return self._column(node, given[0].value)
        if name not in FUNCTIONS:
            self._source.fail(
                node.func, f"unknown function {name!r}; the nearest known one is {nearest(name, FUNCTIONS)}"
            )
        try:
            return functions.call(name, [self.term(one) for one in given])
        except BadArguments as error:
            self._source.fail(node, str(error))
