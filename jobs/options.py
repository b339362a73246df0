"""The command line of a job, derived from its configuration: a new field there is a new option here.

An option wins over the ``--config`` file, the file over the default. Knows nothing of what the settings do.
"""

from __future__ import annotations

import argparse
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Generic, NoReturn, TypeVar

from omnigen_actor.errors import ConfigError
from pipelines.settings import Setting, Surface, nearest, to_yaml

__all__ = ["Arguments", "Parser", "parse", "to_yaml"]

METAVARS = {int: "INTEGER", float: "NUMBER", str: "TEXT"}
_NAME = re.compile(r"[a-z_]+")


Config = TypeVar("Config")


@dataclass(frozen=True, slots=True, kw_only=True)
class Arguments(Generic[Config]):
    """What the user asked for: the places by name, and the configuration."""

    places: Mapping[str, str]
    config: Config


class Parser(argparse.ArgumentParser):
    """argparse whose errors are ConfigErrors of one line, and name the nearest known option."""

    def __init__(self, **more: Any) -> None:
        super().__init__(allow_abbrev=False, formatter_class=argparse.RawDescriptionHelpFormatter, **more)
        self._named: dict[str, Setting] = {}
        self._doubtful: str | None = None

    def take_names(self, option: str, setting: Setting) -> None:
        """Let names of the setting's choices follow this option, one after the other, or none at all."""
        self._named[option] = setting

    def error(self, message: str) -> NoReturn:
        """Raise instead of printing the usage and leaving."""
        if self._doubtful and message.startswith("unrecognized arguments"):
            message = self._doubtful
        raise ConfigError(f"{message} (see {self.prog} --help)")

    def parse(self, argv: list[str]) -> argparse.Namespace:
        """Parse all of ``argv``. Raises ConfigError for an unknown option, a missing value, a surplus argument."""
        for option in _options_in(argv):
            if option not in self._option_string_actions:
                known = nearest(option, self._option_string_actions)
                raise ConfigError(f"unknown option {option}; the nearest known one is {known}")
        return self.parse_args(self._one_by_one(argv))

    def _one_by_one(self, argv: list[str]) -> list[str]:
        """``--option a b FILE`` as ``--option=a --option=b FILE``, where only a and b are names that the option takes.

        argparse itself would take FILE for a name.
        """
        words, written = list(argv), list[str]()
        while words and words[0] != "--":
            option = words.pop(0)
            setting = self._named.get(option)
            if setting is None:
                written.append(option)
                continue
            known = ("none", *setting.metadata["choices"])
            num_names = next((number for number, word in enumerate(words) if word not in known), len(words))
            written += [f"{option}={name}" for name in words[:num_names] or setting.bare]
            del words[:num_names]
            if words and _NAME.fullmatch(words[0]):
                self._doubtful = f"{option}: {words[0]!r} must be one of {', '.join(known[1:])}"
        return written + words


def _options_in(argv: list[str]) -> list[str]:
    before_separator = argv[: argv.index("--")] if "--" in argv else argv
    options = (word.split("=")[0] for word in before_separator if word.startswith("-") and word != "-")
    return [option for option in options if not _is_number(option)]


def _is_number(word: str) -> bool:
    try:
        float(word)
    except ValueError:
        return False
    return True


def parse(
    argv: list[str],
    surface: Surface[Config],
    places: Mapping[str, str],
    *,
    prog: str,
    description: str = "",
    epilog: str = "",
) -> Arguments[Config]:
    """Read a command line. Raises ConfigError that names the option or setting, its value and what it must be.

    ``places``: the arguments without a name, in order, with their help texts.
    """
    given = vars(build_parser(surface, places, prog, description, epilog).parse(argv))
    found, config_path = {name: given.pop(name) for name in places}, given.pop("config", None)
    values = surface.read_yaml(config_path) if config_path is not None else {}
    for path, value in given.items():
        values[path] = value if isinstance(value, bool) else _read(surface.settings[path], value)
    return Arguments(places=found, config=surface.build(values))


def build_parser(
    surface: Surface[Config], places: Mapping[str, str], prog: str, description: str = "", epilog: str = ""
) -> Parser:
    """The parser: one option per setting, in one group per section."""
    parser = Parser(
        prog=prog,
        usage=f"%(prog)s {' '.join(name.upper() for name in places)} [options]",
        description=description,
        epilog=epilog,
        argument_default=argparse.SUPPRESS,
    )
    for name, text in places.items():
        parser.add_argument(name, metavar=name.upper(), help=text)
    for section, config in {"": surface.config, **surface.sections}.items():
        group = parser.add_argument_group(section or "run", (config.__doc__ or "").splitlines()[0])
        for setting in (setting for setting in surface.settings.values() if setting.section == section):
            _add(group, setting)
            if setting.bare:
                parser.take_names(option_name(setting), setting)
        if not section:
            group.add_argument("--config", metavar="FILE", help="YAML file of settings, nested by the groups below")
    return parser


def _read(setting: Setting, given: Any) -> Any:
    origin = option_name(setting)
    return setting.from_texts(given, origin) if setting.repeats else setting.from_text(given, origin)


def option_name(setting: Setting) -> str:
    """The option of a setting: ``generation.steps`` is ``--steps``."""
    return "--" + setting.name.replace("_", "-")


def _add(group: argparse._ArgumentGroup, setting: Setting) -> None:
    option, text = option_name(setting), _help(setting)
    if setting.kind is bool:
        group.add_argument(option, dest=setting.path, action=argparse.BooleanOptionalAction, help=text)
    else:
        action = "append" if setting.repeats else "store"
        group.add_argument(option, dest=setting.path, action=action, metavar=_metavar(setting), help=text)
    if setting.bare:
        no = f"--no-{option.removeprefix('--')}"
        group.add_argument(no, dest=setting.path, action="store_const", const=[], help=f"not {option}")


def _metavar(setting: Setting) -> str:
    choices = setting.metadata.get("choices")
    if setting.bare:
        return f"[{setting.metadata['metavar']} ...]"
    return f"{{{','.join(choices)}}}" if choices else METAVARS[setting.kind]


def _help(setting: Setting) -> str:
    doc = str(setting.metadata["help"])
    shown = doc if setting.default in (None, ()) else f"{doc} (default: {_shown(setting.default)})"
    return shown.replace("%", "%%")


def _shown(default: object) -> str:
    return "no" if default is False else "yes" if default is True else str(default)
