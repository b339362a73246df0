"""Recipes from YAML: those that are always there, by name, and a user's own, by path. Knows no source rows."""

from __future__ import annotations

import difflib
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from importlib import resources
from math import isfinite
from pathlib import Path
from typing import Any

import yaml

from omnigen_actor.errors import ConfigError, first_line
from pipelines.recipes import templates
from pipelines.recipes.recipe import Choice, Group, Recipe, RowTemplate

_BUILT_IN = resources.files("pipelines.recipes") / "built_in"
_GROUP_KEYS = ("take", "choose", "rows")
_RECIPE_KEYS = ("description", "parameters", "groups", *_GROUP_KEYS)
_INLINE_KEYS = ("name", "share", *_GROUP_KEYS)
_USE_KEYS = ("name", "share", "use", "with")
_ROW_KEYS = ("for", "previous")


def built_in() -> list[str]:
    """The names of the recipes that are always there."""
    return sorted(file.name.removesuffix(".yaml") for file in _BUILT_IN.iterdir() if file.name.endswith(".yaml"))


def read_recipe(name: str) -> str:
    """The YAML text of a built-in recipe, or of the file at that path. Raises ConfigError."""
    if name in built_in():
        return (_BUILT_IN / f"{name}.yaml").read_text(encoding="utf-8")
    if not name.endswith((".yaml", ".yml")):
        near = difflib.get_close_matches(name, built_in(), n=1)
        hint = f"did you mean {near[0]}?" if near else f"known: {', '.join(built_in())}"
        raise ConfigError(f"recipe {name!r}: is no built-in one, and no .yaml file; {hint}")
    try:
        return Path(name).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"recipe {name}: can't be read: {first_line(error)}") from None


def load_recipe(name: str, settings: Mapping[str, object] | None = None) -> Recipe:
    """The recipe of that name or path; ``settings`` replace its parameters. Raises ConfigError that names it."""
    return _load(name, settings or {}, ())


def _load(name: str, settings: Mapping[str, object], users: tuple[str, ...]) -> Recipe:
    if name in users:
        raise ConfigError(f"recipe {name}: uses itself")
    try:
        loaded = yaml.safe_load(read_recipe(name))
        return _recipe(_Source(name, (*users, name)), _mapping(loaded, "a recipe", _RECIPE_KEYS), settings)
    except yaml.YAMLError as error:
        raise ConfigError(f"recipe {name}: {' '.join(str(error).split())}") from None
    except ConfigError as error:
        told = str(error)
        raise ConfigError(told if told.startswith("recipe ") else f"recipe {name}: {told}") from None


@dataclass(frozen=True, slots=True)
class _Source:
    """Where a recipe is from: its name or path, and those that use it, itself among them."""

    name: str
    users: tuple[str, ...]

    @property
    def stem(self) -> str:
        return Path(self.name).stem


def _recipe(source: _Source, loaded: Mapping[str, Any], settings: Mapping[str, object]) -> Recipe:
    if ("groups" in loaded) == ("rows" in loaded):
        raise ConfigError("must have either rows or groups")
    parameters = _parameters(loaded.get("parameters") or {}, settings)
    if "rows" in loaded:
        groups = [_group(source.stem, {key: loaded[key] for key in _GROUP_KEYS if key in loaded}, parameters)]
    else:
        groups = [_entry(source, entry, parameters) for entry in _list(loaded["groups"], "groups")]
    return Recipe(
        name=source.stem, description=str(loaded.get("description", "")), groups=groups, parameters=parameters
    )


def _parameters(own: object, settings: Mapping[str, object]) -> dict[str, object]:
    parameters = dict(_mapping(own, "parameters"))
    for name in settings:
        _check_key(name, parameters, "parameter")
    return {**parameters, **settings}


def _entry(source: _Source, entry: object, parameters: Mapping[str, object]) -> Group:
    """One entry of ``groups``: written out, or the only group of another recipe."""
    uses = isinstance(entry, dict) and "use" in entry
    given = _mapping(entry, "a group", _USE_KEYS if uses else _INLINE_KEYS)
    share = _share(given.get("share", 1), parameters)
    if not uses:
        return _group(str(given.get("name", "")), given, parameters, share)
    used = _used(source, str(given["use"]), given.get("with") or {}, parameters)
    return Group(
        name=str(given.get("name", used.name)),
        rows=used.rows,
        share=share,
        take=used.take,
        parameters=used.parameters,
        choices=used.choices,
    )


def _used(source: _Source, name: str, settings: object, parameters: Mapping[str, object]) -> Group:
    if name not in built_in():
        name = str(Path(source.name).parent / name)
    filled = {key: _fill(value, parameters) for key, value in _mapping(settings, "with").items()}
    recipe = _load(name, filled, source.users)
    if len(recipe.groups) != 1:
        raise ConfigError(f"use: {name}: has {len(recipe.groups)} groups; only one of a single group can be used")
    return recipe.groups[0]


def _group(name: str, given: Mapping[str, Any], parameters: Mapping[str, object], share: float = 1.0) -> Group:
    if not name:
        raise ConfigError("a group needs a name")
    take = given.get("take", 1)
    if type(take) is not int:
        raise ConfigError(f"take={take!r}: must be a whole number")
    return Group(
        name=name,
        rows=[_row(row) for row in _list(given.get("rows"), "rows")],
        share=share,
        take=take,
        parameters=parameters,
        choices={key: _choice(value) for key, value in _mapping(given.get("choose") or {}, "choose").items()},
    )


def _choice(given: object) -> Choice:
    if isinstance(given, dict):
        own = _mapping(given, "a choice", ("from", "count"))
        if "from" not in own:
            raise ConfigError("a choice needs 'from'")
        return Choice(options=own["from"], count=own.get("count"))
    return Choice(options=given)


def _row(given: object) -> RowTemplate:
    row = _mapping(given, "a row")
    cells = {key: value for key, value in row.items() if key not in _ROW_KEYS}
    for key, value in cells.items():
        items = value if isinstance(value, list) else [value]
        if any(isinstance(item, list | dict) for item in items):
            raise ConfigError(f"{key}: a cell is text, a number or a list of them")
    return RowTemplate(cells=cells, loops=_mapping(row.get("for") or {}, "for"), previous=row.get("previous"))


def _share(given: object, parameters: Mapping[str, object]) -> float:
    share = _fill(given, parameters)
    if isinstance(share, bool) or not isinstance(share, int | float) or not isfinite(share) or share < 0:
        raise ConfigError(f"share={share!r}: must be a number, 0 or more")
    return float(share)


def _fill(template: object, parameters: Mapping[str, object]) -> object:
    try:
        return templates.fill(template, parameters)
    except templates.Missing as missing:
        raise ConfigError(f"{template!r}: there is no parameter {missing} with a value") from None


def _mapping(given: object, what: str, keys: Collection[str] | None = None) -> dict[str, Any]:
    if not isinstance(given, dict) or not all(isinstance(key, str) for key in given):
        raise ConfigError(f"{what} must be a mapping of names, and is {given!r}"[:200])
    for key in given if keys is not None else ():
        _check_key(key, keys or (), "key")
    return given


def _check_key(key: str, known: Collection[str], what: str) -> None:
    if key not in known:
        near = difflib.get_close_matches(key, known, n=1)
        hint = f"did you mean {near[0]}?" if near else f"known: {', '.join(known) or 'none'}"
        raise ConfigError(f"unknown {what} {key!r}; {hint}")


def _list(given: object, what: str) -> list[Any]:
    if not isinstance(given, list) or not given:
        raise ConfigError(f"{what} must be a list with something in it")
    return given
