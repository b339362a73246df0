"""Which scorer a word means: those of the package by name, anyone's by module and class. Opens none of them.

statistics                    a scorer of the package
clip:FOLDER-OR-HUB-ID         one with a model of the user's choice
package.module:Class          anyone's, called with one dict of options: ``device``
NAME=any of these             the same, kept in the store as NAME
"""

from __future__ import annotations

import difflib
import re
from dataclasses import dataclass

from omnigen_actor import uri
from omnigen_actor.errors import ConfigError
from pipelines.scores.hamming import DEFAULT_RADIUS, check_radius
from pipelines.scores.scorer import ScorerSpec, find_factory

NEAR_DUPLICATES = "near_duplicates"
"""Not a scorer of pictures but a step over the whole store: see ``pipelines.scores.near``."""
PHASH = "phash"
"""The scorer whose hashes that step reads."""

_NAME = re.compile(r"[a-z][a-z0-9_-]{0,63}")
_CLASS = re.compile(r"([A-Za-z_][\w.]*):([A-Za-z_]\w*)")
_ALIAS = re.compile(r"([^:=/]*)=(.+)")


@dataclass(frozen=True, slots=True, kw_only=True)
class Known:
    """A scorer of the package.

    ``argument``: the option that what follows the colon fills; None where nothing may follow. ``default``: its value
    where nothing follows; None where something must. ``has_model``: whether it computes with weights, on a device.
    """

    factory: str
    argument: str | None = None
    default: str | int | None = None
    has_model: bool = False
    version: str = "1"


def _model(factory: str) -> Known:
    return Known(factory=factory, argument="model", has_model=True)


KNOWN: dict[str, Known] = {
    "statistics": Known(factory="pipelines.scores.statistics:open_statistics"),
    "copy_through": Known(factory="pipelines.scores.copy_through:open_copy_through"),
    PHASH: Known(factory="pipelines.scores.phash:open_phash"),
    NEAR_DUPLICATES: Known(factory="pipelines.scores.near:near_duplicates", argument="radius", default=DEFAULT_RADIUS),
    "edges": Known(factory="pipelines.scores.edges:open_edges", argument="tasks", default="condition"),
    "depth": _model("pipelines.scores.maps:open_depth"),
    "pose": _model("pipelines.scores.maps:open_pose"),
    "clip": _model("pipelines.scores.clip:open_clip"),
    "aesthetic": _model("pipelines.scores.heads:open_aesthetic"),
    "nsfw": _model("pipelines.scores.heads:open_nsfw"),
}
"""Every scorer of the package by name. Factories are named, not imported: most bring a heavy library."""


def parse(text: str, *, device: str = "cpu") -> ScorerSpec:
    """What ``text`` means (see above); ``device``: where scorers with weights compute. Raises ConfigError."""
    alias, wanted = _split_alias(text.strip())
    word, colon, argument = wanted.partition(":")
    if word in KNOWN:
        return _known(word, argument if colon else None, alias or word, device)
    if not _CLASS.fullmatch(wanted):
        raise ConfigError(f"no such scorer: {_shown(wanted)}; {_nearest(word)}")
    return _anyones(wanted, alias, device)


def parse_all(texts: list[str], *, device: str = "cpu") -> list[ScorerSpec]:
    """``parse`` of each, near-duplicates last, since they need the hashes. Raises ConfigError for a name that is twice
    there."""
    specs = [parse(text, device=device) for text in texts]
    names = [spec.name for spec in specs]
    for name in names:
        if names.count(name) > 1:
            raise ConfigError(f"scorer {name!r} is named twice; keep one of them as NAME={name}")
    return sorted(specs, key=is_near_duplicates)


def is_near_duplicates(spec: ScorerSpec) -> bool:
    """Whether this is the step over the whole store, and no scorer of pictures."""
    return spec.factory == KNOWN[NEAR_DUPLICATES].factory


def _split_alias(text: str) -> tuple[str | None, str]:
    found = _ALIAS.fullmatch(text)
    if not found:
        return None, text
    alias = found[1].strip()
    if not _NAME.fullmatch(alias):
        raise ConfigError(f"scorer {_shown(text)}: the name {alias!r} must be small letters, digits, _ and -")
    if alias in KNOWN and alias != found[2].partition(":")[0].strip():
        raise ConfigError(f"scorer {_shown(text)}: {alias!r} is the name of another scorer; choose another name")
    return alias, found[2].strip()


def _known(word: str, argument: str | None, name: str, device: str) -> ScorerSpec:
    known = KNOWN[word]
    if argument is not None and known.argument is None:
        raise ConfigError(f"scorer {word!r} takes nothing after the name, and has {argument!r}")
    options: dict[str, str | int | float | bool] = {"device": device} if known.has_model else {}
    if known.argument:
        options[known.argument] = _value(word, known, argument)
    return ScorerSpec(name=name, factory=known.factory, options=options, version=known.version)


def _value(word: str, known: Known, argument: str | None) -> str | int:
    if argument is None and known.default is not None:
        return known.default
    given = (argument or "").strip()
    if not given:
        raise ConfigError(f"scorer {word!r} needs a {known.argument}: write {word}:{(known.argument or '').upper()}")
    if not isinstance(known.default, int):
        return given
    if not given.isdecimal():
        raise ConfigError(f"scorer {word!r}: {known.argument}={given!r} must be a whole number")
    check_radius(int(given))
    return int(given)


def _anyones(wanted: str, alias: str | None, device: str) -> ScorerSpec:
    try:
        found = find_factory(wanted)
    except ConfigError as error:
        near = difflib.get_close_matches(wanted.partition(":")[0], KNOWN, n=1)
        raise ConfigError(f"{error}{f'; did you mean {near[0]}?' if near else ''}") from None
    name = alias or _snake(wanted.partition(":")[2])
    if name in KNOWN and not alias:
        raise ConfigError(f"scorer {wanted!r}: {name!r} is the name of another scorer; write NAME={wanted}")
    return ScorerSpec(
        name=name, factory=wanted, options={"device": device}, version=str(getattr(found, "version", "1"))
    )


def _snake(name: str) -> str:
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", name).lower().strip("_")[:64]


def _nearest(word: str) -> str:
    near = difflib.get_close_matches(word, KNOWN, n=3)
    if near:
        return f"did you mean {', '.join(near)}?"
    return f"known: {', '.join(KNOWN)}; or package.module:Class"


def _shown(text: str) -> str:
    return repr(uri.redact(text)[:120])
