"""Which engine a name means, and that every node has the weights that the driver verified."""

from __future__ import annotations

import pickle
import socket
from dataclasses import replace
from pathlib import Path

import pytest

from omnigen_actor.engine_settings import EngineSettings
from omnigen_actor.engines import EngineSpec, open_engine, verify_model
from omnigen_actor.errors import ModelError
from omnigen_actor.fake import FakeEngine

STRANGER = f"{__name__}:Stranger"


class Stranger(FakeEngine):
    """Someone else's engine: it takes these three arguments and no other."""

    def __init__(self, *, device: str, dtype: str, cpu_threads: int) -> None:
        super().__init__()
        self.asked = (device, dtype, cpu_threads)
        self.info = replace(self.info, name="stranger", sha256="its own")


def test_fake_is_recognised_by_its_identity_without_being_opened() -> None:
    settings = EngineSettings(adapters=("a",))
    engine = EngineSpec(model="fake", settings=settings)()
    assert verify_model("fake") == verify_model("fake:0.5") == verify_model("fake", ("a",)) == engine.info.sha256


def test_anyones_class_is_an_engine() -> None:
    engine = open_engine(STRANGER, EngineSettings(device="cpu", dtype="float32", cpu_threads=2, fp8=True))
    assert isinstance(engine, Stranger)
    assert engine.asked == ("cpu", "float32", 2)
    assert verify_model(STRANGER) != verify_model("fake")


@pytest.mark.parametrize("model", ["no_such_module:Engine", f"{__name__}:NoSuchEngine"])
def test_unknown_class_is_a_model_error_that_names_it(model: str) -> None:
    with pytest.raises(ModelError, match=f"no such engine: '{model}'"):
        verify_model(model)


def test_a_node_with_other_weights_is_refused_naming_both_and_the_node() -> None:
    with pytest.raises(ModelError) as caught:
        EngineSpec(model="fake", expected_sha256="abc")()
    message = str(caught.value)
    assert "\n" not in message
    for part in ("'fake'", "abc", verify_model("fake"), socket.gethostname()):
        assert part in message


@pytest.mark.parametrize("model", ["fake", "fake:0.01", STRANGER])
def test_an_engine_with_the_verified_weights_opens_wherever_the_spec_travels(model: str) -> None:
    spec = EngineSpec(model=model, settings=EngineSettings(cpu_threads=2), expected_sha256=verify_model(model))
    assert pickle.loads(pickle.dumps(spec)) == spec
    spec().close()


def test_adapters_are_verified_with_the_checkpoint(tiny_model: Path) -> None:
    assert verify_model(str(tiny_model)) == verify_model(str(tiny_model), ())
    with pytest.raises(ModelError, match="no-such-adapter"):
        verify_model(str(tiny_model), (str(tiny_model / "no-such-adapter"),))
