"""The GPU benchmark: its counts are those of the published table, and its dry mode measures every section."""

from __future__ import annotations

import json
import math
import subprocess
import sys
from argparse import Namespace
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from benchmarks import gpu, measure, report
from benchmarks.diffusers_baseline import Baseline, decode
from benchmarks.floors import Branches, Flops, Shape, table
from benchmarks.full_size import FULL, FULL_VAE, TINY, Model, Tokenizer, random_tensors
from benchmarks.gpu_bench import Bench, Cell, Cells, Column, Section, number
from benchmarks.gpu_exactness import MAX_PARITY_ERROR
from omnigen_actor.checkpoint.tensors import canonical_shapes
from omnigen_actor.model.prompt import DEFAULT_NEGATIVE_PROMPT, segments

ROOT = Path(__file__).parent.parent

FLOOR_TABLE = {
    "text-512": (17.6, 15.7),
    "text-1024": (75.1, 72.9),
    "1x512": (51.2, 24.4),
    "1x1024": (259.9, 122.4),
    "3x512": (111.0, 26.1),
    "3x1024": (677.0, 148.8),
}
"""TFLOP per step of diffusers' mathematics and of the engine's."""

NEEDS_A_GPU = ("varlen", "cudnn", "efficient")


@pytest.fixture(scope="module")
def model() -> Model:
    return Model.random(torch.device("cpu"), torch.float32, tiny=True)


@pytest.mark.parametrize("shape", table(512, 1024), ids=lambda shape: shape.key)
def test_the_counts_are_those_of_the_floor_table(shape: Shape):
    branches = Branches.of(shape, Tokenizer(FULL["vocab_size"]))
    flops = Flops.of(FULL)
    diffusers, engine = FLOOR_TABLE[shape.key]
    assert flops.diffusers_step(branches) / 1e12 == pytest.approx(diffusers, rel=0.03)
    assert flops.step(branches) / 1e12 == pytest.approx(engine, rel=0.03)


def test_the_prompts_are_as_long_as_real_ones():
    tokenize = Tokenizer(FULL["vocab_size"])
    assert abs(sum(len(part.ids) for part in segments(DEFAULT_NEGATIVE_PROMPT, tokenize)) - 121) <= 5
    lengths = {len(tokenize(Shape(0, 512).prompt(index))) for index in (0, 9, 10, 99_999)}
    assert lengths == {len(tokenize(Shape(0, 512).prompt(0)))}
    assert 40 <= lengths.pop() <= 60


def test_a_prefill_counts_shared_tokens_once_and_text_causally():
    flops = Flops(hidden=2, kv=2, ffn=3, num_layers=2)
    branches = Branches.of(Shape(0, 64), Tokenizer(512))
    length, steps = branches.lengths[0], 5
    assert branches.pairs(branches.full) == length * (length + 1) // 2
    pairs = length * (length + 1) // 2 + steps * (length + 1)
    linear, qkv = 2 * (4 * 2 * 2 + 3 * 2 * 3), 2 * 3 * 2 * 2
    assert flops.prefill(branches, steps) == (length + steps) * (linear + qkv) + pairs * 4 * 2

    edit = Branches.of(Shape(1, 64), Tokenizer(512))
    alone = flops.prefill(edit, steps) - flops.prefill(replace(edit, images=None), steps)
    twice = flops.prefill(replace(edit, full=edit.images, images=None), steps)
    assert edit.num_shared > edit.tokens_per_image
    assert alone < twice - edit.tokens_per_image * linear


def test_the_full_model_has_the_published_size():
    count = sum(math.prod(shape) for shape in canonical_shapes(FULL).values())
    assert count / 1e9 == pytest.approx(3.88, abs=0.02)
    assert FULL_VAE["block_out_channels"] == (128, 256, 512, 512)


def test_random_weights_keep_the_size_of_what_goes_through_them():
    config = TINY | {"num_layers": 32}
    tensors = random_tensors(config, torch.device("cpu"), torch.bfloat16)
    assert all(torch.isfinite(tensor).all() for tensor in tensors.values())
    hidden = torch.randn(64, config["hidden_size"], dtype=torch.bfloat16)
    for name in ("self_attn.to_out.0", "mlp.gate_up_proj"):
        out = torch.nn.functional.linear(hidden, tensors[f"layers.0.{name}.weight"])
        assert 0.5 < float(out.float().std()) < 2


