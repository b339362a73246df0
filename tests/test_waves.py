"""Waves: who steps with whom, what they share, what they took; and that none of it shows in an image."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from PIL.Image import Image

from omnigen_actor.engine import OmniGenEngine
from omnigen_actor.engine_settings import EngineSettings
from omnigen_actor.errors import EngineLost
from omnigen_actor.model.pack import Pack
from omnigen_actor.model.vae import Vae
from omnigen_actor.model.waves import check_device
from omnigen_actor.types import Request, Result

IMAGE_1 = "<img><|image_1|></img>"
Picture = Callable[..., Image]


def text(name: str, steps: int = 2, side: int = 64, **changes) -> Request:
    return Request(id=name, prompt="a cat", width=side, height=side, seed=1, steps=steps, **changes)


def open_engine(tiny_model, **settings) -> OmniGenEngine:
    return OmniGenEngine.from_pretrained(str(tiny_model), EngineSettings(device="cpu", **settings))


@pytest.fixture
def packs(monkeypatch) -> list[list[tuple[int, int]]]:
    """The (tokens, step) of each row of each step, as they happen."""
    seen: list[list[tuple[int, int]]] = []
    step = Pack.step

    def spy(pack: Pack) -> None:
        seen.append([(row.num_tokens, row.step) for row in pack._rows])
        step(pack)

    monkeypatch.setattr(Pack, "step", spy)
    return seen


def test_a_row_that_is_done_makes_room_for_another(tiny_model, packs):
    engine = open_engine(tiny_model, rows_per_wave=2)
    rows = [text("long", 4, 64), text("short", 1, 48), text("next", 2, 80), text("last", 1, 32)]
    assert {outcome.request.id for outcome in engine.generate(rows)} == {"long", "short", "next", "last"}
    long, short, following, last = (16, 9, 25, 4)
    assert packs == [
        [(long, 0), (short, 0)],
        [(long, 1), (following, 0)],
        [(long, 2), (following, 1)],
        [(long, 3), (last, 0)],
    ]


def test_the_budget_of_tokens_bounds_a_wave(tiny_model, packs):
    engine = open_engine(tiny_model, rows_per_wave=100, wave_tokens=100)
    list(engine.generate([text(str(index), 1) for index in range(7)]))  # 2 branches of 16 tokens each
    assert [len(rows) for rows in packs] == [3, 3, 1]


def test_a_row_larger_than_the_budget_runs_alone(tiny_model, packs):
    engine = open_engine(tiny_model, rows_per_wave=100, wave_tokens=100)
    outcomes = list(engine.generate([text("small", 1), text("large", 1, 256), text("other", 1)]))
    assert all(isinstance(outcome, Result) for outcome in outcomes)
    assert [[tokens for tokens, _ in rows] for rows in packs] == [[16, 16], [256]]


def test_a_wave_on_a_cpu_is_one_row_by_default(tiny_model, packs):
    list(open_engine(tiny_model).generate([text("a"), text("b")]))
    assert {len(rows) for rows in packs} == {1}


def test_an_abandoned_call_leaves_nothing_to_the_next(tiny_model):
    engine = open_engine(tiny_model, rows_per_wave=2)
    next(engine.generate([text("a", 1), text("b", 5), text("c", 5)]))
    assert [outcome.request.id for outcome in engine.generate([text("d")])] == ["d"]


def test_waves_tell_what_they_took(tiny_model, picture: Picture):
    engine = open_engine(tiny_model, rows_per_wave=2)
    edit = Request(id="edit", prompt=f"{IMAGE_1} blue", images=(picture(64, 64),), seed=1, steps=3)
    outcomes = list(engine.generate([text("text", 5), edit]))
    first, second = engine.take_waves()
    assert (first.num_rows, first.num_branches, first.num_tokens, first.num_steps) == (2, 5, 5 * 16, 3)
    assert (second.num_rows, second.num_branches, second.num_tokens, second.num_steps) == (1, 2, 2 * 16, 2)
    assert (first.capacity, first.occupancy) == (80, 1.0)  # all the rows that it may have
    assert (second.capacity, second.occupancy) == (8192, 32 / 8192)
    assert first.num_prefill_tokens > 16
    assert second.num_prefill_tokens == 0
    assert min(first.encode_seconds, first.prefill_seconds, first.step_seconds, first.decode_seconds) > 0
    assert second.encode_seconds == second.prefill_seconds == 0
    assert engine.take_waves() == []
    took = sum(w.encode_seconds + w.prefill_seconds + w.step_seconds + w.decode_seconds for w in (first, second))
    assert sum(o.seconds for o in outcomes if isinstance(o, Result)) == pytest.approx(took, rel=0.1, abs=0.01)


def test_one_image_is_encoded_once_whichever_rows_use_it(tiny_model, picture: Picture, monkeypatch):
    encoded: list[tuple[int, int]] = []
    encode = Vae.encode

    def spy(vae: Vae, image: Image) -> torch.Tensor:
        encoded.append(image.size)
        return encode(vae, image)

    monkeypatch.setattr(Vae, "encode", spy)
    rows = [
        Request(id=f"{word}-{n}", prompt=f"{IMAGE_1} {word}", images=(picture(64, 80, n),), seed=1, steps=1)
        for n in (0, 1)
        for word in ("blue", "green", "red")
    ]
    list(open_engine(tiny_model).generate(rows))
    assert encoded == [(64, 80), (64, 80)]


def prefilled(engine: OmniGenEngine, *requests: Request) -> list[int]:
    """Tokens prefilled for each of the requests, one after the other; the negative prompt's apart."""
    engine.latents([text("warm", requests[0].steps)])
    engine.take_waves()
    counts = []
    for request in requests:
        engine.latents([request])
        counts.append(sum(wave.num_prefill_tokens for wave in engine.take_waves()))
    return counts


