from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from jobs.generate import PLACES
from jobs.options import build_parser, option_name, parse
from omnigen_actor.engine_settings import EngineSettings
from omnigen_actor.errors import ConfigError
from pipelines.config import GenerationConfig, RunConfig
from pipelines.settings import RUN

SURFACE = [
    "--adapters",
    "--allow",
    "--allow-mixed",
    "--attention",
    "--batch-size",
    "--compile",
    "--config",
    "--cpu-threads",
    "--device",
    "--dtype",
    "--embed-provenance",
    "--fetch-retries",
    "--fetch-threads",
    "--fetch-timeout-s",
    "--fp8",
    "--gpus-per-actor",
    "--grace-s",
    "--guidance-from",
    "--guidance-scale",
    "--guidance-to",
    "--height",
    "--help",
    "--image-format",
    "--image-root",
    "--img-guidance-scale",
    "--limit",
    "--max-crashes",
    "--max-failed",
    "--max-image-bytes",
    "--max-image-pixels",
    "--max-input-image-size",
    "--memory-gib",
    "--model",
    "--no-allow-mixed",
    "--no-embed-provenance",
    "--no-fp8",
    "--no-retry-failed",
    "--no-take-over",
    "--num-actors",
    "--num-samples",
    "--only",
    "--progress-every-s",
    "--ray-address",
    "--retry-failed",
    "--rows-per-wave",
    "--seed",
    "--stall-timeout-s",
    "--step-cache",
    "--steps",
    "--store-timeout-s",
    "--take-over",
    "--tasks",
    "--vae-dtype",
    "--wave-tokens",
    "--width",
    "-h",
]
"""The command line that people's scripts rely on. A removed name breaks them: it needs a line in the changelog."""


def config_of(*argv: str) -> RunConfig:
    return parse(["rows.jsonl", "out", *argv], RUN, PLACES, prog="generate").config


def refusal(*argv: str) -> str:
    with pytest.raises(ConfigError) as caught:
        parse(list(argv), RUN, PLACES, prog="generate")
    message = str(caught.value)
    assert "\n" not in message
    return message


def test_the_command_line_is_the_pinned_one() -> None:
    assert sorted(build_parser(RUN, PLACES, "generate")._option_string_actions) == SURFACE


def test_no_options_give_the_defaults() -> None:
    arguments = parse(["rows.jsonl", "out"], RUN, PLACES, prog="generate")
    assert (arguments.places, arguments.config) == ({"manifest": "rows.jsonl", "output": "out"}, RunConfig())


def test_options_reach_their_section_with_their_type() -> None:
    config = config_of("--steps", "7", "--guidance-scale=3", "--model", "fake", "--retry-failed", "--max-failed", "2.5")
    assert config == RunConfig(
        model="fake",
        generation=GenerationConfig(steps=7, guidance_scale=3.0),
        retry_failed=("all",),
        max_failed=2.5,
    )
    assert isinstance(config.generation.guidance_scale, float)


def test_an_option_that_repeats_collects_its_values_and_none_empties_it(tmp_path: Path) -> None:
    file = tmp_path / "run.yaml"
    file.write_text("engine:\n  adapters: [from-file]\n")
    assert config_of("--adapters", "a@0.8", "--adapters", "b").engine.adapters == ("a@0.8", "b")
    assert config_of("--config", str(file)).engine.adapters == ("from-file",)
    assert config_of("--config", str(file), "--adapters", "c").engine.adapters == ("c",)
    assert config_of("--config", str(file), "--adapters", "none").engine.adapters == ()


@pytest.mark.parametrize(
    ("options", "kinds"),
    [
        (["--retry-failed"], ("all",)),
        (["--retry-failed", "not_found", "bad_id"], ("not_found", "bad_id")),
        (["--retry-failed=not_found", "--retry-failed", "bad_id"], ("not_found", "bad_id")),
        (["--retry-failed", "not_found", "--no-retry-failed"], ()),
        (["--no-retry-failed", "--retry-failed", "not_found"], ("not_found",)),
        (["--retry-failed", "none"], ()),
    ],
)
@pytest.mark.parametrize("is_first", [False, True])
def test_kinds_of_errors_follow_their_option_and_the_places_are_none_of_them(
    options: list[str], kinds: tuple[str, ...], is_first: bool
) -> None:
    places = ["rows.jsonl", "out"]
    arguments = parse([*options, *places] if is_first else [*places, *options], RUN, PLACES, prog="generate")
    assert (arguments.config.retry_failed, arguments.places) == (kinds, {"manifest": "rows.jsonl", "output": "out"})


