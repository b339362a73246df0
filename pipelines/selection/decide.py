"""What is kept of gathered images, why not the others, and in which split: the order of the steps. Reads nothing.

condition -> near-duplicates -> best of each row -> quotas -> splits. Each step sees what the earlier ones left.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from pipelines.selection import best, quotas, splits
from pipelines.selection.gather import Images
from pipelines.selection.options import SelectionConfig
from pipelines.selection.where import KEPT

DUPLICATE = "duplicate of another"
"""How the counts call all reasons ``duplicate of ID#SAMPLE``."""


@dataclass(slots=True)
class Verdict:
    """An element for each image, in their order. ``reason``: number in ``reasons``, or KEPT."""

    reason: npt.NDArray[np.int32]
    reasons: list[str]
    instead: npt.NDArray[np.int64]  # the image that stays in the stead of a duplicate, or -1
    rank: npt.NDArray[np.int32]  # best.NO_RANK without one
    split: npt.NDArray[np.int8]  # index in Splits.names; of the rejected too
    is_judged: npt.NDArray[np.bool_]  # rejected for what it is: by the condition or as not the best of its row

    @property
    def is_kept(self) -> npt.NDArray[np.bool_]:
        """Which images are in the selection."""
        found: npt.NDArray[np.bool_] = self.reason == KEPT
        return found

    def reject(self, is_meant: npt.NDArray[np.bool_], reason: str) -> npt.NDArray[np.bool_]:
        """Reject those that are meant and still kept, and say which."""
        is_new = is_meant & self.is_kept
        if is_new.any():
            if reason not in self.reasons:
                self.reasons.append(reason)
            self.reason[is_new] = self.reasons.index(reason)
        return is_new

    def count(self) -> Counter[str]:
        """How many are rejected for each reason."""
        numbers, counts = np.unique(self.reason[~self.is_kept], return_counts=True)
        return Counter({self.reasons[number]: int(count) for number, count in zip(numbers, counts, strict=True)})


def decide(images: Images, config: SelectionConfig) -> Verdict:
    """Raises ConfigError for a quota of a value that no image has."""
    num_images = len(images.sample)
    verdict = Verdict(
        reason=images.reason.copy(),
        reasons=list(images.reasons),
        instead=np.full(num_images, -1, np.int64),
        rank=np.full(num_images, best.NO_RANK, np.int32),
        split=np.zeros(num_images, np.int8),
        is_judged=_is_judged(images),
    )
    _leave_duplicates(verdict, images, config)
    _leave_the_best(verdict, images, config)
    _keep_quotas(verdict, images, config)
    if images.family is not None:
        verdict.split = config.split.assign(images.family, images.id, config.seed)
    return verdict


def _is_judged(images: Images) -> npt.NDArray[np.bool_]:
    """Whom the condition rejected; a missing value is no judgement."""
    found: npt.NDArray[np.bool_] = (images.reason != KEPT) & ~np.isin(images.reason, list(images.missing))
    return found


def _leave_duplicates(verdict: Verdict, images: Images, config: SelectionConfig) -> None:
    if images.group is None or not config.drop_duplicates:
        return
    verdict.instead = best.duplicates(images.group, images.scores, verdict.is_kept)
    verdict.reject(verdict.instead >= 0, DUPLICATE)


def _leave_the_best(verdict: Verdict, images: Images, config: SelectionConfig) -> None:
    if images.scores is None:
        return
    verdict.rank = best.rank(images.row, images.scores, verdict.is_kept)
    if config.best is not None:
        verdict.reject(verdict.rank == best.NO_RANK, f"{config.by} is missing")
        verdict.is_judged |= verdict.reject(verdict.rank > config.best, f"not in the best {config.best} by {config.by}")


def _keep_quotas(verdict: Verdict, images: Images, config: SelectionConfig) -> None:
    """Column by column, in the order in which they are first named."""
    if not config.quotas:
        return
    order = _quota_order(verdict, images, config)
    columns = dict.fromkeys(quota.column for quota in config.quotas)
    for column, (codes, values) in zip(columns, images.quota_values, strict=True):
        limit_of, texts = quotas.limits([quota for quota in config.quotas if quota.column == column], values)
        candidates = order[verdict.is_kept[order]]
        is_over = quotas.over(limit_of, codes, candidates)
        for code in np.unique(codes[is_over]):
            verdict.reject(is_over & (codes == code), f"quota {texts[code]}")


def _quota_order(verdict: Verdict, images: Images, config: SelectionConfig) -> npt.NDArray[np.int64]:
    """The kept images, those that a quota takes first before the others."""
    kept = np.flatnonzero(verdict.is_kept)
    ids = [str(one) for one in images.id.take(kept).to_pylist()]
    draw = splits.fractions("quota", ids, config.seed)
    if config.quota_by == "hash" or images.scores is None:
        return kept[np.lexsort((kept, draw))]
    scores = images.scores[kept]
    return kept[np.lexsort((kept, draw, np.nan_to_num(-scores, nan=np.inf), np.isnan(scores)))]
