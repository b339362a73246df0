"""Where the inputs of a store's records lie: references to absolute places, and which of these may be read.

Relative references start at ``image_root``, else where those of the record's run started, which ``run.json`` tells.
Knows no images.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from omnigen_actor import images, store, uri
from omnigen_actor.allowed import Allowed
from omnigen_actor.errors import ConfigError, OutputError
from pipelines import references
from pipelines.config import InputConfig
from pipelines.export.examples import is_relative
from pipelines.locations import locate
from pipelines.places import allowed_of_run

_MAX_BYTES = 64 * 2**20


@dataclass(frozen=True, slots=True)
class Origins:
    """``bases``: by run the folder that its relative references start at. ``image_root``: instead of all of them."""

    store_root: str
    bases: Mapping[str, str]
    image_root: str | None

    @classmethod
    def of(cls, store_root: str, inputs: InputConfig) -> Origins:
        """As the settings and ``run.json`` say. Raises ConfigError, OutputError."""
        root = None if inputs.image_root is None else locate(inputs.image_root, ConfigError, "image_root=")
        runs = read_run_info(store_root).get("runs", [])
        try:
            bases = {run["run_id"]: run["image_base"] for run in runs if run.get("image_base")}
        except (KeyError, TypeError, AttributeError) as error:
            raise OutputError(f"{store.RUN_KEY} of {uri.redact(store_root)!r} can't be read ({error!r})") from None
        return cls(store_root, bases, root)

    def allowed(self, inputs: InputConfig) -> Allowed:
        """What inputs may be: below the folders that references start at, the store's images, and ``--allow``.

        Raises ConfigError.
        """
        homes = list(dict.fromkeys(self.bases.values())) if self.image_root is None else [self.image_root]
        each = [allowed_of_run(inputs, home, self.store_root) for home in homes or [self._own_images]]
        return Allowed(tuple(dict.fromkeys(place for one in each for place in one.places)))

    def resolve(self, row: Mapping[str, Any]) -> list[str]:
        """Where the images of a record (``id``, ``images``, ``format``, ``run_id``) are; what is no place stays.

        Raises ConfigError for a relative reference of a run whose folder is not known.
        """
        return [self._resolve(text, row) for text in row["images"]]

    def _resolve(self, text: str, row: Mapping[str, Any]) -> str:
        found = references.parse(text)
        if found:
            return uri.join(self.store_root, store.image_key(*found, images.EXTENSIONS.get(row["format"], "")))
        base = self.image_root or self.bases.get(row["run_id"])
        if base is None and is_relative(text):
            raise ConfigError(
                f"row {row['id']!r} names the input {text!r}, and {store.RUN_KEY} does not tell which folder it starts "
                "at: give the manifest's folder as --image-root"
            )
        try:
            return uri.resolve(text, base or "/")
        except ValueError:  # reading it will tell
            return text

    @property
    def _own_images(self) -> str:
        return uri.join(self.store_root, store.IMAGES)


def read_run_info(store_root: str) -> dict[str, Any]:
    """``run.json``. Raises OutputError."""
    try:
        found = json.loads(uri.read_bytes(uri.join(store_root, store.RUN_KEY), max_bytes=_MAX_BYTES))
    except (OSError, ValueError) as error:
        raise OutputError(f"{store.RUN_KEY} of {uri.redact(store_root)!r} can't be read ({error})") from None
    if not isinstance(found, dict):
        raise OutputError(f"{store.RUN_KEY} of {uri.redact(store_root)!r} can't be read: it is no object")
    return found


def settings_of(store_root: str, names: Sequence[str]) -> dict[str, Any]:
    """Of these settings what the store's images were made with, as far as ``run.json`` tells."""
    made_with = read_run_info(store_root).get("fingerprint", {})
    return {name: made_with[name] for name in names if name in made_with}
