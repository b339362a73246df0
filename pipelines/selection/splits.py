"""Which split an image is in: by a hash of its family's smallest id, so whole families stay on one side.

A family's split does not depend on other families: rows that are added later move none, unless they join two families
or bring one a smaller id. Knows nothing of what makes a family.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import blake2b

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from omnigen_actor.errors import ConfigError

TRAIN = "train"
_NAME = re.compile(r"[a-z][a-z0-9_]{0,31}")


@dataclass(frozen=True, slots=True)
class Splits:
    """Names and shares of the splits beside TRAIN, which has the rest."""

    shares: tuple[tuple[str, float], ...] = ()

    def __post_init__(self) -> None:
        names = [name for name, _ in self.shares]
        for name, share in self.shares:
            if not _NAME.fullmatch(name) or name == TRAIN or names.count(name) > 1:
                raise ConfigError(
                    f"split {name!r}: must be a name of small letters, each once; {TRAIN} has the rest and is not named"
                )
            if not (math.isfinite(share) and 0 < share < 1):
                raise ConfigError(f"split {name}={share}: the share must lie between 0 and 1")
        if sum(share for _, share in self.shares) >= 1:
            raise ConfigError(
                f"split: the shares sum up to {sum(share for _, share in self.shares)}; leave some to train"
            )

    @property
    def names(self) -> list[str]:
        """All splits, TRAIN first."""
        return [TRAIN, *(name for name, _ in self.shares)]

    def assign(self, family: npt.NDArray[np.int64], ids: pa.Array, seed: int) -> npt.NDArray[np.int8]:
        """For each image the index of its split in ``names``. ``family``: the image with its family's smallest id."""
        roots, inverse = np.unique(family, return_inverse=True)
        place = fractions("split", [str(one) for one in ids.take(pa.array(roots)).to_pylist()], seed)
        bounds = np.cumsum([share for _, share in self.shares])
        index = np.searchsorted(bounds, place, side="right") + 1
        return np.where(index > len(bounds), 0, index).astype(np.int8)[inverse]


def parse(text: str) -> Splits:
    """``validation=0.02,test=0.01``. Raises ConfigError."""
    shares = []
    for part in filter(None, (one.strip() for one in text.split(","))):
        name, equals, share = part.partition("=")
        try:
            shares.append((name, float(share)))
        except ValueError:
            equals = ""
        if not equals:
            raise ConfigError(f"split {part!r}: must be NAME=SHARE, such as validation=0.02")
    return Splits(tuple(shares))


def fractions(purpose: str, ids: Sequence[str], seed: int) -> npt.NDArray[np.float64]:
    """A number in [0, 1) for each id, the same for ever. The upper 53 of 64 bits: what a float64 holds.

    ``purpose``: what it is drawn for. If quotas took the ids that splits take, one split would have all.
    """
    digests = [blake2b(f"{purpose}\0{seed}\0{one}".encode(), digest_size=8).digest() for one in ids]
    whole = np.frombuffer(b"".join(digests), ">u8").astype(np.uint64) >> np.uint64(11)
    return whole.astype(np.float64) * 2.0**-53
