"""The truth's pictures, each recomputed another way."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest

from pipelines.world import sampling, truth
from pipelines.world.draws import stream
from pipelines.world.figure import ENDS, JOINTS, LIMBS, STARTS
from pipelines.world.presets import FULL, SMALL, World
from pipelines.world.render import render
from pipelines.world.scene import Scene, Thing
from pipelines.world.shapes import Array

BLACK, WHITE = [0, 0, 0], [255, 255, 255]


def things(index: int, world: World = FULL) -> Scene:
    return sampling.scene_with_things(world, stream(0, "truth", index), fewest=1)


def person(index: int) -> Scene:
    return sampling.scene_with_person(SMALL, stream(0, "truth", index))


def neighbours(side: int, row: int, column: int) -> list[tuple[int, int]]:
    around = [(row - 1, column), (row + 1, column), (row, column - 1), (row, column + 1)]
    return [(y, x) for y, x in around if 0 <= y < side and 0 <= x < side]


def edges_by_hand(shown: Array) -> Array:
    side = shown.shape[0]
    found = np.zeros((side, side), bool)
    for row in range(side):
        for column in range(side):
            found[row, column] = any(shown[place] != shown[row, column] for place in neighbours(side, row, column))
    return found


@pytest.mark.parametrize("index", range(6))
def test_a_pixel_is_an_edge_where_a_neighbour_shows_something_else(index: int) -> None:
    scene = things(index)
    ids = render(FULL, scene).ids
    edges = truth.edges_picture(scene, ids)
    expected = edges_by_hand(ids)
    assert expected.sum() > 20
    assert (edges[expected] == WHITE).all()
    assert (edges[~expected] == BLACK).all()


@pytest.mark.parametrize("index", range(6))
def test_no_edge_lies_between_limbs_of_one_colour(index: int) -> None:
    scene = person(index)
    ids = render(SMALL, scene).ids
    covers = ["background", *(limb.cover for limb in LIMBS)]
    shown = np.array([["background", "trousers", "shirt", "skin"].index(covers[number]) for number in ids.ravel()])
    expected = edges_by_hand(shown.reshape(64, 64))
    assert np.array_equal(truth.edges_picture(scene, ids)[:, :, 0] > 0, expected)
    assert edges_by_hand(ids).sum() > expected.sum()


def test_edges_at_128_pixels_are_those_of_its_ids_grown_by_one() -> None:
    scene = things(1)
    ids = render(replace(FULL, size=128), scene).ids
    thin = edges_by_hand(ids)
    grown = np.array(
        [
            [thin[row, column] or any(thin[place] for place in neighbours(128, row, column)) for column in range(128)]
            for row in range(128)
        ]
    )
    assert np.array_equal(truth.edges_picture(scene, ids)[:, :, 1] > 0, grown)


def test_the_edge_of_an_upright_square_is_two_pixels_wide() -> None:
    thing = Thing(
        shape="square", colour="red", size="large", texture="plain", place="center", x=0.5, y=0.5, radius=0.2, tilt=0
    )
    scene = Scene(background="grey", things=(thing,))
    row = truth.edges_picture(scene, render(SMALL, scene).ids)[32, :, 0] // 255
    changes = np.flatnonzero(np.diff(row.astype(int)))
    assert [int(width) for width in np.diff(changes)[::2]] == [2, 2]


@pytest.mark.parametrize("index", range(6))
def test_the_depth_picture_is_the_height_of_each_thing(index: int) -> None:
    scene = things(index)
    seen = render(FULL, scene)
    picture = truth.depth_picture(seen.depth)
    assert (picture[seen.ids == 0] == BLACK).all()
    for number, thing in enumerate(scene.things, start=1):
        assert set(picture[seen.ids == number].ravel().tolist()) == {round(255 * (0.25 + 0.75 * thing.y))}


@pytest.mark.parametrize("index", range(12))
def test_the_skeleton_goes_through_the_joints_in_the_colour_of_each_limb(index: int) -> None:
    scene = person(index)
    picture = truth.skeleton_picture(SMALL, scene.someone)
    joints = np.array(scene.someone.joints) * 64
    along = np.linspace(0, 1, 200)[:, None]
    lines = [joints[start] + along * (joints[end] - joints[start]) for start, end in zip(STARTS, ENDS, strict=True)]
    for row in range(64):
        for column in range(64):
            nearest = [math.sqrt(((line - (column + 0.5, row + 0.5)) ** 2).sum(axis=1).min()) for line in lines]
            first, second = sorted(nearest)[:2]
            limb = LIMBS[nearest.index(first)]
            if first > 2.5:
                assert picture[row, column].tolist() == BLACK
            elif first < 0.4 and second > 1:
                assert picture[row, column].tolist() == list(limb.rgb), limb.name


def test_every_limb_shows_in_a_skeleton() -> None:
    for index in range(30):
        shown = {tuple(rgb) for rgb in truth.skeleton_picture(SMALL, person(index).someone).reshape(-1, 3).tolist()}
        assert {limb.rgb for limb in LIMBS} <= shown


def test_the_joints_of_a_figure_hang_together() -> None:
    reached = {"neck"}
    for _ in LIMBS:
        reached |= {limb.end for limb in LIMBS if limb.start in reached}
    assert reached == set(JOINTS)


def test_what_was_found_is_flat_blue_and_the_rest_grey_and_dimmed() -> None:
    scene = things(2)
    seen = render(FULL, scene)
    mask = truth.thing_mask(seen.ids, 0)
    picture = truth.found_picture(seen.picture, mask)
    assert (picture[mask] == (0, 0, 255)).all()
    rest = picture[~mask].astype(float)
    assert (rest == rest[:, :1]).all()
    weighed = seen.picture[~mask].astype(float) @ [0.299, 0.587, 0.114]
    assert np.abs(rest[:, 0] - 0.6 * weighed).max() <= 0.51


def test_masks_share_out_the_picture() -> None:
    scene = replace(things(3), person=person(3).person)
    ids = render(FULL, scene).ids
    masks = [truth.thing_mask(ids, index) for index in range(len(scene.things))]
    layers = np.sum([*masks, truth.person_mask(scene, ids), ids == 0], axis=0)
    assert (layers == 1).all()


def test_a_map_of_each_kind_is_that_kinds_picture() -> None:
    scene = person(0)
    seen = render(SMALL, scene)
    of_kind = {kind: truth.condition_picture(SMALL, scene, seen, kind) for kind in ("edges", "depth", "pose")}
    assert np.array_equal(of_kind["edges"], truth.edges_picture(scene, seen.ids))
    assert np.array_equal(of_kind["depth"], truth.depth_picture(seen.depth))
    assert np.array_equal(of_kind["pose"], truth.skeleton_picture(SMALL, scene.someone))
