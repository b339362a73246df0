"""OmniGenEngine: one outcome per request, an image that is its row's alone, failures that stay with their row."""

from __future__ import annotations

import hashlib

import pytest
import torch

from omnigen_actor.engine import OmniGenEngine
from omnigen_actor.errors import ErrorKind, Stage
from omnigen_actor.model import sampler
from omnigen_actor.types import Failure, Outcome, Request, Result

IMAGE_1 = "<img><|image_1|></img>"
IMAGE_2 = "<img><|image_2|></img>"


@pytest.fixture
def mixed(picture) -> list[Request]:
    """Rows that differ in everything a row can differ in."""
    return [
        Request(id="text", prompt="a red cat", width=64, height=96, seed=1, steps=3),
        Request(id="edit", prompt=f"{IMAGE_1} blue", images=(picture(75, 81),), seed=2, steps=5, guidance_scale=1.5),
        Request(
            id="two",
            prompt=f"{IMAGE_2} beside {IMAGE_1}" + " on the grass" * 20,
            images=(picture(100, 60), picture(40, 200, 1)),
            width=128,
            height=112,
            seed=3,
            steps=2,
        ),
        Request(id="long", prompt="a dog", width=352, height=320, seed=4, steps=2),
    ]


def test_one_outcome_per_request(engine: OmniGenEngine, mixed: list[Request]):
    outcomes = list(engine.generate(mixed))
    assert [outcome.request.id for outcome in outcomes] == [request.id for request in mixed]
    assert all(isinstance(outcome, Result) for outcome in outcomes)
    assert list(engine.generate([])) == []


def test_images_have_the_size_that_was_asked_for(engine: OmniGenEngine, mixed: list[Request]):
    sizes = {outcome.request.id: outcome.image.size for outcome in results(engine.generate(mixed))}
    assert sizes == {"text": (64, 96), "edit": (64, 80), "two": (128, 112), "long": (352, 320)}


def test_a_size_is_rounded_down_to_a_multiple_of_16(engine: OmniGenEngine):
    asked = Request(id="odd", prompt="a cat", width=79, height=9, seed=1, steps=1)
    (result,) = results(engine.generate([asked]))
    assert result.image.size == (64, 16)


def test_an_image_does_not_depend_on_the_rows_around_it(engine: OmniGenEngine, mixed: list[Request]):
    together = {outcome.request.id: pixels(outcome) for outcome in engine.generate(mixed)}
    backwards = {outcome.request.id: pixels(outcome) for outcome in engine.generate(mixed[::-1])}
    alone = {request.id: pixels(next(engine.generate([request]))) for request in mixed}
    assert together == backwards == alone


def test_an_image_does_not_depend_on_what_the_engine_remembers(tiny_model, engine: OmniGenEngine, mixed: list[Request]):
    fresh = OmniGenEngine.from_pretrained(str(tiny_model), device="cpu")
    list(engine.generate(mixed))
    assert [pixels(o) for o in fresh.generate(mixed)] == [pixels(o) for o in engine.generate(mixed)]


@pytest.mark.parametrize(
    "change",
    [
        {"seed": 9},
        {"steps": 4},
        {"prompt": f"{IMAGE_1} green"},
        {"guidance_scale": 3.0},
        {"img_guidance_scale": 1.1},
        {"negative_prompt": "red"},
        {"max_input_image_size": 32},
    ],
)
def test_every_parameter_changes_the_image(engine: OmniGenEngine, picture, change: dict):
    base = {
        "id": "row",
        "prompt": f"{IMAGE_1} blue",
        "images": (picture(64, 64),),
        "width": 64,
        "height": 64,
        "seed": 1,
        "steps": 3,
    }
    outcomes = engine.generate([Request(**base), Request(**base | change)])
    assert len({pixels(outcome) for outcome in outcomes}) == 2


def test_the_input_image_changes_the_image(engine: OmniGenEngine, picture):
    rows = [
        Request(id="row", prompt=IMAGE_1, images=(picture(64, 64, seed),), width=64, height=64, seed=1, steps=2)
        for seed in (0, 1)
    ]
    assert len({pixels(outcome) for outcome in engine.generate(rows)}) == 2


def test_a_prompt_beyond_the_model_is_that_rows_failure(engine: OmniGenEngine, mixed: list[Request]):
    endless = Request(id="endless", prompt="cat " * 10_000, width=64, height=64, seed=1, steps=1)
    outcomes = {outcome.request.id: outcome for outcome in engine.generate([mixed[0], endless, mixed[1]])}
    failure = outcomes.pop("endless")
    assert isinstance(failure, Failure)
    assert (failure.error.kind, failure.error.stage) == (ErrorKind.PROMPT_TOO_LONG, Stage.GENERATE)
    assert "8192" in failure.error.message
    assert all(isinstance(outcome, Result) for outcome in outcomes.values())