def test_what_follows_two_dashes_is_a_place_even_with_the_name_of_a_kind() -> None:
    arguments = parse(["--retry-failed", "bad_id", "--", "not_found", "poison"], RUN, PLACES, prog="generate")
    assert arguments.config.retry_failed == ("bad_id",)
    assert arguments.places == {"manifest": "not_found", "output": "poison"}


def test_engine_options_reach_the_engine() -> None:
    config = config_of("--fp8", "--guidance-to", "0.8", "--rows-per-wave", "1", "--cpu-threads", "3")
    settings = config.engine_settings("cuda")
    assert (settings.device, settings.cpu_threads, settings.rows_per_wave) == ("cuda", 3, 1)
    assert settings.approximations == ("fp8", "guidance_interval=0-0.8")


def test_options_may_stand_before_the_arguments() -> None:
    assert (
        parse(
            ["--steps", "7", "rows.jsonl", "--seed", "1", "out"], RUN, PLACES, prog="generate"
        ).config.generation.steps
        == 7
    )


def test_an_option_wins_over_the_file_and_the_file_over_the_default(tmp_path: Path) -> None:
    file = tmp_path / "run.yaml"
    file.write_text("retry_failed: true\ngeneration:\n  steps: 5\n  width: 64\nworkers:\n  num_actors: 4\n")
    config = config_of("--config", str(file), "--steps", "6", "--no-retry-failed", "--num-actors", "none")
    assert config.generation.steps == 6
    assert config.generation.width == 64
    assert config.generation.height == RunConfig().generation.height
    assert config.retry_failed == ()
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
        (["rows.jsonl", "out", "--adapters", "a", "--adapters", ""], ["--adapters", "must not be empty"]),
        (["rows.jsonl", "out", "--adapters"], ["--adapters", "expected one argument"]),
        (["rows.jsonl", "out", "--memory-gib", "0"], ["--memory-gib", "0.0 must be finite and greater than 0"]),
        (["rows.jsonl", "out", "--guidance-from", "0.7", "--guidance-to", "0.7"], ["guidance_from=0.7", "less than"]),
        (["rows.jsonl", "out", "--compile", "yes"], ["--compile", "'yes' must be one of auto, on, off"]),
        (["rows.jsonl", "out", "--retry-failed=yes"], ["--retry-failed", "'yes' must be one of all, bad_row"]),
        (["rows.jsonl", "out", "--retry-failed", "poisn"], ["--retry-failed", "'poisn' must be one of all, bad_row"]),
        (["--retry-failed", "not_found", "poisn", "rows.jsonl", "out"], ["'poisn' must be one of all, bad_row"]),
        (["rows.jsonl", "out", "--limit", "0"], ["--limit", "0 must be finite and 1 or greater"]),
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
        parse(["--help"], RUN, PLACES, prog="generate")
    assert left.value.code == 0
    shown = " ".join(capsys.readouterr().out.split())
    for setting in RUN.settings.values():
        assert option_name(setting) in shown
        assert setting.metadata["help"] in shown
        if setting.default is not None and setting.kind is not bool and not setting.repeats:
            assert f"{setting.metadata['help']} (default: {setting.default})" in shown
    assert "(default: no)" in shown
    for title in ("run:", "generation:", "inputs:", "images:", "workers:", "engine:"):
        assert title in shown


def test_help_is_ascii_so_that_any_terminal_can_show_it() -> None:
    assert build_parser(RUN, PLACES, "generate").format_help().isascii()


def test_help_says_of_every_approximation_that_it_is_one_and_off() -> None:
    is_approximation = {name: bool(EngineSettings(**{name: value}).approximations) for name, value in OTHER.items()}
    assert set(is_approximation) == {setting.name for setting in RUN.settings.values() if setting.section == "engine"}
    said = {name: "approximation, off by default" in RUN.settings[f"engine.{name}"].metadata["help"] for name in OTHER}
    assert said == is_approximation


OTHER: dict[str, Any] = {
    "vae_dtype": "bfloat16",
    "wave_tokens": 1,
    "rows_per_wave": 1,
    "compile": "off",
    "attention": "math",
    "memory_gib": 1.0,
    "adapters": ("a",),
    "fp8": True,
    "guidance_from": 0.5,
    "guidance_to": 0.5,
    "step_cache": 0.5,
}
"""For each setting of the engine a value that is not its default."""