def test_engine_and_diffusers_share_memory_and_agree(model: Model):
    module = model.diffusers(torch.float32)
    fused = model.tensors["layers.0.self_attn.qkv.weight"]
    assert module.layers[0].self_attn.to_q.weight.data_ptr() == fused.data_ptr()
    requests = [Shape(1, 64).request(1, 3)]
    baseline = Baseline(model, torch.float32)
    expected = baseline.denoise(baseline.prepare(requests, batched=False), 3)[0]
    engine = model.engine(model.settings())
    assert measure.relative_error(engine.latents(requests)[0], expected) < 1e-5
    assert set(model.tensors) == set(canonical_shapes(model.config))  # the engine took over a copy of the dictionary
    engine.close()


def test_the_prompt_and_the_images_show_in_the_latents(model: Model):
    """Else a PSNR between two engines would say nothing."""
    baseline = Baseline(model, torch.float32)
    first, second = (replace(Shape(1, 64).request(index, 2), seed=1) for index in (1, 2))
    assert first.prompt != second.prompt
    found = [baseline.denoise(baseline.prepare([request], batched=False), 2)[0] for request in (first, second)]
    assert measure.relative_error(*found) > 0.01
    pixels = [decode(model, latent) for latent in found]
    assert measure.psnr(*pixels, peak=1.0) is not None
    assert float(pixels[0].std()) > 0.01


def test_the_batched_baseline_of_equal_rows_is_that_of_one(model: Model):
    """Rows of one batch are not mixed up: each gets its own noise, in each branch."""
    baseline = Baseline(model, torch.float32)
    requests = [Shape(0, 64).request(index, 2) for index in (1, 2)]
    together = baseline.denoise(baseline.prepare(requests, batched=True), 2)
    for request, latent in zip(requests, together, strict=True):
        alone = baseline.denoise(baseline.prepare([request], batched=True), 2)[0]
        assert measure.relative_error(latent, alone) < 1e-5


def test_a_marginal_second_leaves_out_what_is_paid_once(monkeypatch: pytest.MonkeyPatch):
    costs = {"few": 10.0 + 2 * 0.5, "many": 10.0 + 6 * 0.5}
    monkeypatch.setattr(measure, "seconds", lambda run, device: costs[run()])
    runs = {6: lambda: "many", 2: lambda: "few"}
    assert measure.marginal_seconds(runs, torch.device("cpu")) == pytest.approx(0.5)
    costs["many"] = costs["few"]
    with pytest.raises(ValueError, match="too short"):
        measure.marginal_seconds(runs, torch.device("cpu"))


def test_equal_images_have_no_psnr_and_others_the_textbook_one():
    image = torch.zeros(4)
    assert measure.psnr(image, image.clone(), peak=255.0) is None
    assert measure.psnr(image, image + 25.5, peak=255.0) == pytest.approx(20.0)