def test_placeholders_that_do_not_match_are_that_rows_failure(engine: OmniGenEngine, picture):
    row = Request(id="row", prompt="no placeholder", images=(picture(64, 64),), seed=1)
    (failure,) = engine.generate([row])
    assert isinstance(failure, Failure)
    assert failure.error.kind is ErrorKind.BAD_PLACEHOLDERS


def test_a_size_beyond_the_models_position_table_is_that_rows_failure(engine: OmniGenEngine):
    (failure,) = engine.generate([Request(id="row", prompt="a cat", width=2048, height=64, seed=1, steps=1)])
    assert isinstance(failure, Failure)
    assert failure.error.kind is ErrorKind.BAD_SIZE
    assert "2048" in failure.error.message
    assert "1024" in failure.error.message


def test_a_latent_that_is_not_finite_is_a_failure_and_no_black_image(engine: OmniGenEngine, mixed: list[Request]):
    huge = Request(id="huge", prompt="a cat", width=64, height=64, seed=1, steps=2, guidance_scale=3e38)
    failure, result = engine.generate([huge, mixed[0]])
    assert isinstance(failure, Failure)
    assert failure.error.kind is ErrorKind.NON_FINITE
    assert isinstance(result, Result)


def test_a_wave_that_does_not_fit_is_split_and_its_images_stay(engine, mixed, monkeypatch):
    """Memory that holds one row at a time: the sampler is wrapped, everything else is real."""
    expected = {outcome.request.id: pixels(outcome) for outcome in engine.generate(mixed)}
    widths = []
    whole = sampler.denoise

    def scarce(transformer, rows):
        widths.append(len(rows))
        if len(rows) > 1:
            raise torch.OutOfMemoryError("out of memory")
        whole(transformer, rows)

    monkeypatch.setattr(sampler, "denoise", scarce)
    monkeypatch.setattr(engine, "_wave_tokens", 10**9)
    assert {outcome.request.id: pixels(outcome) for outcome in engine.generate(mixed)} == expected
    assert widths == [4, 2, 1, 1, 2, 1, 1]


def test_a_row_that_does_not_fit_even_alone_is_a_failure(engine, mixed, monkeypatch):
    whole = sampler.denoise

    def scarce(transformer, rows):
        if any(row.num_tokens > 400 for row in rows):
            raise torch.OutOfMemoryError("out of memory")
        whole(transformer, rows)

    monkeypatch.setattr(sampler, "denoise", scarce)
    monkeypatch.setattr(engine, "_wave_tokens", 10**9)
    outcomes = {outcome.request.id: outcome for outcome in engine.generate(mixed)}
    failure = outcomes.pop("long")
    assert isinstance(failure, Failure)
    assert failure.error.kind is ErrorKind.OUT_OF_MEMORY
    assert "352×320" in failure.error.message
    assert len(list(results(outcomes.values()))) == 3


def test_an_error_that_is_not_about_memory_is_not_hidden(engine, mixed, monkeypatch):
    def broken(transformer, rows):
        raise RuntimeError("a bug")

    monkeypatch.setattr(sampler, "denoise", broken)
    with pytest.raises(RuntimeError, match="a bug"):
        list(engine.generate(mixed))


def test_info_names_the_weights(tiny_model, engine: OmniGenEngine):
    assert engine.info.name == str(tiny_model)
    assert len(engine.info.sha256) == 64
    assert (engine.info.device, engine.info.dtype) == ("cpu", "float32")
    assert engine.info.versions["torch"] == torch.__version__


def test_bfloat16_weights_stay_near_the_fp32_result(tiny_model, engine: OmniGenEngine, mixed: list[Request]):
    """The dtype of a GPU, on a CPU: noise, guidance and integration stay fp32, so only the weights' rounding shows."""
    rough = OmniGenEngine.from_pretrained(str(tiny_model), device="cpu", dtype="bfloat16")
    for found, expected in zip(rough.latents(mixed), engine.latents(mixed), strict=True):
        assert found.dtype == torch.float32
        assert 1e-5 < (found - expected).norm() / expected.norm() < 0.1


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_the_gpu_agrees_with_the_cpu_in_fp32(tiny_model, engine: OmniGenEngine, mixed: list[Request]):
    on_gpu = OmniGenEngine.from_pretrained(str(tiny_model), device="cuda", dtype="float32")
    for found, expected in zip(on_gpu.latents(mixed), engine.latents(mixed), strict=True):
        assert (found.cpu() - expected).norm() / expected.norm() < 1e-3


def results(outcomes) -> list[Result]:
    return [outcome for outcome in outcomes if isinstance(outcome, Result)]


def pixels(outcome: Outcome) -> str:
    assert isinstance(outcome, Result), outcome
    return hashlib.sha256(outcome.image.tobytes()).hexdigest()
