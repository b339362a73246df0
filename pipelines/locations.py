"""Places that a user names, as absolute paths or URIs. Knows no files and no tables."""

from __future__ import annotations

from pathlib import Path

from omnigen_actor import uri
from omnigen_actor.errors import StartupError


def locate(given: str, error_class: type[StartupError], what: str = "") -> str:
    """``given`` from this process's folder on. Raises ``error_class`` that says ``what`` it is, without its secrets."""
    try:
        return uri.resolve(given, str(Path.cwd()))
    except ValueError as error:
        raise error_class(f"{what}{uri.redact(given)!r}: {error}") from None