def test_a_line_that_fails_is_kept_and_the_others_go_on(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    def cells(bench: Bench) -> Cells:
        yield Cell("bad", lambda: {"value": 1 / 0})
        yield Cell("good", lambda: {"value": 2.0})
        raise RuntimeError("the rest is lost")

    found = _run(tmp_path, cells)
    assert found["bad"]["error"].startswith("ZeroDivisionError")
    assert found["good"] == {"value": 2.0}
    assert found["section"]["error"] == "RuntimeError: the rest is lost"
    assert "good" in capsys.readouterr().out


def test_no_line_begins_after_the_time_is_over(tmp_path: Path):
    def cells(bench: Bench) -> Cells:
        yield Cell("late", lambda: {"value": 1.0})

    assert "not measured" in _run(tmp_path, cells, deadline=0.0)["late"]["error"]


def _run(tmp_path: Path, cells: Any, deadline: float = math.inf) -> dict[str, Any]:
    """One section through the runner, read back from its file."""
    section = Section("about", (Column("value", "value", number(1)),), cells)
    run = gpu.Run({"sections": {}}, tmp_path / "out.json", deadline)
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(gpu.SECTIONS, "planted", section)
        run.section("planted", Namespace(device=torch.device("cpu")))  # type: ignore[arg-type]
    return json.loads((tmp_path / "out.json").read_text())["sections"]["planted"]


@pytest.mark.parametrize(
    ("lines", "code"),
    [
        ({"a": {"holds": True}}, 0),
        ({"a": {"holds": True}, "b": {"holds": False}}, 1),
        ({"a": {"error": "out of memory"}}, 1),
        ({}, 1),
        (None, 0),
    ],
)
def test_the_exit_code_is_that_of_parity(lines: dict[str, Any] | None, code: int):
    assert gpu.exit_code({} if lines is None else {"parity": lines}) == code


def test_targets_take_the_best_engine_against_the_best_diffusers(capsys: pytest.CaptureFixture[str]):
    lines = {
        "text → 1024², engine, 1 row": {"of_matmul_rate": 0.66},
        "text → 1024², diffusers eager, 1 row": {"speedup": 2.0},
        "text → 1024², diffusers compiled, 1 row": {"speedup": 1.4},
    }
    found = gpu.targets(lines)
    assert found["text → 1024², engine, of_matmul_rate"]["met"]
    assert found["text → 1024², diffusers, speedup"] == {"at_least": 1.5, "measured": 1.4, "met": False}
    assert "MISSED" in capsys.readouterr().out


def test_every_target_is_about_a_row_of_the_table():
    titles = [shape.title for shape in table(*gpu.SIDES[False])]
    assert all(prefix.rpartition(", ")[0] in titles for prefix, _, _ in gpu.TARGETS)


def test_an_unknown_section_or_row_is_named(capsys: pytest.CaptureFixture[str]):
    for arguments in (["--sections", "speed"], ["--rows", "5x512"]):
        with pytest.raises(SystemExit):
            gpu.parse_options(arguments)
        assert arguments[1] in capsys.readouterr().err


def test_a_result_file_says_what_made_it(tmp_path: Path):
    report.write(tmp_path / "a" / "out.json", {"value": 1})
    found = json.loads((tmp_path / "a" / "out.json").read_text())
    assert found["value"] == 1
    assert found["cpu"]
    assert found["versions"]["torch"]


@pytest.mark.slow
def test_the_dry_mode_measures_every_section(tmp_path: Path):
    output = tmp_path / "dry.json"
    command = [sys.executable, "-m", "benchmarks.gpu", "--dry", "--output", str(output)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    sections = json.loads(output.read_text())["sections"]
    assert list(sections) == list(gpu.ORDER)
    failed = {
        f"{section}: {name}": values["error"]
        for section, lines in sections.items()
        for name, values in lines.items()
        if "error" in values and not (section == "attention" and name.endswith(NEEDS_A_GPU))
    }
    assert failed == {}
    _check_shapes(sections["shapes"])
    assert {name.partition(", ")[2] for name in sections["approximations"]} == {
        "exact",
        "fp8",
        "guidance_interval=0.1-0.9",
        "step_cache=0.1",
    }
    assert all(values["relative_error"] < 1e-5 < MAX_PARITY_ERROR for values in sections["parity"].values())
    assert sections["waves"]["a row of them alone, rows_per_wave=1"]["equal"]
    assert sections["waves"]["8 rows in full waves"]["rows_per_wave"] > 1
    assert len(sections["memory"]) == 4
    assert sections["attention"]["text → 96², math"]["seconds_per_step"] > 0


def _check_shapes(lines: dict[str, Any]) -> None:
    for shape in table(*gpu.SIDES[True]):
        mine = {name: values for name, values in lines.items() if name.startswith(shape.title + ",")}
        assert {name.split(", ")[1] for name in mine} == {"engine", "diffusers eager", "diffusers compiled"}
        for name, values in mine.items():
            assert values["seconds_per_image"] > values["seconds_per_step"] > 0
            assert 0 < values["of_matmul_rate"] < 2
            assert ("of_floor" in values) == ("engine" in name)
            assert ("speedup" in values) == ("diffusers" in name)
