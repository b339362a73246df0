"""The tiny random checkpoint, written once a session, and the engine and the reference loaded from it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
from PIL import Image

if TYPE_CHECKING:
    from omnigen_actor.engine import OmniGenEngine
    from tests.reference import Reference


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the tiny checkpoint."""
    from omnigen_actor.checkpoint.tiny import write_tiny_checkpoint

    folder = tmp_path_factory.mktemp("models") / "tiny"
    write_tiny_checkpoint(folder)
    return folder


@pytest.fixture(scope="session")
def engine(tiny_model: Path) -> OmniGenEngine:
    """The engine on the CPU in fp32."""
    from omnigen_actor.engine import OmniGenEngine
    from omnigen_actor.engine_settings import EngineSettings

    return OmniGenEngine.from_pretrained(str(tiny_model), EngineSettings(device="cpu"))


@pytest.fixture(scope="session")
def reference(tiny_model: Path) -> Reference:
    """The slow, obvious implementation over the same files."""
    from tests.reference import Reference

    return Reference(tiny_model)


@pytest.fixture(scope="session")
def picture() -> Callable[..., Image.Image]:
    """picture(width, height, seed=0) -> an RGB image of smooth random colours."""

    def make(width: int, height: int, seed: int = 0) -> Image.Image:
        small = np.random.default_rng(seed).integers(0, 256, (5, 7, 3), dtype=np.uint8)
        return Image.fromarray(small).resize((width, height), Image.Resampling.BICUBIC)

    return make
