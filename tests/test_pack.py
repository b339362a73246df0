"""A packed step is every row's own step, however the rows lie in it."""

from __future__ import annotations

import pytest
import torch

from omnigen_actor.engine import OmniGenEngine
from omnigen_actor.model.attention import grouped
from omnigen_actor.model.pack import Pack
from omnigen_actor.model.sampler import Row
from omnigen_actor.types import Request

IMAGE_1 = "<img><|image_1|></img>"


@pytest.fixture
def requests(picture) -> list[Request]:
    size = {"width": 64, "height": 80, "seed": 1, "steps": 3}
    return [
        Request(id="text", prompt="a red cat", **size),
        Request(id="edit", prompt=f"{IMAGE_1} make it blue", images=(picture(64, 64),), **size),
        Request(id="wide", prompt="a dog on the roof", width=160, height=48, seed=2, steps=5),
        Request(id="same shape", prompt="a red cat", **size | {"seed": 3}),
    ]


def rows_of(engine: OmniGenEngine, requests: list[Request]) -> list[Row]:
    preparer = engine._waves._preparer
    with torch.inference_mode():
        return [preparer.prepare(preparer.plan(request)) for request in requests]


def pack_of(engine: OmniGenEngine, rows: list[Row]) -> Pack:
    return Pack(engine._transformer, rows, grouped)


@torch.inference_mode()
def test_a_step_together_is_a_step_of_each(engine: OmniGenEngine, requests: list[Request]):
    together, alone = rows_of(engine, requests), rows_of(engine, requests)
    pack = pack_of(engine, together)
    for _ in range(2):
        pack.step()
    for row in alone:
        single = pack_of(engine, [row])
        for _ in range(2):
            single.step()
    for found, expected in zip(together, alone, strict=True):
        assert found.step == expected.step == 2
        assert (found.patches - expected.patches).norm() / expected.patches.norm() < 1e-5


@torch.inference_mode()
def test_the_order_of_the_rows_is_no_part_of_the_result(engine: OmniGenEngine, requests: list[Request]):
    rows, backwards = rows_of(engine, requests), rows_of(engine, requests)[::-1]
    pack_of(engine, rows).step()
    pack_of(engine, backwards).step()
    for found, expected in zip(backwards[::-1], rows, strict=True):
        assert torch.allclose(found.patches, expected.patches, atol=1e-5)


@torch.inference_mode()
def test_a_gpus_way_of_placing_keys_is_the_cpus(engine: OmniGenEngine, requests: list[Request]):
    rows, others = rows_of(engine, requests), rows_of(engine, requests)
    pack, other = pack_of(engine, rows), pack_of(engine, others)
    other._own_keys = other._key_of_token(torch.device("cpu"))
    pack.step()
    other.step()
    assert all(torch.equal(a.patches, b.patches) for a, b in zip(rows, others, strict=True))


def test_branches_of_equal_shape_are_one_group(engine: OmniGenEngine, requests: list[Request]):
    """Text and same shape: their prompts, and their negative prompts with the edit's."""
    with torch.inference_mode():
        pack = pack_of(engine, rows_of(engine, requests))
    assert sorted(group.num_sequences for group in pack._layout.groups) == [1, 1, 1, 1, 2, 3]
    assert pack.num_branches == 9
    assert pack.num_tokens == 7 * 20 + 2 * 30


@torch.inference_mode()
def test_a_step_that_breaks_off_leaves_every_row_as_it_was(engine: OmniGenEngine, requests: list[Request]):
    rows = rows_of(engine, requests)
    before = [row.patches.clone() for row in rows]

    def broken(*_: object) -> torch.Tensor:
        raise torch.OutOfMemoryError("out of memory")

    with pytest.raises(torch.OutOfMemoryError):
        Pack(engine._transformer, rows, broken).step()
    assert all(row.step == 0 for row in rows)
    assert all(torch.equal(row.patches, old) for row, old in zip(rows, before, strict=True))
