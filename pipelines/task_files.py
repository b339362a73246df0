"""Tasks of a user's own, from YAML or Python, beside those that are always there. Knows no rows.

Only who starts a run can name them: a manifest, which is not trusted, chooses among what is there by name.
"""

from __future__ import annotations

import dataclasses
import difflib
import importlib
import typing
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import yaml

from omnigen_actor.errors import ConfigError
from omnigen_actor.tasks import TASKS, TaskSpec, TaskTable

_KINDS: dict[str, Any] = typing.get_type_hints(TaskSpec)
_NEEDED = ("name", "wording", "min_images")
_TUPLE = tuple[str, ...]


def load_tasks(sources: Sequence[str] = ()) -> TaskTable:
    """The task table with what ``sources`` add: paths of YAML files, or ``package.module:NAME`` of a TaskSpec or
    several. Raises ConfigError that names the source.
    """
    added = [spec for source in sources for spec in _load(source)]
    return TaskTable([*TASKS.values(), *added])


def _load(source: str) -> list[TaskSpec]:
    module, _, name = source.rpartition(":")
    if module and not source.endswith((".yaml", ".yml")):
        return _from_python(source, module, name)
    return list(_from_yaml(source))


def _from_python(source: str, module: str, name: str) -> list[TaskSpec]:
    try:
        found = getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError, ValueError) as error:
        raise ConfigError(f"tasks {source!r}: {error}; the form is package.module:NAME") from None
    specs = [found] if isinstance(found, TaskSpec) else list(found) if isinstance(found, list | tuple) else []
    if not specs or not all(isinstance(spec, TaskSpec) for spec in specs):
        raise ConfigError(f"tasks {source!r}: is {type(found).__name__}, and must be a TaskSpec or a list of them")
    return specs


def _from_yaml(path: str) -> Iterator[TaskSpec]:
    try:
        loaded = yaml.safe_load(Path(path).read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise ConfigError(f"tasks {path}: {error}") from None
    entries = loaded.get("tasks") if isinstance(loaded, dict) and set(loaded) == {"tasks"} else None
    if not isinstance(entries, list) or not entries:
        raise ConfigError(f"tasks {path}: must hold one list under the key 'tasks'")
    for number, entry in enumerate(entries, 1):
        try:
            yield _spec(entry)
        except ConfigError as error:
            raise ConfigError(f"tasks {path}, number {number}: {error}") from None


def _spec(entry: object) -> TaskSpec:
    if not isinstance(entry, dict):
        raise ConfigError(f"{entry!r} is no mapping of a task's fields")
    for key in entry:
        if key not in _KINDS:
            near = difflib.get_close_matches(str(key), _KINDS, n=1)
            raise ConfigError(f"{key!r} is unknown; {f'did you mean {near[0]}?' if near else 'known: '}"
                              f"{'' if near else ', '.join(_KINDS)}")  # fmt: skip
    missing = [key for key in _NEEDED if key not in entry]
    if missing:
        raise ConfigError(f"{', '.join(missing)} must be given")
    values = {key: _value(key, value) for key, value in entry.items()}
    values.setdefault("max_images", values["min_images"])
    values.setdefault("needs_instruction", "{i}" in values["wording"])
    return TaskSpec(**values)


def _value(key: str, value: object) -> Any:
    kind = _KINDS[key]
    if kind == _TUPLE:
        if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
            raise ConfigError(f"{key}={value!r}: must be a list of texts")
        return tuple(value)
    if kind is float and type(value) is int:
        return float(value)
    if type(value) is not kind:
        raise ConfigError(f"{key}={value!r}: must be {kind.__name__}")
    return value


assert {one.name for one in dataclasses.fields(TaskSpec)} == set(_KINDS)
