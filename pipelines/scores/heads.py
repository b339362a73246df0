"""Aesthetic and safety scores by image classifiers of the user's choice. Knows no store.

Which output is the score: the label that the user names after ``#``, else one that is known by its name.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

import pyarrow as pa

from omnigen_actor.errors import ModelError
from pipelines.scores.scorer import Picture, Score

if TYPE_CHECKING:
    import torch


class _HeadScorer:
    """The share of some labels of a classifier, or the one number of a regression."""

    name: str
    columns: pa.Schema
    good: ClassVar[frozenset[str]]
    """Labels, in small letters, whose shares add up to the score."""
    opposite: ClassVar[frozenset[str]]
    """Without those: labels whose shares are what is missing to 1."""
    needs_inputs = False
    num_gpus = 1.0
    batch_size = 32

    def __init__(self, options: Mapping[str, Any]) -> None:
        """Options as in ``open_pretrained``, and ``label``. Raises ModelError."""
        from transformers import AutoModelForImageClassification

        from pipelines.scores.pretrained import open_pretrained

        self._model = open_pretrained(options, AutoModelForImageClassification)
        config = self._model.network.config
        labels = [str(config.id2label[number]) for number in range(config.num_labels)]
        self._chosen, self._is_opposite = self._choose(labels, options.get("label"))
        self._is_single = len(labels) == 1
        self._is_multi_label = config.problem_type == "multi_label_classification"

    def __call__(self, pictures: Sequence[Picture]) -> list[Score]:
        """One dict for each picture."""
        logits_NL = self._model.run(self._model.network, [picture.image for picture in pictures]).logits
        values = self._values(logits_NL.float().cpu()).tolist()
        return [{self.columns.names[0]: value} for value in values]

    def _values(self, logits_NL: torch.Tensor) -> torch.Tensor:
        if self._is_single:
            return self._of_single(logits_NL[:, 0])
        shares_NL = logits_NL.sigmoid() if self._is_multi_label else logits_NL.softmax(-1)
        chosen_NC = shares_NL[:, self._chosen]
        # Labels that exclude each other add up; those that do not are as sure as the surest.
        found_N = chosen_NC.amax(-1) if self._is_multi_label else chosen_NC.sum(-1)
        return 1 - found_N if self._is_opposite else found_N

    def _of_single(self, logits_N: torch.Tensor) -> torch.Tensor:
        raise NotImplementedError

    def _choose(self, labels: Sequence[str], wanted: str | None) -> tuple[list[int], bool]:
        """The outputs that count, and whether they say the opposite."""
        if len(labels) == 1 and wanted is None:
            return [0], False
        names = [label.strip().lower() for label in labels]
        sets = ((self.good, False), (self.opposite, True)) if wanted is None else (({wanted.strip().lower()}, False),)
        for among, is_opposite in sets:
            if found := [number for number, name in enumerate(names) if name in among]:
                return found, is_opposite
        problem = (
            f"none of its labels is known to mean {self.name}" if wanted is None else f"it has no label {wanted!r}"
        )
        raise ModelError(f"{self._model.label}: {problem}; name one as MODEL#LABEL: {', '.join(labels[:20])}")


class AestheticScorer(_HeadScorer):
    """``aesthetic``: the number that a regression gives, on its own scale; of a classifier a share, 0 to 1."""

    name = "aesthetic"
    columns = pa.schema([("aesthetic", pa.float32())])
    good = frozenset({"aesthetic", "good", "beautiful", "high_quality", "high quality", "hq"})
    opposite = frozenset({"not_aesthetic", "not aesthetic", "bad", "ugly", "low_quality", "low quality", "lq"})

    def _of_single(self, logits_N: torch.Tensor) -> torch.Tensor:
        return logits_N


class NsfwScorer(_HeadScorer):
    """``nsfw``: how likely an image is not safe for work, 0 to 1."""

    name = "nsfw"
    columns = pa.schema([("nsfw", pa.float32())])
    good = frozenset({"nsfw", "unsafe", "explicit", "porn", "hentai", "sexy", "nude", "nudity", "adult", "sexual"})
    opposite = frozenset({"sfw", "safe", "normal", "neutral"})

    def _of_single(self, logits_N: torch.Tensor) -> torch.Tensor:
        return logits_N.sigmoid()


def open_aesthetic(options: Mapping[str, Any]) -> AestheticScorer:
    """A scorer with any image classifier, or regression with one output, of transformers."""
    return AestheticScorer(options)


def open_nsfw(options: Mapping[str, Any]) -> NsfwScorer:
    """A scorer with any image classifier of transformers that has a label for what is not safe."""
    return NsfwScorer(options)
