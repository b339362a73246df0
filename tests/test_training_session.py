"""A session writes what it trained in the precision that was asked for."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from omnigen_actor.checkpoint.opening import open_checkpoint
from omnigen_actor.training.session import Session, SessionSpec, stored_dtype
from omnigen_actor.training.trainer import FlowRecipe

WEIGHTS = "transformer/diffusion_pytorch_model.safetensors"


@pytest.mark.parametrize(
    ("asked", "expected"), [("auto", torch.float32), ("float16", torch.float16), ("bfloat16", torch.bfloat16)]
)
def test_the_result_has_the_dtype_that_was_asked_for(
    tiny_model: Path, tmp_path: Path, asked: str, expected: torch.dtype
) -> None:
    assert stored_dtype(open_checkpoint(str(tiny_model))) == torch.float32
    recipe = FlowRecipe(num_steps=1)
    Session(SessionSpec(model=str(tiny_model), recipe=recipe, result_dtype=asked)).write_result(tmp_path)
    written, before = load_file(tmp_path / WEIGHTS), load_file(tiny_model / WEIGHTS)
    assert {tensor.dtype for tensor in written.values()} == {expected}
    assert all(torch.equal(written[name], tensor.to(expected)) for name, tensor in before.items())
    assert stored_dtype(open_checkpoint(str(tmp_path))) == expected
