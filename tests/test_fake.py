from __future__ import annotations

import signal
import subprocess
import sys
import time

import numpy as np
import pytest
from PIL import Image

from omnigen_actor.engine_settings import EngineSettings
from omnigen_actor.engines import open_engine
from omnigen_actor.errors import EngineLost, ErrorKind
from omnigen_actor.fake import FakeEngine
from omnigen_actor.types import Failure, Request, Result


def request(**more: object) -> Request:
    values: dict[str, object] = {"id": "a", "prompt": "a cat", "seed": 7, "width": 64, "height": 48}
    return Request(**(values | more))  # type: ignore[arg-type]


def picture(asked: Request) -> Image.Image:
    (outcome,) = FakeEngine().generate([asked])
    assert isinstance(outcome, Result)
    return outcome.image


def test_same_request_gives_the_same_picture_whatever_its_id_and_batch() -> None:
    first, second = FakeEngine().generate([request(), request(id="b", sample=3)])
    assert isinstance(first, Result)
    assert isinstance(second, Result)
    assert first.image.tobytes() == second.image.tobytes() == picture(request()).tobytes()


@pytest.mark.parametrize(
    "change",
    [{"seed": 8}, {"prompt": "a dog"}, {"width": 80}, {"images": (Image.new("RGB", (32, 32), "red"),)}],
)
def test_seed_prompt_size_and_input_image_each_change_the_picture(change: dict[str, object]) -> None:
    assert picture(request()).tobytes() != picture(request(**change)).tobytes()


def test_input_pixels_matter_and_not_only_their_size() -> None:
    red, blue = (request(images=(Image.new("RGB", (32, 32), colour),)) for colour in ("red", "blue"))
    assert picture(red).tobytes() != picture(blue).tobytes()


def test_size_is_the_rounded_one_or_that_of_the_first_input_image() -> None:
    assert picture(request(width=70, height=31)).size == (64, 16)
    images = (Image.new("RGB", (48, 80)), Image.new("RGB", (16, 16)))
    assert picture(request(width=None, height=None, images=images)).size == (48, 80)


def test_picture_is_not_flat() -> None:
    assert np.asarray(picture(request())).std() > 10


def test_fail_mark_makes_a_row_error_and_the_others_go_on() -> None:
    failed, good = FakeEngine().generate([request(prompt="a [fail] cat"), request()])
    assert isinstance(failed, Failure)
    assert failed.error.kind is ErrorKind.ENGINE_FAILED
    assert "[fail]" in failed.error.message
    assert isinstance(good, Result)


def test_lost_mark_loses_the_engine_after_what_it_made_before() -> None:
    outcomes = FakeEngine().generate([request(), request(prompt="a [lost] cat")])
    assert isinstance(next(outcomes), Result)
    with pytest.raises(EngineLost, match=r"\[lost\]"):
        next(outcomes)


def with_prompt(prompt: str) -> list[str]:
    code = (
        "import sys; from omnigen_actor.fake import FakeEngine; from omnigen_actor.types import Request;"
        "rows = [Request(id='a', prompt=sys.argv[1], seed=1, width=16, height=16)];"
        "print('began', flush=True); list(FakeEngine().generate(rows)); print('ended')"
    )
    return [sys.executable, "-c", code, prompt]


def test_kill_mark_kills_the_process() -> None:
    done = subprocess.run(with_prompt("a [kill] cat"), capture_output=True, text=True, check=False, timeout=60)
    assert (done.returncode, done.stdout) == (-signal.SIGKILL, "began\n")


def test_hang_mark_never_ends() -> None:
    with subprocess.Popen(with_prompt("a [hang] cat"), stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "began\n"
        with pytest.raises(subprocess.TimeoutExpired):
            process.wait(1)
        process.kill()
        assert process.stdout.read() == ""


def test_every_row_gives_a_sign_of_life() -> None:
    steps = []
    engine = FakeEngine()
    engine.on_step = lambda: steps.append(1)
    list(engine.generate([request(), request(prompt="[fail]")]))
    assert len(steps) == 2


def test_name_can_carry_seconds_per_image() -> None:
    engine = open_engine("fake:0.05")
    started = time.perf_counter()
    outcomes = list(engine.generate([request(), request()]))
    assert time.perf_counter() - started >= 0.1
    assert all(isinstance(o, Result) and o.seconds >= 0.05 for o in outcomes)


def test_every_image_is_a_wave_and_waves_are_taken_once() -> None:
    engine = FakeEngine(seconds_per_image=0.01, settings=EngineSettings(wave_tokens=24))
    requests = [request(steps=4), request(prompt="[fail]"), request(width=32)]
    results = [outcome for outcome in engine.generate(requests) if isinstance(outcome, Result)]
    waves = engine.take_waves()
    assert [(wave.num_rows, wave.num_tokens, wave.num_steps) for wave in waves] == [(1, 12, 4), (1, 6, 50)]
    assert [wave.occupancy for wave in waves] == [0.5, 0.25]
    assert [wave.step_seconds + wave.decode_seconds for wave in waves] == pytest.approx([r.seconds for r in results])
    assert all(wave.step_seconds >= 0.01 for wave in waves)
    assert engine.take_waves() == []


def test_approximations_and_adapters_are_reported_and_change_no_picture() -> None:
    engine = FakeEngine(settings=EngineSettings(fp8=True, step_cache=0.1, adapters=("style@0.5",)))
    (outcome,) = engine.generate([request()])
    assert isinstance(outcome, Result)
    assert outcome.image.tobytes() == picture(request()).tobytes()
    assert engine.info.approximations == ("fp8", "step_cache=0.1")
    assert engine.info.adapters == ("style@0.5",)
    assert FakeEngine().info.approximations == FakeEngine().info.adapters == ()


def test_fake_and_actor_import_neither_torch_nor_ray() -> None:
    code = (
        "import sys; from omnigen_actor import actor, engines; engines.open_engine('fake');"
        "sys.exit(', '.join({'torch', 'ray'} & set(sys.modules)) or 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