def test_the_negative_prompt_is_computed_once(tiny_model):
    """Three prompts of equal length: the first pays for the negative prompt, which is longer than they are."""
    engine = open_engine(tiny_model)
    row = {"width": 64, "height": 64, "seed": 1, "steps": 2}
    counts = []
    for word in ("one", "two", "six"):
        engine.latents([Request(id=word, prompt=f"a cat {word}", **row)])
        counts.append(sum(wave.num_prefill_tokens for wave in engine.take_waves()))
    assert counts[0] > counts[1] + 100
    assert abs(counts[1] - counts[2]) < 5


def test_samples_of_a_row_share_its_condition(tiny_model):
    row = {"prompt": "a red cat on the roof", "width": 64, "height": 64, "steps": 2}
    first, second = prefilled(
        open_engine(tiny_model), Request(id="a", seed=1, **row), Request(id="a", sample=1, seed=2, **row)
    )
    assert first > 0
    assert second == 0


def test_the_images_are_prefilled_once_for_both_branches_that_begin_with_them(tiny_model, picture: Picture):
    base = {"images": (picture(128, 128),), "width": 64, "height": 64, "seed": 1, "steps": 2}
    (begins,) = prefilled(open_engine(tiny_model), Request(id="begins", prompt=f"{IMAGE_1} make it blue", **base))
    (ends,) = prefilled(open_engine(tiny_model), Request(id="ends", prompt=f"make it blue {IMAGE_1}", **base))
    assert ends - begins > 64  # the image has 64 tokens


def test_further_edits_of_an_image_prefill_only_what_differs(tiny_model, picture: Picture):
    base = {"images": (picture(128, 128),), "width": 64, "height": 64, "seed": 1, "steps": 2}
    first, second = prefilled(
        open_engine(tiny_model),
        Request(id="a", prompt=f"{IMAGE_1} make it blue", **base),
        Request(id="b", prompt=f"{IMAGE_1} make it green", **base),
    )
    assert second < first - 64


