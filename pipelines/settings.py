"""The settings of a configuration one by one, by the names that options and files give them, and as YAML. No argv.

a field ─► Setting ─► a value from text or YAML, checked against type and limits ─► build() ─► config ─► to_yaml()
"""

from __future__ import annotations

import dataclasses
import difflib
import reprlib
import typing
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, TypeVar

import yaml

from omnigen_actor.errors import ConfigError
from pipelines.config import RunConfig, complaint

KINDS = {int: "an integer", float: "a number", str: "text", bool: "true or false"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Setting:
    """One leaf of RunConfig. ``section`` is empty for RunConfig's own fields.

    One that ``repeats`` is a tuple of items of ``kind``: a list in YAML, an option that may be given several times.
    One with a ``bare`` value is a tuple of names that may also stand alone: ``true`` in YAML, an option without names.
    """

    section: str
    name: str
    kind: type
    optional: bool
    repeats: bool
    default: Any
    metadata: Mapping[str, Any]

    @property
    def path(self) -> str:
        """Its name in a file: ``generation.steps``."""
        return f"{self.section}.{self.name}" if self.section else self.name

    @property
    def bare(self) -> tuple[str, ...]:
        """What it is when it stands alone; empty where it can't."""
        return tuple(self.metadata.get("bare", ()))

    def from_text(self, text: str, origin: str) -> Any:
        """The value of an option; ``none`` unsets what may be unset. Raises ConfigError that names ``origin``."""
        if self.optional and text == "none":
            return None
        try:
            value = self.kind(text)
        except ValueError:
            raise self._wrong_type(text, origin) from None
        return self._within_limits(value, origin)

    def from_texts(self, texts: Sequence[str], origin: str) -> tuple[Any, ...]:
        """The values of an option that was given for each; ``none`` alone for no value. Raises ConfigError."""
        return () if list(texts) == ["none"] else tuple(self.from_text(text, origin) for text in texts)

    def from_yaml(self, value: object, origin: str) -> Any:
        """The value in a file. Raises ConfigError that names ``origin``."""
        if self.bare and isinstance(value, bool):
            return self.bare if value else ()
        if self.repeats:
            return tuple(self._item(item, origin) for item in self._items(value, origin))
        return None if value is None and self.optional else self._item(value, origin)

    def _items(self, value: object, origin: str) -> list[object]:
        if value is None:
            return []
        if not isinstance(value, list):
            bare = ", true or false" if self.bare else ", or null for none"
            raise ConfigError(f"{origin}: {reprlib.repr(value)} must be a list{bare}")
        return value

    def _item(self, value: object, origin: str) -> Any:
        if isinstance(value, bool) and "on" in self.metadata.get("choices", ()):
            value = "on" if value else "off"  # what YAML makes of these words
        if self.kind is float:
            value = _as_float(value)
        if type(value) is not self.kind:
            raise self._wrong_type(value, origin)
        return self._within_limits(value, origin)

    def _wrong_type(self, value: object, origin: str) -> ConfigError:
        none = " or none" if self.optional else ""
        return ConfigError(f"{origin}: {reprlib.repr(value)} must be {KINDS[self.kind]}{none}")

    def _within_limits(self, value: Any, origin: str) -> Any:
        problem = complaint(value, self.metadata)
        if problem:
            raise ConfigError(f"{origin}: {reprlib.repr(value)} {problem}")
        return value


def settings_of(config: type, section: str = "") -> Iterator[Setting]:
    """Every leaf below a config dataclass, in the order of its fields."""
    hints = typing.get_type_hints(config)
    for field in dataclasses.fields(config):
        hint = hints[field.name]
        if _is_section(hint):
            yield from settings_of(hint, field.name)
        else:
            kinds = typing.get_args(hint) or (hint,)
            yield Setting(
                section=section,
                name=field.name,
                kind=kinds[0],
                optional=type(None) in kinds,
                repeats=typing.get_origin(hint) is tuple,
                default=field.default,
                metadata=field.metadata,
            )


def _is_section(hint: Any) -> bool:
    return dataclasses.is_dataclass(hint)


Config = TypeVar("Config")


class Surface(Generic[Config]):
    """The settings of one configuration class: by path, and its sections by name."""

    def __init__(self, config: type[Config]) -> None:
        self.config = config
        self.settings = {setting.path: setting for setting in settings_of(config)}
        self.sections: dict[str, type[Any]] = {
            name: hint for name, hint in typing.get_type_hints(config).items() if _is_section(hint)
        }

    def build(self, values: Mapping[str, Any]) -> Config:
        """The configuration in which ``values``, by path, replace the defaults."""
        settings = self.settings
        own = {path: value for path, value in values.items() if not settings[path].section}
        for section, config in self.sections.items():
            below = {s.name: values[s.path] for s in settings.values() if s.section == section and s.path in values}
            own[section] = config(**below)
        return self.config(**own)

    def read_yaml(self, path: str) -> dict[str, Any]:
        """The values in a file, by path. Raises ConfigError for an unreadable file, an unknown name, a wrong value."""
        values = {}
        for name, value in self._leaves(_load(path), path):
            values[name] = self.settings[name].from_yaml(value, f"{name} in {path}")
        return values

    def _leaves(self, loaded: object, path: str) -> Iterator[tuple[str, object]]:
        for name, value in _mapping(loaded, path).items():
            if name in self.sections:
                for below, leaf in _mapping(value, f"{name} in {path}").items():
                    yield self._known(f"{name}.{below}", below, path), leaf
            else:
                yield self._known(name, name, path), value

    def _known(self, name: str, last: str, path: str) -> str:
        if name in self.settings:
            return name
        known = {s.name: s.path for s in self.settings.values()} | {s: s for s in (*self.settings, *self.sections)}
        near = known[nearest(last, known)]
        raise ConfigError(f"unknown setting {name!r} in {path}; the nearest known one is {near!r}")


def to_yaml(config: Any) -> str:
    """Every setting, nested by section: what ``read_yaml`` reads."""
    return yaml.safe_dump(dataclasses.asdict(config), sort_keys=False, allow_unicode=True)


def nearest(name: str, known: Iterable[str]) -> str:
    """The known name that looks most like ``name``."""
    return difflib.get_close_matches(name, known, n=1, cutoff=0.0)[0]


class _Loader(yaml.SafeLoader):
    """YAML's safe subset, in which a key may not occur twice: the second would win in silence."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen: set[str] = set()
        for key, _ in node.value:
            name = str(key.value)
            if name in seen:
                raise yaml.constructor.ConstructorError(None, None, f"{name!r} stands twice", key.start_mark)
            seen.add(name)
        return super().construct_mapping(node, deep)


def _load(path: str) -> object:
    try:
        return yaml.load(Path(path).read_text(encoding="utf-8"), _Loader)
    except yaml.MarkedYAMLError as error:
        line = f", line {error.problem_mark.line + 1}" if error.problem_mark else ""
        raise ConfigError(f"{path}{line}: not readable as YAML: {error.problem}") from error
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read: {error.strerror}") from error
    except (UnicodeDecodeError, yaml.YAMLError) as error:
        raise ConfigError(f"{path}: not readable as YAML: {error}") from error


def _mapping(value: object, origin: str) -> dict[str, object]:
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise ConfigError(f"{origin}: {reprlib.repr(value)} must be settings, one a line, as `name: value`")
    return {str(key): entry for key, entry in value.items()}


def _as_float(value: object) -> object:
    """YAML reads ``3`` as an integer and ``1e-3`` as text; both are numbers to a person."""
    if isinstance(value, bool) or not isinstance(value, int | str):
        return value
    try:
        return float(value)
    except (ValueError, OverflowError):
        return value


RUN = Surface(RunConfig)
"""The settings of the main job."""
