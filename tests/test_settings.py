from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from omnigen_actor.errors import ConfigError
from pipelines.config import RunConfig
from pipelines.settings import RUN, Setting, to_yaml


def written(folder: Path, text: str) -> str:
    path = folder / "run.yaml"
    path.write_text(text, encoding="utf-8")
    return str(path)


def refusal(folder: Path, text: str) -> str:
    with pytest.raises(ConfigError) as caught:
        RUN.read_yaml(written(folder, text))
    message = str(caught.value)
    assert "\n" not in message
    return message


def values_of(setting: Setting) -> st.SearchStrategy[Any]:
    limits = setting.metadata
    low, high = limits.get("at_least"), limits.get("at_most")
    kinds: dict[type, st.SearchStrategy[Any]] = {
        bool: st.booleans(),
        int: st.integers(low, high),
        float: st.floats(limits.get("above", low), high, allow_nan=False, allow_infinity=False, exclude_min=not low),
        str: st.sampled_from(limits.get("choices", ["fake", "no", "1e3", "null", "a: b", "café", " x "])),
    }
    own = kinds[setting.kind]
    if setting.repeats:
        return st.lists(own, max_size=3).map(tuple)
    return st.none() | own if setting.optional else own


def test_leaf_names_are_unique_so_that_options_can_be_flat() -> None:
    names = [setting.name for setting in RUN.settings.values()]
    assert len(set(names)) == len(names)
    assert not set(names) & {"config", "help", "manifest", "output", *RUN.sections}


def test_every_setting_has_a_help_text_and_a_supported_type() -> None:
    for setting in RUN.settings.values():
        assert setting.metadata["help"], setting.path
        assert setting.kind in {int, float, str, bool}, setting.path


def test_no_values_build_the_defaults() -> None:
    assert RUN.build({}) == RunConfig()


def with_an_interval(values: dict[str, Any]) -> dict[str, Any]:
    """The same values, without a guidance interval that is empty."""
    interval = [f"engine.guidance_{end}" for end in ("from", "to")]
    begin, end = (values.get(path, RUN.settings[path].default) for path in interval)
    return values if begin < end else {path: value for path, value in values.items() if path not in interval}


VALUES = st.fixed_dictionaries({}, optional={path: values_of(setting) for path, setting in RUN.settings.items()})


@given(VALUES.map(with_an_interval))
def test_a_stored_config_reads_back_as_the_same_config(values: dict[str, Any]) -> None:
    config = RUN.build(values)
    nested = yaml.safe_load(to_yaml(config))
    flat = {
        path: nested[setting.section][setting.name] if setting.section else nested[setting.name]
        for path, setting in RUN.settings.items()
    }
    assert RUN.build({path: RUN.settings[path].from_yaml(value, path) for path, value in flat.items()}) == config


def test_a_stored_config_reads_back_through_a_file(tmp_path: Path) -> None:
    config = RUN.build({"model": "fake", "generation.steps": 3, "workers.num_actors": None, "max_failed": 2.5})
    assert RUN.build(RUN.read_yaml(written(tmp_path, to_yaml(config)))) == config


def test_a_file_gives_values_by_section(tmp_path: Path) -> None:
    text = "model: fake\ngeneration:\n  steps: 4\n  guidance_scale: 3\nretry_failed: true\nworkers:\n"
    assert RUN.read_yaml(written(tmp_path, text)) == {
        "model": "fake",
        "generation.steps": 4,
        "generation.guidance_scale": 3.0,
        "retry_failed": ("all",),
    }


def test_a_list_in_a_file_is_a_tuple_and_null_is_none_of_it(tmp_path: Path) -> None:
    assert RUN.read_yaml(written(tmp_path, "engine:\n  adapters: [a, b@0.5]")) == {"engine.adapters": ("a", "b@0.5")}
    assert RUN.read_yaml(written(tmp_path, "engine:\n  adapters:")) == {"engine.adapters": ()}


@pytest.mark.parametrize(
    ("text", "value"), [("true", ("all",)), ("false", ()), ("[not_found]", ("not_found",)), ("", ()), ("[]", ())]
)
def test_a_list_of_names_may_be_all_or_none_of_them(tmp_path: Path, text: str, value: tuple[str, ...]) -> None:
    assert RUN.read_yaml(written(tmp_path, f"retry_failed: {text}")) == {"retry_failed": value}


@pytest.mark.parametrize("text", ["on", "off", "auto"])
def test_on_and_off_mean_themselves_where_yaml_reads_them_as_true_and_false(tmp_path: Path, text: str) -> None:
    assert RUN.read_yaml(written(tmp_path, f"engine:\n  compile: {text}")) == {"engine.compile": text}


def test_an_empty_file_changes_nothing(tmp_path: Path) -> None:
    assert RUN.read_yaml(written(tmp_path, "# all defaults\n")) == {}


def test_a_number_that_yaml_reads_as_text_is_a_number(tmp_path: Path) -> None:
    assert RUN.read_yaml(written(tmp_path, "max_failed: 1e-3")) == {"max_failed": 0.001}


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("generation:\n  stepz: 5", ["'generation.stepz'", "'generation.steps'"]),
        ("steps: 5", ["'steps'", "'generation.steps'"]),
        ("generatoin:\n  steps: 5", ["'generatoin'", "'generation'"]),
        ("5: 6", ["unknown setting '5'"]),
        ("generation:\n  steps: many", ["generation.steps", "'many' must be an integer"]),
        ("generation:\n  steps: 5.0", ["5.0 must be an integer"]),
        ("generation:\n  steps: true", ["True must be an integer"]),
        ("generation:\n  steps: 0", ["generation.steps", "0 must be between 1 and 1000"]),
        ("generation:\n  guidance_scale: .nan", ["nan must be finite"]),
        ("max_failed: much", ["'much' must be a number"]),
        ("max_failed: [1]", ["[1] must be a number"]),
        ("retry_failed: 1", ["1 must be a list, true or false"]),
        ("retry_failed: [not_found, nothing]", ["retry_failed", "'nothing' must be one of all, bad_row"]),
        ("model: no", ["False must be text"]),
        ("model:", ["None must be text"]),
        ("ray_address: 1", ["1 must be text or none"]),
        ("engine:\n  adapters: a", ["engine.adapters", "'a' must be a list"]),
        ("engine:\n  adapters: [1]", ["engine.adapters", "1 must be text"]),
        ("engine:\n  adapters: ['']", ["engine.adapters", "must not be empty"]),
        ("engine:\n  vae_dtype: on", ["engine.vae_dtype", "True must be text"]),
        ("generation: 5", ["generation", "5 must be settings"]),
        ("- model", ["['model'] must be settings"]),
        ("model: [", ["line 1", "not readable as YAML"]),
        ("model: a\nmodel: b", ["line 2", "'model' stands twice"]),
        ("model: !!python/object:os.system x", ["not readable as YAML"]),
    ],
)
def test_a_refusal_names_the_setting_its_value_and_the_file(tmp_path: Path, text: str, parts: list[str]) -> None:
    message = refusal(tmp_path, text)
    for part in [*parts, str(tmp_path / "run.yaml")]:
        assert part in message


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"nowhere\.yaml: cannot be read: No such file"):
        RUN.read_yaml(str(tmp_path / "nowhere.yaml"))


def test_a_file_that_is_not_text_is_named(tmp_path: Path) -> None:
    path = tmp_path / "run.yaml"
    path.write_bytes(b"\xff\xfe\xfa\x00")
    with pytest.raises(ConfigError, match=r"run\.yaml: not readable as YAML"):
        RUN.read_yaml(str(path))
