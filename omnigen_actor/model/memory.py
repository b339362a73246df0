"""A least-recently-used memory of what is costly to compute, bounded by the sum of its entries' sizes."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Hashable
from typing import Generic, TypeVar

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")


class Memory(Generic[K, V]):
    """``get`` computes what is not there. The newest entry stays, however large."""

    def __init__(self, limit: int, size: Callable[[V], int] = lambda _: 1) -> None:
        """``limit``: the largest sum of ``size`` over all entries; by default their number."""
        self._limit = limit
        self._size = size
        self._entries: OrderedDict[K, V] = OrderedDict()
        self._total = 0

    def get(self, key: K, compute: Callable[[], V]) -> V:
        """The entry of ``key``, computed if it is not there; older ones are forgotten beyond the limit."""
        if key not in self._entries:
            self._entries[key] = compute()
            self._total += self._size(self._entries[key])
        self._entries.move_to_end(key)
        found = self._entries[key]
        while self._total > self._limit and len(self._entries) > 1:
            self._total -= self._size(self._entries.popitem(last=False)[1])
        return found

    def __len__(self) -> int:
        return len(self._entries)

    def clear(self) -> None:
        """Forget everything."""
        self._entries.clear()
        self._total = 0
