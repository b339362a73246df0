"""Texts with ``{name}`` in them, filled from names. Knows no recipes: what a name means is the caller's.

``{edit.do}`` is the entry ``do`` of the mapping ``edit``; ``{{`` and ``}}`` are braces. A text that is one mark and
nothing else becomes the value itself, a list or a number too. A value is never read again: braces in it are braces.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping

from omnigen_actor.errors import ConfigError

Names = Mapping[str, object]

_MARK = re.compile(r"\{\{|\}\}|\{(?P<path>\w+(?:\.\w+)?)\}|[{}]")


class Missing(Exception):  # noqa: N818
    """A name that has no value here. The message is the name as the template writes it."""


def fill(template: object, names: Names) -> object:
    """The template with its marks filled, lists item by item; what is no text stays as it is. Raises Missing."""
    if isinstance(template, list):
        return [fill(item, names) for item in template]
    if not isinstance(template, str):
        return template
    whole = _MARK.fullmatch(template)
    if whole and whole["path"]:
        return _look_up(whole["path"], names)
    return _MARK.sub(lambda mark: _text(_look_up(mark["path"], names)) if mark["path"] else mark[0][0], template)


def fill_text(template: object, names: Names) -> str:
    """The same as text, whatever the value. Raises Missing."""
    return _text(fill(template, names))


def paths(template: object) -> Iterator[str]:
    """Each mark's name as it is written, ``edit.do`` or ``2.image``. Raises ConfigError for a brace that is no mark."""
    if isinstance(template, list):
        for item in template:
            yield from paths(item)
    if not isinstance(template, str):
        return
    for mark in _MARK.finditer(template):
        if mark["path"]:
            yield mark["path"]
        elif len(mark[0]) == 1:
            raise ConfigError(f"{template!r}: a brace that is no mark; write {{{{ and }}}} for braces")


def is_blank(value: object) -> bool:
    """Whether a cell says nothing: null, blank text, an empty list."""
    return value is None or value == [] or (isinstance(value, str) and not value.strip())


def _look_up(path: str, names: Names) -> object:
    head, _, key = path.partition(".")
    value = names.get(head)
    if key:
        value = value.get(key) if isinstance(value, Mapping) else None
    if is_blank(value):
        raise Missing(path)
    return value


def _text(value: object) -> str:
    return str(int(value)) if isinstance(value, float) and value.is_integer() else str(value)
