"""A Request is valid or does not exist; the size rule; errors that survive a pickle."""

from __future__ import annotations

import pickle
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from omnigen_actor.errors import ErrorKind, RowError, Stage
from omnigen_actor.types import MAX_SEED, MAX_SIDE, Request, round_side

GOOD: dict[str, Any] = {"id": "a", "prompt": "A cat.", "width": 64, "height": 64, "seed": 0}


@settings(deadline=None)
@given(st.integers(1, MAX_SIDE))
def test_sides_are_rounded_down_to_multiples_of_16_but_never_below(side: int) -> None:
    rounded = round_side(side)
    assert rounded % 16 == 0
    assert rounded == 16 if side < 16 else side - 16 < rounded <= side


@pytest.mark.parametrize(
    ("change", "kind", "words"),
    [
        ({"width": 0}, ErrorKind.BAD_SIZE, "width=0"),
        ({"height": MAX_SIDE + 1}, ErrorKind.BAD_SIZE, "height=3073"),
        ({"width": None}, ErrorKind.BAD_SIZE, "give both, or neither"),
        ({"width": None, "height": None}, ErrorKind.BAD_SIZE, "no input image to take them from"),
        ({"steps": 0}, ErrorKind.BAD_PARAMETER, "steps=0"),
        ({"steps": 1001}, ErrorKind.BAD_PARAMETER, "steps=1001"),
        ({"guidance_scale": float("nan")}, ErrorKind.BAD_PARAMETER, "guidance_scale=nan"),
        ({"img_guidance_scale": float("inf")}, ErrorKind.BAD_PARAMETER, "img_guidance_scale=inf"),
        ({"img_guidance_scale": -0.1}, ErrorKind.BAD_PARAMETER, "img_guidance_scale=-0.1"),
        ({"seed": -1}, ErrorKind.BAD_PARAMETER, "seed=-1"),
        ({"seed": MAX_SEED + 1}, ErrorKind.BAD_PARAMETER, "seed=9223372036854775808"),
    ],
)
def test_an_unusable_request_names_the_value(change: dict[str, Any], kind: ErrorKind, words: str) -> None:
    with pytest.raises(RowError) as caught:
        Request(**{**GOOD, **change})
    assert (caught.value.kind, caught.value.stage) == (kind, Stage.CHECK)
    assert words in str(caught.value)


def test_the_limits_themselves_are_usable() -> None:
    Request(**{**GOOD, "width": 1, "height": MAX_SIDE, "steps": 1000, "guidance_scale": 0.0, "seed": MAX_SEED})
    Request(**{**GOOD, "width": None, "height": None, "images": (Image.new("RGB", (16, 16)),)})


def test_a_row_error_survives_a_pickle() -> None:
    error = RowError(ErrorKind.BAD_SIZE, Stage.CHECK, "width=0")
    copy = pickle.loads(pickle.dumps(error))
    assert (copy.kind, copy.stage, copy.message, str(copy)) == (error.kind, error.stage, error.message, "width=0")
