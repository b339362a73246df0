from __future__ import annotations

from pathlib import Path

import pytest

from jobs.options import build_parser, option_name, parse
from omnigen_actor.errors import ConfigError
from pipelines.config import GenerationConfig, RunConfig
from pipelines.settings import SETTINGS

SURFACE = [
    "--batch-size",
    "--config",
    "--cpu-threads",
    "--device",
    "--dtype",
    "--fetch-retries",
    "--fetch-threads",
    "--fetch-timeout-s",
    "--gpus-per-actor",
    "--guidance-scale",
    "--height",
    "--help",
    "--image-format",
    "--img-guidance-scale",
    "--max-failed",
    "--max-image-bytes",
    "--max-image-pixels",
    "--max-input-image-size",
    "--model",
    "--no-retry-failed",
    "--num-actors",
    "--num-samples",
    "--progress-every-s",
    "--ray-address",
    "--retry-failed",
    "--seed",
    "--steps",
    "--width",
    "-h",
]
"""The command line that people's scripts rely on. A removed name breaks them: it needs a line in the changelog."""


def config_of(*argv: str) -> RunConfig:
    return parse(["rows.jsonl", "out", *argv], prog="generate").config


def refusal(*argv: str) -> str:
    with pytest.raises(ConfigError) as caught:
        parse(list(argv), prog="generate")
    message = str(caught.value)
    assert "\n" not in message
    return message


def test_the_command_line_is_the_pinned_one() -> None:
    assert sorted(build_parser("generate")._option_string_actions) == SURFACE


def test_no_options_give_the_defaults() -> None:
    arguments = parse(["rows.jsonl", "out"], prog="generate")
    assert (arguments.manifest, arguments.output, arguments.config) == ("rows.jsonl", "out", RunConfig())


def test_options_reach_their_section_with_their_type() -> None:
    config = config_of("--steps", "7", "--guidance-scale=3", "--model", "fake", "--retry-failed", "--max-failed", "2.5")
    assert config == RunConfig(
        model="fake",
        generation=GenerationConfig(steps=7, guidance_scale=3.0),
        retry_failed=True,
        max_failed=2.5,
    )
    assert isinstance(config.generation.guidance_scale, float)


def test_options_may_stand_before_the_arguments() -> None:
    assert parse(["--steps", "7", "rows.jsonl", "--seed", "1", "out"], prog="generate").config.generation.steps == 7


def test_an_option_wins_over_the_file_and_the_file_over_the_default(tmp_path: Path) -> None:
    file = tmp_path / "run.yaml"
    file.write_text("retry_failed: true\ngeneration:\n  steps: 5\n  width: 64\nworkers:\n  num_actors: 4\n")
    config = config_of("--config", str(file), "--steps", "6", "--no-retry-failed", "--num-actors", "none")
    assert config.generation.steps == 6
    assert config.generation.width == 64
    assert config.generation.height == RunConfig().generation.height
    assert config.retry_failed is False
    assert config.workers.num_actors is None


@pytest.mark.parametrize(
    ("argv", "parts"),
    [
        (["rows.jsonl", "out", "--stepz", "5"], ["--stepz", "--steps"]),
        (["--stepz=5"], ["--stepz", "--steps"]),
        (["rows.jsonl", "out", "--retry"], ["unknown option --retry", "--retry-failed"]),
        (["rows.jsonl", "out", "-s", "5"], ["unknown option -s"]),
        (["rows.jsonl", "out", "--steps", "many"], ["--steps", "'many' must be an integer"]),
        (["rows.jsonl", "out", "--steps", "0"], ["--steps", "0 must be between 1 and 1000"]),
        (["rows.jsonl", "out", "--steps", "-5"], ["--steps", "-5 must be between 1 and 1000"]),
        (["rows.jsonl", "out", "--steps"], ["--steps", "expected one argument"]),
        (["rows.jsonl", "out", "--guidance-scale", "nan"], ["--guidance-scale", "nan must be finite"]),
        (["rows.jsonl", "out", "--max-failed", "101"], ["--max-failed", "101.0 must be between 0 and 100"]),
        (["rows.jsonl", "out", "--image-format", "gif"], ["--image-format", "'gif' must be one of png, webp, jpeg"]),
        (["rows.jsonl", "out", "--model", ""], ["--model", "must not be empty"]),
        (["rows.jsonl", "out", "--retry-failed=yes"], ["--retry-failed", "ignored explicit argument"]),
        (["rows.jsonl", "out", "--config", "nowhere.yaml"], ["nowhere.yaml: cannot be read"]),
        (["rows.jsonl", "out", "more"], ["more"]),
        (["rows.jsonl"], ["OUTPUT"]),
        ([], ["MANIFEST, OUTPUT"]),
    ],
)
def test_a_refusal_names_the_option_its_value_and_what_it_must_be(argv: list[str], parts: list[str]) -> None:
    message = refusal(*argv)
    for part in parts:
        assert part in message


def test_a_wrong_value_in_the_file_is_refused_even_where_an_option_replaces_it(tmp_path: Path) -> None:
    file = tmp_path / "run.yaml"
    file.write_text("generation:\n  steps: many\n")
    assert str(file) in refusal("rows.jsonl", "out", "--config", str(file), "--steps", "5")


def test_help_shows_every_option_with_its_text_default_and_section(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as left:
        parse(["--help"], prog="generate")
    assert left.value.code == 0
    shown = " ".join(capsys.readouterr().out.split())
    for path, setting in SETTINGS.items():
        assert option_name(path) in shown
        assert setting.metadata["help"] in shown
        if setting.default is not None and setting.kind is not bool:
            assert f"{setting.metadata['help']} (default: {setting.default})" in shown
    assert "(default: no)" in shown
    for title in ("run:", "generation:", "inputs:", "images:", "workers:"):
        assert title in shown


def test_help_is_ascii_so_that_any_terminal_can_show_it() -> None:
    assert build_parser("generate").format_help().isascii()
