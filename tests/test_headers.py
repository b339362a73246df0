"""A safetensors file whose header does not tell of exactly its bytes is refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from omnigen_actor.checkpoint.headers import read_header
from omnigen_actor.errors import ModelError

WHOLE = {"a": {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}}


def write(path: Path, header: Any, num_bytes: int = 8) -> Path:
    raw = json.dumps(header).encode()
    path.write_bytes(len(raw).to_bytes(8, "little") + raw + bytes(num_bytes))
    return path


def test_tensors_come_in_the_order_of_their_bytes(tmp_path: Path):
    path = tmp_path / "x.safetensors"
    tensors = {"b": torch.ones(2, 3), "a": torch.ones(5, dtype=torch.bfloat16), "c": torch.ones(1)}
    save_file(tensors, path, metadata={"format": "pt"})
    header = read_header("model", path)
    assert {entry.name: entry.shape for entry in header.tensors} == {"a": (5,), "b": (2, 3), "c": (1,)}
    content, start = path.read_bytes(), len(header.raw)
    assert content[:start] == header.raw
    for entry in header.tensors:
        data = torch.frombuffer(bytearray(content[start : start + entry.num_bytes]), dtype=tensors[entry.name].dtype)
        assert torch.equal(data.reshape(entry.shape), tensors[entry.name])
        start += entry.num_bytes
    assert start == len(content)


def test_a_whole_file_passes(tmp_path: Path):
    assert len(read_header("model", write(tmp_path / "x", WHOLE)).tensors) == 1


@pytest.mark.parametrize(
    "header",
    [
        {"a": WHOLE["a"] | {"data_offsets": [4, 8]}},
        {"a": WHOLE["a"] | {"data_offsets": [0, 4]}},
        {"a": WHOLE["a"] | {"shape": [3]}},
        {"a": WHOLE["a"], "b": WHOLE["a"]},
        {"a": {"dtype": "F32", "shape": [2]}},
        {"a": 1},
        [],
        "text",
        {},
    ],
)
def test_a_header_that_does_not_fit_its_bytes_is_refused(tmp_path: Path, header: Any):
    with pytest.raises(ModelError, match=r"model 'm': .*/x\.safetensors"):
        read_header("model 'm'", write(tmp_path / "x.safetensors", header))


@pytest.mark.parametrize("num_bytes", [0, 7, 9])
def test_a_file_with_too_few_or_too_many_bytes_is_refused(tmp_path: Path, num_bytes: int):
    with pytest.raises(ModelError, match="bytes"):
        read_header("model", write(tmp_path / "x", WHOLE, num_bytes))


def test_a_dtype_that_is_no_plain_weight_is_named(tmp_path: Path):
    header = {"layers.0.w": {"dtype": "F8_E4M3", "shape": [8], "data_offsets": [0, 8]}}
    with pytest.raises(ModelError, match=r"layers\.0\.w .*F8_E4M3"):
        read_header("model", write(tmp_path / "x", header))
