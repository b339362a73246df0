"""The text of an expression as a syntax tree of Python, and errors that show the place. Knows no columns and no types.

The text is nobody's code: it is parsed and never run, within a length and a depth that no parser stumbles over.
"""

from __future__ import annotations

import ast
import re
import warnings
from dataclasses import dataclass
from typing import NoReturn

from omnigen_actor.errors import ConfigError

MAX_LENGTH = 2000
"""Characters."""
MAX_DEPTH = 50
"""Levels of the tree: of brackets, and of what they hold."""
_MAX_BRACKETS = 25
_SHOWN = 100
_QUOTED = re.compile(r"""'(?:\\.|[^'\\])*'|"(?:\\.|[^"\\])*\"""")


class ExpressionError(ConfigError):
    """An expression that is wrong. ``place``: two lines, its text and carets below the part that is meant."""

    def __init__(self, message: str, place: str) -> None:
        super().__init__(message)
        self.place = place


@dataclass(frozen=True, slots=True)
class Source:
    """An expression's text on one line. ``option``: where it comes from."""

    text: str
    option: str

    def parse(self) -> ast.expr:
        """The tree. Raises ExpressionError for what is no expression, too long or too deep."""
        self._check_size()
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # of escapes that Python does not know: they are part of a pattern
                tree = ast.parse(self.text, mode="eval").body
        except SyntaxError as error:
            start = max((error.offset or 1) - 1, 0)
            self._fail(f"it can't be read: {error.msg}", start, start + 1)
        except (ValueError, MemoryError, RecursionError):
            self._fail("it can't be read", 0, len(self.text))
        self._check_depth(tree)
        return tree

    def fail(self, node: ast.expr, problem: str) -> NoReturn:
        """Raise ExpressionError that shows ``node``."""
        self._fail(problem, *self._span(node))

    def part(self, node: ast.expr) -> str:
        """A part of the text, as written."""
        start, end = self._span(node)
        return self.text[start:end]

    def _span(self, node: ast.expr) -> tuple[int, int]:
        data = self.text.encode()  # the tree counts bytes
        return len(data[: node.col_offset].decode()), len(data[: node.end_col_offset].decode())

    def _check_size(self) -> None:
        if not self.text:
            self._fail("it is empty", 0, 1)
        if len(self.text) > MAX_LENGTH:
            self._fail(f"it has {len(self.text)} characters, more than {MAX_LENGTH}", 0, 1)
        depth, unquoted = 0, _QUOTED.sub(lambda match: "_" * len(match[0]), self.text)
        if "#" in unquoted:  # what follows would be left out in silence
            self._fail("there are no comments", unquoted.index("#"), len(self.text))
        for found in re.finditer(r"[(\[{]|[)\]}]", unquoted):
            depth += 1 if found[0] in "([{" else -1
            if depth > _MAX_BRACKETS:
                self._fail(f"more than {_MAX_BRACKETS} brackets in one another", found.start(), found.end())

    def _check_depth(self, tree: ast.expr) -> None:
        level: list[ast.AST] = [tree]
        for _ in range(MAX_DEPTH):
            level = [child for node in level for child in ast.iter_child_nodes(node)]
            if not level:
                return
        self._fail(f"it is nested deeper than {MAX_DEPTH} levels; use brackets or `in`", 0, len(self.text))

    def _fail(self, problem: str, start: int, end: int) -> NoReturn:
        shown = self.text[start:end] if len(self.text[start:end]) <= _SHOWN else ""
        where = f" at character {start + 1}: {shown}" if shown and shown != self.text else f": {_cut(self.text)}"
        raise ExpressionError(f"{self.option}: {problem}{where}", _place(self.text, start, end)) from None


def source(text: str, option: str) -> Source:
    """``text`` with its line breaks as spaces. Raises ExpressionError for what is no text that can be written."""
    try:
        text.encode()
    except UnicodeEncodeError:
        raise ExpressionError(f"{option}: it holds a character that can't be written", "") from None
    return Source(re.sub(r"[\r\n\t\f]", " ", text).strip(), option)


def _cut(text: str) -> str:
    return text if len(text) <= _SHOWN else text[:_SHOWN] + "…"


def _place(text: str, start: int, end: int) -> str:
    """The part of the text around a span, and carets below the span."""
    first = max(0, min(start, len(text)) - _SHOWN // 2)
    shown = text[first : first + _SHOWN]
    num_carets = max(1, min(end, first + len(shown)) - start)
    return f"    {shown}\n    {' ' * (start - first)}{'^' * num_carets}"
