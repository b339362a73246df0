"""Aesthetic and safety scores with tiny random classifiers."""

from __future__ import annotations

from pathlib import Path

import pytest

from omnigen_actor.errors import ModelError
from pipelines.scores.heads import open_aesthetic, open_nsfw
from pipelines.scores.prepared import prepare
from pipelines.scores.registry import parse
from tests.scoring_models import picture, save_classifier

PICTURES = [picture(seed) for seed in range(3)]


def shares(folder: Path) -> list[list[float]]:
    """What transformers' own classes say."""
    import torch
    from transformers import ViTForImageClassification, ViTImageProcessorPil

    pixels = ViTImageProcessorPil.from_pretrained(folder)([one.image for one in PICTURES], return_tensors="pt")
    with torch.inference_mode():
        logits = ViTForImageClassification.from_pretrained(folder)(**pixels).logits
    return logits.softmax(-1).tolist()


def test_the_score_is_the_share_of_the_label_that_means_it(tmp_path: Path) -> None:
    folder = save_classifier(tmp_path, "normal", "NSFW")
    found = [one["nsfw"] for one in open_nsfw({"model": str(folder), "device": "cpu"})(PICTURES)]
    assert found == pytest.approx([share[1] for share in shares(folder)], abs=1e-5)


def test_labels_that_mean_the_same_add_up(tmp_path: Path) -> None:
    folder = save_classifier(tmp_path, "drawings", "hentai", "neutral", "porn", "sexy")
    found = [one["nsfw"] for one in open_nsfw({"model": str(folder), "device": "cpu"})(PICTURES)]
    assert found == pytest.approx([sum(share[n] for n in (1, 3, 4)) for share in shares(folder)], abs=1e-5)


def test_a_label_that_means_the_opposite_is_turned_around(tmp_path: Path) -> None:
    folder = save_classifier(tmp_path, "safe", "something else")
    found = [one["nsfw"] for one in open_nsfw({"model": str(folder), "device": "cpu"})(PICTURES)]
    assert found == pytest.approx([1 - share[0] for share in shares(folder)], abs=1e-5)


def test_a_label_that_is_named_wins(tmp_path: Path) -> None:
    folder = save_classifier(tmp_path, "good", "splendid")
    prepared = prepare(parse(f"aesthetic:{folder}#Splendid"))
    found = [one["aesthetic"] for one in prepared.on("cpu").open()(PICTURES)]
    assert found == pytest.approx([share[1] for share in shares(folder)], abs=1e-5)
    assert prepared.description["settings"]["label"] == "Splendid"


def test_a_regression_gives_its_number(tmp_path: Path) -> None:
    import torch
    from transformers import ViTForImageClassification, ViTImageProcessorPil

    folder = save_classifier(tmp_path, "score")
    pixels = ViTImageProcessorPil.from_pretrained(folder)([one.image for one in PICTURES], return_tensors="pt")
    with torch.inference_mode():
        expected = ViTForImageClassification.from_pretrained(folder)(**pixels).logits[:, 0].tolist()
    found = [one["aesthetic"] for one in open_aesthetic({"model": str(folder), "device": "cpu"})(PICTURES)]
    assert found == pytest.approx(expected, abs=1e-5)


@pytest.mark.parametrize("more", [{}, {"label": "missing"}])
def test_a_classifier_of_something_else_is_refused_with_its_labels(tmp_path: Path, more: dict[str, str]) -> None:
    folder = save_classifier(tmp_path, "cat", "dog")
    with pytest.raises(ModelError, match=r"name one as MODEL#LABEL: cat, dog"):
        open_nsfw({"model": str(folder), "device": "cpu", **more})


def test_labels_that_do_not_exclude_each_other_are_not_added(tmp_path: Path) -> None:
    folder = save_classifier(tmp_path, "porn", "sexy", problem_type="multi_label_classification")
    found = [one["nsfw"] for one in open_nsfw({"model": str(folder), "device": "cpu"})(PICTURES)]
    assert all(0 < value < 1 for value in found)  # two halves would add up to 1
    assert found != pytest.approx([1.0] * 3, abs=1e-3)
