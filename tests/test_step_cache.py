"""Approximations in a real engine: what they leave out, what they keep, and that each row decides for itself."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import pytest
import torch
from torch import Tensor

from omnigen_actor.engine import OmniGenEngine
from omnigen_actor.engine_settings import EngineSettings
from omnigen_actor.model.pack import Pack
from omnigen_actor.model.sampler import Row
from omnigen_actor.types import Request
from tests.reference import Reference, guide, relative_error

IMAGE = "<img><|image_1|></img>"

THRESHOLD = 0.295
"""Leaves out some steps of ``mixed``, and no change of theirs is so near that rounding could decide."""


class FullStep(NamedTuple):
    """A step of a row, known by its number of tokens, that was computed in full; ``num_rows`` were so with it."""

    num_tokens: int
    step: int
    num_rows: int


@pytest.fixture
def mixed(picture) -> list[Request]:
    """Rows of different sizes, steps and numbers of branches."""
    return [
        Request(id="text", prompt="a red cat", width=64, height=96, seed=1, steps=8),
        Request(id="edit", prompt=f"{IMAGE} blue", images=(picture(75, 81),), seed=2, steps=6),
        Request(id="plain", prompt="a dog", width=80, height=80, seed=3, steps=10, guidance_scale=1.0),
        Request(id="long", prompt="a dog", width=352, height=320, seed=4, steps=4, guidance_scale=3.0),
    ]


@pytest.fixture
def make(tiny_model: Path) -> Callable[..., OmniGenEngine]:
    def make_engine(**settings: object) -> OmniGenEngine:
        return OmniGenEngine.from_pretrained(str(tiny_model), EngineSettings(device="cpu", **settings))

    return make_engine


@pytest.fixture
def full_steps(monkeypatch: pytest.MonkeyPatch) -> list[FullStep]:
    """Every step that runs the blocks after the first, as it happens."""
    found: list[FullStep] = []
    later_blocks = Pack._later_blocks

    def recording(pack: Pack, first: Tensor, rows: Sequence[Row]) -> Tensor:
        found.extend(FullStep(row.num_tokens, row.step, len(rows)) for row in rows)
        return later_blocks(pack, first, rows)

    monkeypatch.setattr(Pack, "_later_blocks", recording)
    return found


def test_a_threshold_of_almost_nothing_gives_the_exact_result(make, engine: OmniGenEngine, mixed, full_steps):
    for found, expected in zip(make(step_cache=1e-12).latents(mixed), engine.latents(mixed), strict=True):
        assert relative_error(found, expected) < 1e-5
    assert len(full_steps) == sum(request.steps for request in mixed)


def test_an_endless_threshold_computes_only_the_first_step_and_changes_the_image(make, engine, mixed, full_steps):
    found = make(step_cache=1e9).latents(mixed)
    assert sorted(full_steps) == [FullStep(tokens, 0, len(mixed)) for tokens in (20, 24, 25, 440)]
    for request, row, expected in zip(mixed, found, engine.latents(mixed), strict=True):
        assert torch.isfinite(row).all()
        assert relative_error(row, expected) > 1e-3, request.id


def test_a_row_of_one_step_is_exact_whatever_the_threshold(make, engine: OmniGenEngine):
    row = Request(id="row", prompt="a cat", width=64, height=64, seed=1, steps=1)
    (found,), (expected,) = make(step_cache=1e9).latents([row]), engine.latents([row])
    assert relative_error(found, expected) < 1e-5


def test_a_row_decides_for_itself_whatever_rows_are_beside_it(make, mixed, full_steps):
    cached = make(step_cache=THRESHOLD)
    together = cached.latents(mixed)
    beside = full_steps.copy()
    num_steps = sum(request.steps for request in mixed)
    assert len(mixed) < len(beside) < num_steps  # some steps are left out, and not only after the first
    assert {found.num_rows for found in beside} >= {1, len(mixed)}
    decisions = []
    for request, expected in zip(mixed, together, strict=True):
        full_steps.clear()
        (alone,) = cached.latents([request])
        decisions += [found[:2] for found in full_steps]
        assert relative_error(alone, expected) < 1e-4
    assert sorted(found[:2] for found in beside) == sorted(decisions)


def test_rows_in_waves_make_what_they_make_alone(make, mixed):
    """Through the engine's own waves, where rows leave and enter while others keep what they remember."""
    alone = {request.id: make_image(make(step_cache=THRESHOLD), [request])[request.id] for request in mixed}
    in_waves = make_image(make(step_cache=THRESHOLD, rows_per_wave=3), mixed)
    for name, expected in alone.items():
        assert (in_waves[name] - expected).abs().max() <= 2  # of 255


