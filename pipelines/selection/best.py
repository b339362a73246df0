"""The best samples of each row, and the one that stays of near-duplicates. Arrays in, arrays out; knows no store.

Every array has an element for each image, in the order of (id, sample); so ties go to the lower id and sample.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Mask = npt.NDArray[np.bool_]
Numbers = npt.NDArray[np.int64]
Scores = npt.NDArray[np.float64]

NO_RANK = 0


def rank(row: Numbers, scores: Scores, is_candidate: Mask) -> npt.NDArray[np.int32]:
    """1 for the best of its row's candidates, and so on; NO_RANK for others and where the score is missing (NaN).

    ``row``: the same number for samples of one row.
    """
    ranks = np.full(len(row), NO_RANK, np.int32)
    chosen = np.flatnonzero(is_candidate & ~np.isnan(scores))
    order = chosen[np.lexsort((chosen, -scores[chosen], row[chosen]))]
    ranks[order] = _place_in_group(row[order])
    return ranks


def duplicates(group: Numbers, scores: Scores | None, is_candidate: Mask) -> Numbers:
    """For each image the one that stays in its stead, or -1 where it stays itself.

    ``group``: a number for each group of near-duplicates, -1 for images without one. Of its candidates the one with the
    highest score stays, or the first.
    """
    instead = np.full(len(group), -1, np.int64)
    chosen = np.flatnonzero(is_candidate & (group >= 0))
    worth = np.zeros(len(chosen)) if scores is None else np.nan_to_num(-scores[chosen], nan=np.inf)
    has_none = np.zeros(len(chosen), bool) if scores is None else np.isnan(scores[chosen])
    order = chosen[np.lexsort((chosen, worth, has_none, group[chosen]))]
    place = _place_in_group(group[order])
    first = np.maximum.accumulate(np.where(place == 1, np.arange(len(order)), 0))
    instead[order] = np.where(place == 1, -1, order[first])
    return instead


def _place_in_group(group: Numbers) -> Numbers:
    """Of sorted numbers: how many of its kind stand before each, and itself."""
    index = np.arange(len(group), dtype=np.int64)
    is_first = np.ones(len(group), bool)
    is_first[1:] = group[1:] != group[:-1]
    return index - np.maximum.accumulate(np.where(is_first, index, 0)) + 1
