"""benchmarks/approximations.py: equal rows, figures that mean what the table says, lines that do not hide a failure."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path

import pytest
from PIL import Image

from benchmarks import approximations as benchmark
from omnigen_actor.engine_settings import EngineSettings
from omnigen_actor.errors import RowError
from omnigen_actor.fake import FAIL_MARK, FakeEngine

GREY = Image.new("RGB", (16, 16), (100, 100, 100))


def test_psnr_of_one_level_everywhere_is_48_decibels():
    brighter = Image.new("RGB", (16, 16), (101, 101, 101))
    assert benchmark.psnr(brighter, GREY) == benchmark.psnr(GREY, brighter) == pytest.approx(48.13, abs=0.01)


def test_psnr_falls_by_20_decibels_where_the_error_is_ten_times_larger():
    near, far = (Image.new("RGB", (16, 16), (100 + error,) * 3) for error in (1, 10))
    assert benchmark.psnr(near, GREY) - benchmark.psnr(far, GREY) == pytest.approx(20)


def test_psnr_of_identical_images_is_infinite():
    assert benchmark.psnr(GREY, GREY.copy()) == math.inf


def test_images_of_different_sizes_are_not_compared():
    with pytest.raises(ValueError, match=r"\(16, 32\).*\(16, 16\)"):
        benchmark.psnr(Image.new("RGB", (16, 32)), GREY)


def test_rows_are_of_both_kinds_and_differ_in_seed():
    found = benchmark.rows(2, side=64, steps=3)
    assert [len(row.images) for row in found] == [0, 0, 1, 1]
    assert len({row.seed for row in found}) == len({row.id for row in found}) == 4
    assert {(row.width, row.height, row.steps, row.max_input_image_size) for row in found} == {(64, 64, 3, 64)}


def test_the_examples_have_as_many_rows_as_the_command_line_allows():
    assert len(benchmark.rows(4, side=64, steps=1)) == 8


def test_every_line_but_the_first_is_an_approximation_of_its_own():
    control, *others = (EngineSettings(**change) for change in benchmark.approximations([0.05, 0.1]))
    assert control.approximations == ()
    names = [settings.approximations for settings in others]
    assert all(names)
    assert len(set(names)) == len(names)
    assert {("fp8",), ("guidance_interval=0.1-0.9",), ("step_cache=0.1",)} <= set(names)


def test_without_a_threshold_the_others_are_still_measured():
    assert not any("step_cache" in change for change in benchmark.approximations([]))


def test_a_run_keeps_the_rows_order_and_counts_its_own_waves_only():
    requests = benchmark.rows(1, side=64, steps=3)
    engine = FakeEngine()
    list(engine.generate(requests))
    found = benchmark.run(engine, requests)
    assert found.num_tokens == 2 * 16 * 3
    backwards = benchmark.run(engine, requests[::-1])
    assert [image.tobytes() for image in backwards.images] == [image.tobytes() for image in found.images[::-1]]


def test_a_row_that_fails_stops_the_run():
    requests = benchmark.rows(1, side=64, steps=1)
    with pytest.raises(RowError, match="fails as asked"):
        benchmark.run(FakeEngine(), [replace(requests[0], prompt=FAIL_MARK), requests[1]])


def test_what_cannot_run_is_a_line_that_says_why(capsys):
    benchmark.print_line({"approximation": "fp8", "error": "fp8 needs compute capability 8.9"})
    assert capsys.readouterr().out.split() == ["fp8", "fp8", "needs", "compute", "capability", "8.9"]


def test_emulated_fp8_claims_no_time(capsys):
    line = {"approximation": "fp8", "emulated": True, "psnr_min": 30.04, "psnr_median": None, "saved": 0.25}
    benchmark.print_line(line | {"ratio": {"min": 1.0, "median": 2.0, "max": 3.0}})
    assert capsys.readouterr().out.split() == ["fp8", "30.0", "dB", "identical", "emulated", "25%"]


def test_a_saving_that_the_waves_do_not_tell_is_no_saving_of_0(capsys):
    line = {"approximation": "step_cache=0.1", "emulated": False, "psnr_min": 20.0, "psnr_median": 21.0, "saved": None}
    benchmark.print_line(line | {"ratio": {"min": 1.0, "median": 2.0, "max": 3.0}})
    assert capsys.readouterr().out.split()[-3:] == ["2.00", "(1.00–3.00)", "–"]


def test_the_whole_benchmark_runs(tiny_model: Path, tmp_path: Path, monkeypatch, capsys):
    output = tmp_path / "result.json"
    words = f"approximations --model {tiny_model} --device cpu --side 32 --steps 6 --rows 1 --rounds 1 --step-cache 9"
    monkeypatch.setattr("sys.argv", [*words.split(), "--output", str(output)])
    benchmark.main()
    result = json.loads(output.read_text(encoding="utf-8"))
    lines = {line["approximation"]: line for line in result["approximations"]}
    assert not any("error" in line for line in lines.values())
    control = lines.pop("none: a second exact engine")
    assert (control["psnr_min"], control["saved"]) == (None, 0)
    assert all(line["psnr_min"] is not None for line in lines.values())
    assert lines["fp8"]["emulated"]
    assert lines["guidance_interval=0.2-0.8"]["saved"] > 0
    assert lines["step_cache=9"]["saved"] is None
    assert "guidance_interval=0.2-0.8" in capsys.readouterr().out
