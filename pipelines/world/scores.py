"""How right a picture is that a model made for a sample: every metric of every task. Knows no models and no files.

Higher is better, unless the name says ``error``. What a metric needs and a sample has not (things in an empty scene)
is left out, never counted as 0. `docs/world.md` says what each metric is.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TypedDict

import numpy as np

from pipelines.world import looking, truth
from pipelines.world.edits import Change
from pipelines.world.figure import COVERS
from pipelines.world.pictures import DEGRADATION_OF_TASK
from pipelines.world.postures import NOT_FOUND_PX, limb_errors_px, posture_error_px
from pipelines.world.presets import World
from pipelines.world.relations import relation_is_right
from pipelines.world.render import render
from pipelines.world.sample import Sample
from pipelines.world.scene import Scene, Thing
from pipelines.world.shapes import Array

Scores = dict[str, float]

PSNR_CAP_DB = 99.0
"""The PSNR of pictures that are the same."""

EDITED_INPUT = {"edit": 0, "reasoning_edit": 0, "try_on": 0, "compose": 1}
"""The tasks that change a part of an input, and which input."""

SHARES = frozenset({"background", "place_colour", "shape", "size", "edited", "relation", "limbs_found"})
"""Metrics that say which share of things was right."""

_FREE_AGAIN = 0.7
_Z95 = 1.959964


class Mean(TypedDict):
    """The mean of ``num`` values, and the bounds within which the true mean is with a confidence of 95 %."""

    mean: float
    low95: float
    high95: float
    num: int


def score(world: World, sample: Sample, picture: Array) -> Scores:
    """The metrics of a picture (H, W, 3) uint8, as large as the sample's output.

    Raises ValueError for a picture of another size or type.
    """
    right = sample.output
    if picture.shape != right.shape or picture.dtype != np.uint8:
        raise ValueError(
            f"a picture {picture.shape} of {picture.dtype}, but {sample.task} has {right.shape} of uint8: "
            "make it at the world's size"
        )
    scores = {"psnr_db": psnr_db(picture, right)}
    scores |= _OF_OUTPUT.get(output_kind(sample), _photo_scores)(world, sample, picture)
    if sample.task in EDITED_INPUT:
        scores |= _edit_scores(world, sample, picture)
    if sample.task in DEGRADATION_OF_TASK:
        scores["gain_db"] = scores["psnr_db"] - psnr_db(sample.inputs[0], right)
    if sample.task == "in_context":
        scores["relation"] = float(relation_is_right(world, sample, picture))
    return scores


def summarise(scores: Iterable[tuple[str, Scores]]) -> dict[str, dict[str, Mean]]:
    """Task to metric to mean, of pairs of a task and the scores of one picture.

    Bounds are Wilson's (1927) for shares, and normal for all else: mean ± 1.96 s / √num. A single value that is no
    share has itself as bounds.
    """
    values: dict[str, dict[str, list[float]]] = {}
    for task, one in scores:
        of_task = values.setdefault(task, {})
        for metric, value in one.items():
            of_task.setdefault(metric, []).append(value)
    return {
        task: {metric: (_wilson if metric in SHARES else _normal)(found) for metric, found in of_task.items()}
        for task, of_task in values.items()
    }


def _wilson(values: list[float]) -> Mean:
    num, mean = len(values), math.fsum(values) / len(values)
    spread = _Z95**2 / num
    centre = (mean + spread / 2) / (1 + spread)
    half = math.sqrt(mean * (1 - mean) * spread + spread**2 / 4) / (1 + spread)
    return Mean(mean=mean, low95=max(0.0, centre - half), high95=min(1.0, centre + half), num=num)


def _normal(values: list[float]) -> Mean:
    num, mean = len(values), math.fsum(values) / len(values)
    squares = math.fsum((value - mean) ** 2 for value in values)
    half = _Z95 * math.sqrt(squares / (num - 1) / num) if num > 1 else 0.0
    return Mean(mean=mean, low95=mean - half, high95=mean + half, num=num)


def output_kind(sample: Sample) -> str:
    """What the right output is: ``edges``, ``depth``, ``pose``, ``segmentation``, ``grey`` or ``photo``."""
    if sample.task == "in_context":
        relation = str(sample.facts["relation"])
        return relation if relation in {"edges", "depth", "pose", "grey"} else "photo"
    return {"canny": "edges", "depth": "depth", "pose": "pose", "segmentation": "segmentation"}.get(
        sample.task, "photo"
    )


def psnr_db(picture: Array, right: Array, where: Array | None = None) -> float:
    """Peak signal to noise ratio over all pixels, or over those of ``where`` (H, W) bool; at most PSNR_CAP_DB."""
    off = picture.astype(np.float32) - right
    squared = float(np.square(off if where is None else off[where]).mean())
    return PSNR_CAP_DB if squared == 0 else min(PSNR_CAP_DB, 10 * float(np.log10(255.0**2 / squared)))


@dataclass(frozen=True)
class _View:
    """A picture at the size that is looked at, and the scene that it should show."""

    world: World
    scene: Scene
    picture: Array

    @cached_property
    def ids(self) -> Array:
        return render(looking.at_side(self.world), self.scene).ids

    def background_is_right(self) -> bool:
        free = looking.inner(self.ids == 0)
        return looking.background_seen(self.world, self.picture, free) == self.scene.background

    def has_colour_at(self, index: int) -> bool:
        thing = self.scene.things[index]
        mask = looking.core(self.world, truth.thing_mask(self.ids, index), thing)
        return looking.shows(self.world, self.picture, mask, thing.colour, textured=thing.texture != "plain")

    def has_shirt(self) -> bool:
        mask = truth.parts(self.scene, self.ids) == 1 + COVERS.index("shirt")
        return looking.shows(self.world, self.picture, mask, self.scene.someone.shirt)

    def fit_of(self, index: int) -> looking.Fit:
        known = (self.ids == 0) | truth.thing_mask(self.ids, index)
        return looking.fitted(self.world, self.picture, self.scene.things[index], known)


def _photo_scores(world: World, sample: Sample, picture: Array) -> Scores:
    view = _View(world, sample.scene, looking.reduced(picture))
    scores = {"background": float(view.background_is_right())}
    things = sample.scene.things
    if things:
        fits = [view.fit_of(index) for index in range(len(things))]
        scores["place_colour"] = float(np.mean([view.has_colour_at(index) for index in range(len(things))]))
        scores["shape"] = _share(fits, things, lambda fit, thing: fit.shape == thing.shape)
        scores["size"] = _share(fits, things, lambda fit, thing: fit.size == thing.size)
    if sample.scene.person is not None:
        scores["place_colour"] = float(view.has_shirt())
        scores["pose_error_px"] = posture_error_px(world, view.picture, sample.scene.person)
    return scores


def _share(fits: list[looking.Fit], things: tuple[Thing, ...], right: Callable[[looking.Fit, Thing], bool]) -> float:
    """The share of things that are there and right."""
    found = [fit.overlap >= looking.FEWEST_ALIKE and right(fit, thing) for fit, thing in zip(fits, things, strict=True)]
    return float(np.mean(found))


def _edge_scores(world: World, sample: Sample, picture: Array) -> Scores:
    """As boundaries are usually scored (Martin et al., 2004), but a line may be matched more than once."""
    found, true = (truth.luma(one) > 127 for one in (picture, sample.output))
    reach = world.size // looking.SIDE
    precision = _share_near(found, looking.grown(true, reach))
    recall = _share_near(true, looking.grown(found, reach))
    f1 = 2 * precision * recall / (precision + recall) if precision + recall else 0.0
    return {"edges_precision": precision, "edges_recall": recall, "edges_f1": f1}


def _share_near(lines: Array, reached: Array) -> float:
    return float(reached[lines].mean()) if lines.any() else 0.0


def _depth_scores(world: World, sample: Sample, picture: Array) -> Scores:  # noqa: ARG001
    off = truth.luma(picture) - truth.luma(sample.output)
    return {"depth_error": float(np.abs(off).mean()) / 255}


def _pose_scores(world: World, sample: Sample, picture: Array) -> Scores:  # noqa: ARG001
    errors = limb_errors_px(looking.reduced(picture), looking.reduced(sample.output))
    found = ~np.isnan(errors)
    return {"limbs_found": float(found.mean()), "pose_error_px": float(np.where(found, errors, NOT_FOUND_PX).mean())}


def _segmentation_scores(world: World, sample: Sample, picture: Array) -> Scores:  # noqa: ARG001
    found, true = _blue(picture), _blue(sample.output)
    return {"segmentation_iou": float((found & true).sum() / (found | true).sum())}


def _blue(picture: Array) -> Array:
    """What is nearer to flat blue than to any grey: (H, W) bool."""
    channels = picture.astype(np.float32)
    blue: Array = channels[:, :, 2] - channels[:, :, :2].mean(axis=2) > 127
    return blue


def _no_more_scores(world: World, sample: Sample, picture: Array) -> Scores:  # noqa: ARG001
    return {}


_OF_OUTPUT: dict[str, Callable[[World, Sample, Array], Scores]] = {
    "photo": _photo_scores,
    "edges": _edge_scores,
    "depth": _depth_scores,
    "pose": _pose_scores,
    "segmentation": _segmentation_scores,
    "grey": _no_more_scores,
}


def _edit_scores(world: World, sample: Sample, picture: Array) -> Scores:
    source, right = sample.inputs[EDITED_INPUT[sample.task]], sample.output
    changed = (source != right).any(axis=2)
    scores = {
        "changed_gain_db": psnr_db(picture, right, changed) - psnr_db(source, right, changed),
    }
    if not changed.all():
        scores["kept_psnr_db"] = psnr_db(picture, right, ~changed)
    changes = changes_of(sample)
    if changes:
        view = _View(world, sample.scene, looking.reduced(picture))
        scores["edited"] = float(all(_is_done(view, sample, change) for change in changes))
    return scores


def changes_of(sample: Sample) -> list[Change]:
    """What was changed, where the sample tells: its ``changes``, or the shirt that was tried on."""
    if "shirt" in sample.facts:
        return [{"kind": "shirt", "colour": str(sample.facts["shirt"])}]
    found = sample.facts.get("changes")
    return [change for change in found if isinstance(change, dict)] if isinstance(found, list) else []


def _is_done(view: _View, sample: Sample, change: Change) -> bool:
    """Whether the picture shows one change."""
    if change["kind"] == "background":
        return view.background_is_right()
    if change["kind"] == "shirt":
        return view.has_shirt()
    if change["kind"] == "remove":
        return _is_gone(view, sample, int(change["target"]))
    colours = [thing.colour for thing in view.scene.things]
    return view.has_colour_at(colours.index(str(change["colour"])))


def _is_gone(view: _View, sample: Sample, target: int) -> bool:
    """Whether the background is where a thing of the source was, but for a small part."""
    assert sample.source_scene is not None, "an edit without a source"
    was = replace(view, scene=sample.source_scene)
    free = truth.thing_mask(was.ids, target) & (view.ids == 0)
    share = looking.share_of_colour(view.world, view.picture[free], view.scene.background)
    return share >= _FREE_AGAIN