def test_the_higher_the_threshold_the_fewer_steps(make, mixed, full_steps):
    numbers = []
    for threshold in (1e-12, THRESHOLD, 1e9):
        full_steps.clear()
        make(step_cache=threshold).latents(mixed)
        numbers.append(len(full_steps))
    assert numbers[0] > numbers[1] > numbers[2]


def test_a_step_with_other_branches_than_before_is_computed_in_full(make, full_steps):
    row = Request(id="row", prompt="a cat", width=64, height=64, seed=1, steps=10)
    make(step_cache=1e9, guidance_from=0.25, guidance_to=0.65).latents([row])
    assert [found.step for found in full_steps] == [0, 3, 7]


@pytest.mark.parametrize("interval", [(0.3, 0.7), (0.3, 1.0), (0.0, 0.7), (0.45, 0.46)])
def test_outside_of_the_guidance_interval_the_full_branch_alone_counts(make, reference: Reference, mixed, interval):
    first, last = interval
    found = make(guidance_from=first, guidance_to=last).latents(mixed)
    for request, latent in zip(mixed, found, strict=True):
        assert relative_error(latent, denoise(reference, request, first, last)) < 1e-4, request.id


def test_a_guidance_interval_of_all_times_is_exact(make, engine: OmniGenEngine, mixed):
    whole = make(guidance_from=0.0, guidance_to=1.0)
    assert all(map(torch.equal, whole.latents(mixed), engine.latents(mixed)))


def test_the_branches_that_do_not_count_are_not_computed(make, picture):
    edit = Request(id="edit", prompt=f"{IMAGE} blue", images=(picture(64, 64),), seed=2, steps=10)
    narrow = make(guidance_from=0.25, guidance_to=0.65)
    list(narrow.generate([edit]))
    assert [(wave.num_branches, wave.num_steps) for wave in narrow.take_waves()] == [(1, 3), (3, 4), (1, 3)]


def test_an_engine_names_its_approximations_and_has_none_by_default(make, engine: OmniGenEngine):
    assert engine.info.approximations == ()
    some = make(fp8=True, guidance_from=0.2, step_cache=0.05)
    assert some.info.approximations == ("fp8", "guidance_interval=0.2-1", "step_cache=0.05")
    assert some.info.sha256 == engine.info.sha256


@torch.no_grad()
def denoise(reference: Reference, request: Request, first: float, last: float) -> Tensor:
    """All steps, with guidance only at times in [first, last]."""
    prepared = reference.prepare(request)
    z = prepared.noise
    for step in range(request.steps):
        t = torch.tensor(step / request.steps)
        calls = list(zip(prepared.calls, prepared.latents, strict=True))
        is_guided = first <= t <= last and request.guidance_scale != 1
        v = [reference.velocity(z, t, call, given) for call, given in (calls if is_guided else calls[:1])]
        z = z + (guide(request, v) if is_guided else v[0]) / request.steps
    return z[0]


def make_image(engine: OmniGenEngine, requests: Sequence[Request]) -> dict[str, Tensor]:
    """Pixels of each request."""
    import numpy as np

    return {o.request.id: torch.from_numpy(np.array(o.image).astype(int)) for o in engine.generate(requests)}
