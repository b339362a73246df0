"""OmniGenEngine: one outcome per request, an image that is its row's alone, failures that stay with their row."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence

import pytest
import torch

from omnigen_actor.engine import OmniGenEngine
from omnigen_actor.engine_settings import EngineSettings
from omnigen_actor.errors import ErrorKind, Stage
from omnigen_actor.model.pack import Pack
from omnigen_actor.model.sampler import Row
from omnigen_actor.model.vae import Vae
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
    fresh = OmniGenEngine.from_pretrained(str(tiny_model), EngineSettings(device="cpu"))
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


@pytest.fixture
def roomy(tiny_model) -> OmniGenEngine:
    """An engine whose waves hold many rows."""
    return OmniGenEngine.from_pretrained(str(tiny_model), EngineSettings(device="cpu", rows_per_wave=8))


def scarce(monkeypatch, fits: Callable[[Sequence[Row]], bool]) -> list[int]:
    """Memory that is too small for some waves; everything else is real. Returns the rows of each wave as they come."""
    widths: list[int] = []
    step = Pack.step

    def scarce_step(pack: Pack) -> None:
        rows = pack._rows
        if not fits(rows):
            widths.append(len(rows))
            raise torch.OutOfMemoryError("out of memory")
        step(pack)

    monkeypatch.setattr(Pack, "step", scarce_step)
    return widths


def test_a_wave_that_does_not_fit_is_split_and_every_row_ends(roomy, mixed, monkeypatch):
    expected = [pixels(outcome) for outcome in roomy.generate(mixed[:1])]
    widths = scarce(monkeypatch, lambda rows: len(rows) == 1)
    outcomes = {outcome.request.id: outcome for outcome in results(roomy.generate(mixed))}
    assert outcomes.keys() == {request.id for request in mixed}
    assert widths[0] == 4
    assert widths == sorted(widths, reverse=True)
    assert pixels(outcomes["text"]) == expected[0]  # alone in its waves after all


def test_the_budget_stays_small_once_a_wave_did_not_fit(roomy, mixed, monkeypatch):
    widths = scarce(monkeypatch, lambda rows: sum(row.num_tokens for row in rows) < 500)
    assert len(results(roomy.generate(mixed))) == 4
    seen = len(widths)
    assert seen > 0
    assert len(results(roomy.generate(mixed))) == 4
    assert len(widths) == seen


def test_a_row_keeps_its_steps_when_its_wave_is_split(roomy, mixed, monkeypatch):
    """Memory runs short in the middle: the images are those of an undisturbed engine, up to rounding."""
    expected = roomy.latents(mixed)
    scarce(monkeypatch, lambda rows: len(rows) < 3 or all(row.step == 0 for row in rows))
    for found, row in zip(roomy.latents(mixed), expected, strict=True):
        assert (found - row).norm() / row.norm() < 1e-5


def test_a_row_that_does_not_fit_even_alone_is_a_failure(roomy, mixed, monkeypatch):
    scarce(monkeypatch, lambda rows: all(row.num_tokens < 400 for row in rows))
    outcomes = {outcome.request.id: outcome for outcome in roomy.generate(mixed)}
    failure = outcomes.pop("long")
    assert isinstance(failure, Failure)
    assert failure.error.kind is ErrorKind.OUT_OF_MEMORY
    assert "352×320" in failure.error.message
    assert len(list(results(outcomes.values()))) == 3


def test_an_image_that_can_not_be_decoded_for_memory_is_tried_again_and_then_a_failure(engine, mixed, monkeypatch):
    tries: list[int] = []
    decode = Vae.decode

    def scarce_decode(vae: Vae, latent: torch.Tensor) -> torch.Tensor:
        tries.append(latent.shape[-1])
        if latent.shape[-1] == 352 // 8 or len(tries) == 1:
            raise torch.OutOfMemoryError("out of memory")
        return decode(vae, latent)

    monkeypatch.setattr(Vae, "decode", scarce_decode)
    outcomes = {outcome.request.id: outcome for outcome in engine.generate(mixed)}
    assert isinstance(outcomes["text"], Result)
    failure = outcomes["long"]
    assert isinstance(failure, Failure)
    assert failure.error.kind is ErrorKind.OUT_OF_MEMORY


def test_an_error_that_is_not_about_memory_is_not_hidden(engine, mixed, monkeypatch):
    def broken(pack):
        raise RuntimeError("a bug")

    with monkeypatch.context() as patched:
        patched.setattr(Pack, "step", broken)
        with pytest.raises(RuntimeError, match="a bug"):
            list(engine.generate(mixed))
    assert len(results(engine.generate(mixed))) == 4  # and leaves nothing behind


def test_info_names_the_weights(tiny_model, engine: OmniGenEngine):
    assert engine.info.name == str(tiny_model)
    assert len(engine.info.sha256) == 64
    assert (engine.info.device, engine.info.dtype) == ("cpu", "float32")
    assert engine.info.versions["torch"] == torch.__version__


def test_bfloat16_weights_stay_near_the_fp32_result(tiny_model, engine: OmniGenEngine, mixed: list[Request]):
    """The dtype of a GPU, on a CPU: noise, guidance and integration stay fp32, so only the weights' rounding shows."""
    rough = OmniGenEngine.from_pretrained(str(tiny_model), EngineSettings(device="cpu", dtype="bfloat16"))
    for found, expected in zip(rough.latents(mixed), engine.latents(mixed), strict=True):
        assert found.dtype == torch.float32
        assert 1e-5 < (found - expected).norm() / expected.norm() < 0.1


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_the_gpu_agrees_with_the_cpu_in_fp32(tiny_model, engine: OmniGenEngine, mixed: list[Request]):
    on_gpu = OmniGenEngine.from_pretrained(str(tiny_model), EngineSettings(device="cuda", dtype="float32"))
    for found, expected in zip(on_gpu.latents(mixed), engine.latents(mixed), strict=True):
        assert (found.cpu() - expected).norm() / expected.norm() < 1e-3


def results(outcomes) -> list[Result]:
    return [outcome for outcome in outcomes if isinstance(outcome, Result)]


def pixels(outcome: Outcome) -> str:
    assert isinstance(outcome, Result), outcome
    return hashlib.sha256(outcome.image.tobytes()).hexdigest()