def test_what_is_shared_does_not_change_an_image(tiny_model, picture: Picture):
    """The same row alone in a fresh engine, after others that share with it, and after one that shares otherwise."""
    images = (picture(64, 64),)
    row = Request(id="row", prompt=f"{IMAGE_1} blue", images=images, seed=1, steps=2)
    unguided = Request(id="x", prompt=f"{IMAGE_1} blue", images=images, seed=2, steps=2, guidance_scale=1.6)
    other = Request(id="y", prompt=f"{IMAGE_1} blue or green", images=images, seed=3, steps=2)
    expected = open_engine(tiny_model).latents([row])[0]
    for before in ([unguided], [other], [other, unguided, row]):
        engine = open_engine(tiny_model)
        engine.generate(before)
        for request in before:
            engine.latents([request])
        assert torch.equal(engine.latents([row])[0], expected)


def test_a_scale_of_1_drops_the_negative_branch(tiny_model, picture: Picture):
    engine = open_engine(tiny_model)
    image = {"prompt": IMAGE_1, "images": (picture(64, 64),), "seed": 1, "steps": 1}
    engine.latents([text("text", guidance_scale=1.0)])
    engine.latents([Request(id="no negative", img_guidance_scale=1.0, **image)])
    engine.latents([Request(id="no images-only", guidance_scale=1.6, img_guidance_scale=1.6, **image)])
    engine.latents([Request(id="full alone", guidance_scale=1.0, img_guidance_scale=1.0, **image)])
    assert [wave.num_branches for wave in engine.take_waves()] == [1, 2, 2, 1]


def test_every_step_and_every_row_that_enters_is_a_sign_of_life(tiny_model, packs):
    engine = open_engine(tiny_model, rows_per_wave=2)
    told = []
    engine.on_step = lambda: told.append(len(packs))
    list(engine.generate([text("a", 2), text("b", 3)]))
    assert told == [0, 0, 1, 2, 3]


HINT = (
    "\nCUDA kernel errors might be asynchronously reported at some other API call, so the stacktrace below might be "
    "incorrect.\nCompile with `TORCH_USE_CUDA_DSA` to enable device-side assertions.\n"
)
"""What torch adds to each CUDA error."""


@pytest.mark.parametrize(
    "message",
    [
        "CUDA error: an illegal memory access was encountered",
        "CUDA error: device-side assert triggered",
        "CUDA error: unspecified launch failure",
        "CUDA error: uncorrectable ECC error encountered",
        "CUDA error: misaligned address",
        "CUDA error: an illegal instruction was encountered",
        "CUDA error: the launch timed out and was terminated",
        "CUDA error: Invalid access of peer GPU memory over nvlink or a hardware error",
        "CUDA driver error: an illegal memory access was encountered",
        "HIP error: an illegal memory access was encountered",
        "Triton Error [CUDA]: an illegal memory access was encountered",
        "CUDA error: CUBLAS_STATUS_EXECUTION_FAILED when calling `cublasGemmEx(handle)`",
        "cuDNN error: CUDNN_STATUS_EXECUTION_FAILED",
    ],
)
@pytest.mark.parametrize("kind", [RuntimeError, torch.AcceleratorError])
def test_an_error_that_breaks_the_device_for_the_process_loses_the_engine(kind, message):
    with pytest.raises(EngineLost, match="the device is lost") as lost:
        check_device(kind(message + HINT))
    assert "\n" not in str(lost.value)
    assert isinstance(lost.value.__cause__, kind)


@pytest.mark.parametrize(
    "error",
    [
        RuntimeError("CUDA error: out of memory" + HINT),
        RuntimeError("CUDA error: invalid argument" + HINT),
        RuntimeError("CUDA error: no kernel image is available for execution on the device" + HINT),
        RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20 GiB"),
        RuntimeError("DefaultCPUAllocator: can't allocate memory"),
        RuntimeError("mat1 and mat2 shapes cannot be multiplied"),
    ],
)
def test_other_errors_leave_the_engine_as_it_is(error):
    assert check_device(error) is None


def test_an_engine_whose_device_breaks_says_so_and_any_other_error_stays_itself(tiny_model, monkeypatch):
    for message, kind in (("CUDA error: device-side assert triggered", EngineLost), ("a bug", RuntimeError)):

        def fail(_: Pack, message: str = message) -> None:
            raise RuntimeError(message)

        monkeypatch.setattr(Pack, "step", fail)
        with pytest.raises(kind, match=message):
            list(open_engine(tiny_model).generate([text("a", 1)]))
