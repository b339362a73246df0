"""The weights of a scoring model: its name to a local folder and to one sha256. Knows no torch and no scores.

Only files that can't run anything are fetched and read: JSON, text, safetensors. A model whose weights are pickled is
refused.
"""

from __future__ import annotations

import fnmatch
from dataclasses import dataclass
from pathlib import Path

from omnigen_actor import uri
from omnigen_actor.checkpoint import digests
from omnigen_actor.checkpoint.fetching import local_folder
from omnigen_actor.checkpoint.headers import check_whole
from omnigen_actor.errors import ModelError, first_line

FILES = ("*.json", "*.safetensors", "*.txt", "*.model")
"""Configuration, weights, vocabularies."""

_CONFIG = "config.json"


@dataclass(frozen=True, slots=True)
class Weights:
    """A model's folder on this node, and one sha256 over the names and bytes of all that is read of it."""

    folder: Path
    sha256: str


def find_weights(model: str, expected_sha256: str | None = None) -> Weights:
    """The weights of ``model``: a folder, a URI of one, or a hub id (from the hub's cache where it is whole there).

    Raises ModelError where there are none, where they are no safetensors, and where they are not ``expected_sha256``.
    """
    label = f"scoring model {uri.redact(model)!r}"
    folder = local_folder(model, label, FILES)
    try:
        files = sorted(path for path in folder.iterdir() if path.is_file() and _is_read(path.name))
        _check(label, files)
        found = digests.combine((path.name, digests.sha256(path)) for path in files)
    except OSError as error:
        raise ModelError(f"{label} can't be read: {first_line(error)}") from None
    if expected_sha256 not in (None, found):
        raise ModelError(f"{label} has sha256 {found} on this node, and {expected_sha256} where the job was started")
    return Weights(folder, found)


def _is_read(name: str) -> bool:
    return any(fnmatch.fnmatch(name, star) for star in FILES)


def _check(label: str, files: list[Path]) -> None:
    if not any(path.name == _CONFIG for path in files):
        raise ModelError(f"{label} has no {_CONFIG}: give the folder or hub id of a transformers model")
    weights = [path for path in files if path.suffix == ".safetensors"]
    if not weights:
        raise ModelError(f"{label} has no *.safetensors, and pickled weights are not read: choose one that has")
    for path in weights:
        check_whole(label, path)
