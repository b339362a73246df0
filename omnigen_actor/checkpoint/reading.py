"""Reads the small files of a checkpoint, with errors that a user can act on. Knows neither weights nor models.

``label`` is how a message begins: the kind and the name of what is opened, without secrets.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from omnigen_actor.errors import ModelError


def read_json(label: str, path: Path) -> dict[str, Any]:
    """The JSON object in a file. Raises ModelError."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ModelError(f"{label} is incomplete: {short(path)} is missing") from None
    except (OSError, ValueError) as error:
        raise ModelError(f"{label}: {short(path)} can't be read ({error})") from None
    if not isinstance(content, dict):
        raise ModelError(f"{label}: {short(path)} does not hold a JSON object")
    return content


def short(path: Path) -> str:
    """A file's name with that of its folder."""
    return f"{path.parent.name}/{path.name}"
