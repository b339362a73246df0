"""What a user asks of a selection, checked as far as that goes without a store."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Any

from omnigen_actor.errors import ConfigError
from omnigen_actor.types import MAX_SEED
from pipelines.selection import quotas
from pipelines.selection.quotas import Quota
from pipelines.selection.splits import Splits

QUOTA_ORDERS = ("hash", "score")
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")


@dataclass(frozen=True, slots=True, kw_only=True)
class SelectionConfig:
    """``where``: a condition. ``best``: how many samples of a row stay: the first by ``by``, highest first.
    ``drop_duplicates``: whether one image of each near-duplicate group stays; ``duplicates``: the column of these
    groups, if it is not called duplicate_group.
    """

    where: str | None = None
    by: str | None = None
    best: int | None = None
    quotas: tuple[Quota, ...] = ()
    quota_by: str = "hash"
    split: Splits = field(default_factory=Splits)
    seed: int = 0
    duplicates: str | None = None
    drop_duplicates: bool = False

    def __post_init__(self) -> None:
        if self.best is not None and self.best < 1:
            raise ConfigError(f"best={self.best}: must be at least 1")
        if self.best is not None and self.by is None:
            raise ConfigError(f"best={self.best}: say by what with --by, such as --by clip; --by=-sample for the first")
        if self.quota_by not in QUOTA_ORDERS:
            raise ConfigError(f"quota_by={self.quota_by!r}: must be {' or '.join(QUOTA_ORDERS)}")
        if self.quota_by == "score" and self.by is None:
            raise ConfigError("quota_by='score': say by which with --by, such as --by clip")
        if not 0 <= self.seed <= MAX_SEED:
            raise ConfigError(f"seed={self.seed}: must be between 0 and {MAX_SEED}")
        quotas.check(self.quotas)

    def to_dict(self) -> dict[str, Any]:
        """As it stands in selection.json."""
        return {
            "where": self.where,
            "by": self.by,
            "best": self.best,
            "quotas": [str(quota) for quota in self.quotas],
            "quota_by": self.quota_by,
            "split": dict(self.split.shares),
            "seed": self.seed,
            "duplicates": self.duplicates,
            "drop_duplicates": self.drop_duplicates,
        }


def check_name(name: str) -> None:
    """Raises ConfigError for a selection's name that is no name of a folder."""
    if not _NAME.fullmatch(name):
        raise ConfigError(f"name {name!r}: must be letters, digits, '.', '_' or '-', beginning with a letter or digit")
