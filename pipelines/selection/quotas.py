"""At most so many images for a value of a column. Chosen by a hash of the id, or by score; never by position."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from omnigen_actor.errors import ConfigError

_QUOTA = re.compile(r"([^=:]+)(?:=(.+))?:(\d{1,15})", re.DOTALL)

Mask = npt.NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class Quota:
    """At most ``limit`` images whose ``column`` is ``value``; None: of each value that no other quota names."""

    column: str
    value: str | None
    limit: int

    def __str__(self) -> str:
        return f"{self.column}={self.value}:{self.limit}" if self.value is not None else f"{self.column}:{self.limit}"


def parse(text: str) -> Quota:
    """``COLUMN=VALUE:N`` or ``COLUMN:N``. Raises ConfigError."""
    found = _QUOTA.fullmatch(text)
    if found is None:
        raise ConfigError(f"quota {text!r}: must be COLUMN=VALUE:N or COLUMN:N, such as task=edit:1000")
    return Quota(found[1], found[2], int(found[3]))


def check(quotas: Sequence[Quota]) -> None:
    """Raises ConfigError where two are for the same value."""
    seen: set[tuple[str, str | None]] = set()
    for quota in quotas:
        if (quota.column, quota.value) in seen:
            raise ConfigError(f"quota {quota}: there is another one for the same images; leave one")
        seen.add((quota.column, quota.value))


def over(limit_of: npt.NDArray[np.int64], group: npt.NDArray[np.int64], order: npt.NDArray[np.int64]) -> Mask:
    """Which images come too late. ``order``: the candidates, those to be taken first before the others.

    ``group``: of each image the number of its value. ``limit_of``: for each of these numbers; -1: no limit.
    """
    found = np.zeros(len(group), bool)
    by_group = order[np.argsort(group[order], kind="stable")]
    sorted_group = group[by_group]
    start = np.searchsorted(sorted_group, sorted_group, side="left")
    limit = limit_of[sorted_group]
    found[by_group] = (limit >= 0) & (np.arange(len(by_group)) - start >= limit)
    return found


def limits(quotas: Sequence[Quota], values: Sequence[str | None]) -> tuple[npt.NDArray[np.int64], list[str]]:
    """For each value of one column its limit, -1 for none, and the quota that sets it, as text.

    Raises ConfigError for a quota of a value that is not among them.
    """
    named = {quota.value: quota for quota in quotas if quota.value is not None}
    rest = next((quota for quota in quotas if quota.value is None), None)
    for value, quota in named.items():
        if value not in values:
            shown = ", ".join(repr(one) for one in sorted(str(one) for one in values)[:10])
            raise ConfigError(f"quota {quota}: no image of the store has {quota.column} {value!r}; there are {shown}")
    chosen = [named.get(value, rest) if value is not None else rest for value in values]
    return np.array([one.limit if one else -1 for one in chosen], np.int64), [str(one) if one else "" for one in chosen]
