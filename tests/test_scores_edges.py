"""Pictures that keep to their edge map are told from those that do not."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image, ImageFilter, ImageOps

from pipelines.scores.edges import Edges, f1, lines, open_edges
from pipelines.scores.scorer import score_table
from tests.score_pictures import as_jpeg, made, photo

OTHERS = ("coffee", "pavilion", "photographer", "rocket")


def score(output: Image.Image, edge_map: Image.Image, task: str = "condition") -> float | None:
    (row,) = score_table(Edges(), [made(output, edge_map, task=task)]).to_pylist()
    assert row["score_error"] is None
    found: float | None = row["edges_f1"]
    return found


def of_map(output: Image.Image, edge_map: Image.Image) -> float:
    found = score(output, edge_map)
    assert found is not None
    return found


@pytest.mark.parametrize("name", ["astronaut", "cat"])
def test_kept_half_kept_and_broken_edges_rank_in_that_order(name: str) -> None:
    edge_map, kept = photo(f"{name}-edges.png"), photo(name)
    half = kept.copy()
    half.paste((128, 128, 128), (0, 0, half.width // 2, half.height))
    shifted = Image.fromarray(np.roll(np.asarray(kept), 40, axis=1))
    ranked = [of_map(image, edge_map) for image in (kept, half, photo("rocket"), Image.new("RGB", kept.size))]
    assert ranked == sorted(ranked, reverse=True)
    assert ranked[0] > 0.9
    assert ranked[1] < 0.8
    assert max(of_map(photo(other), edge_map) for other in OTHERS) < 0.65
    assert of_map(shifted, edge_map) < 0.65
    assert ranked[-1] == 0


def test_a_new_photograph_with_other_colours_and_the_same_edges_keeps_its_map() -> None:
    recoloured = ImageOps.invert(photo("cat"))
    assert of_map(recoloured, photo("cat-edges.png")) > 0.9
    assert of_map(recoloured.resize((300, 200)), photo("cat-edges.png")) > 0.7


def test_black_lines_on_white_and_soft_lines_are_the_same_map() -> None:
    edge_map = photo("cat-edges.png")
    soft = as_jpeg(edge_map.resize((edge_map.width * 4 // 5, edge_map.height * 4 // 5)), 70)
    assert score(photo("cat"), ImageOps.invert(edge_map)) == score(photo("cat"), edge_map)
    assert of_map(photo("cat"), soft) > 0.85


def test_what_is_no_edge_map_has_no_score() -> None:
    smooth = Image.linear_gradient("L").convert("RGB")
    skeleton = Image.new("RGB", (128, 128))
    skeleton.paste((255, 0, 0), (30, 30, 50, 110))
    blank = Image.new("RGB", (128, 128))
    for other in (smooth, skeleton, blank, photo("cat"), photo("photographer")):
        assert lines(other) is None
        assert score(photo("cat"), other) is None


def test_other_tasks_have_no_score_unless_they_are_named() -> None:
    edge_map = photo("cat-edges.png")
    assert score(photo("cat"), edge_map, task="edit") is None
    scorer = open_edges({"tasks": "condition, follow_edges"})
    (row,) = score_table(scorer, [made(photo("cat"), edge_map, task="follow_edges")]).to_pylist()
    assert row["edges_f1"] > 0.9
    (row,) = score_table(scorer, [made(photo("cat"), task="condition")]).to_pylist()
    assert (row["edges_f1"], row["score_error"]) == (None, None)


def test_f1_counts_within_the_tolerance_alone() -> None:
    line, near, far = (np.zeros((20, 20), bool) for _ in range(3))
    line[:, 5], near[:, 7], far[:, 8] = True, True, True
    assert f1(line, near, 2) == 1
    assert f1(line, far, 2) == 0
    assert f1(line, line | far, 2) == pytest.approx(2 / 3)
    assert f1(np.zeros_like(line), line, 2) == 0


def test_blur_takes_edges_away() -> None:
    edge_map = photo("astronaut-edges.png")
    falling = [of_map(photo("astronaut").filter(ImageFilter.GaussianBlur(radius)), edge_map) for radius in (0, 3, 8)]
    assert falling == sorted(falling, reverse=True)
