"""Choices that depend on content alone: the same source row draws the same, wherever it stands. Knows no recipes."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence


def draw(options: Sequence[object], count: int, *key: object) -> list[object]:
    """``count`` different options, in an order of their own for each ``key``.

    Each option has a rank of its own, so that one more among them changes few draws. Raises ValueError where there are
    fewer options than are drawn.
    """
    if not 1 <= count <= len(options):
        raise ValueError(f"{count} of {len(options)} options can't be drawn")
    return sorted(options, key=lambda option: _rank(key, option))[:count]


def _rank(key: tuple[object, ...], option: object) -> bytes:
    content = json.dumps([*key, option], ensure_ascii=False, sort_keys=True, default=str)
    return hashlib.sha256(content.encode(errors="surrogatepass")).digest()
