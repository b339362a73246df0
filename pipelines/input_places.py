"""Where the input images of a record are, and how large the model saw them: from run.json. Reads no images.

A record has its references as the manifest wrote them. Relative ones start at a folder that the run knew.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from omnigen_actor import store, uri
from omnigen_actor.allowed import Allowed
from omnigen_actor.errors import ConfigError
from omnigen_actor.images import EXTENSIONS
from omnigen_actor.uri_names import local_path
from pipelines import references
from pipelines.config import GenerationConfig, InputConfig
from pipelines.locations import locate
from pipelines.places import allowed_of_run
from pipelines.run_info import read_runs


@dataclass(frozen=True, slots=True)
class InputPlaces:
    """Of each run: the folder of its relative references, where it is known, and the longest side of its inputs."""

    root: str
    image_root: str | None
    bases: Mapping[str, str]
    max_sides: Mapping[str, int]

    @classmethod
    def read(cls, root: str, image_root: str | None) -> InputPlaces:
        """From the run.json of a store; ``image_root`` is the user's word, and goes before. Raises OutputError,
        ConfigError.
        """
        if image_root is not None:
            image_root = locate(image_root, ConfigError, "image_root=")
        bases, max_sides = {}, {}
        for run_id, run in read_runs(root).items():
            base = run.image_base or run.config.inputs.image_root
            if base:
                bases[run_id] = base
            max_sides[run_id] = run.config.generation.max_input_image_size
        return cls(root, image_root, bases, max_sides)

    def max_side(self, run_id: str) -> int:
        """Pixels: the limit that inputs of this run were fitted to."""
        return self.max_sides.get(run_id, GenerationConfig().max_input_image_size)

    def uris(self, record: Mapping[str, Any]) -> list[str]:
        """Where the input images of a record (``id``, ``images``, ``format``, ``run_id``) are; ``row:`` references are
        images of the store.

        Raises ConfigError for a relative reference whose folder nobody has told.
        """
        return [self._uri(text, record) for text in record["images"]]

    def allowed(self, config: InputConfig) -> Allowed:
        """What the rows of this store may read: below the folders of its references, the store's images, ``allow``.

        Raises ConfigError.
        """
        bases = [self.image_root] if self.image_root is not None else sorted(set(self.bases.values()))
        homes = bases or [uri.join(self.root, store.IMAGES)]
        places = [place for home in homes for place in allowed_of_run(config, home, self.root).places]
        return Allowed(tuple(dict.fromkeys(places)))

    def _uri(self, text: str, record: Mapping[str, Any]) -> str:
        found = references.parse(text)
        if found:
            return uri.join(self.root, store.image_key(*found, EXTENSIONS.get(record["format"], "")))
        base = self.image_root or self.bases.get(record["run_id"])
        if base is None:
            if is_relative(text):
                raise ConfigError(
                    f"row {record['id']!r} has the input image {text!r}, and {store.RUN_KEY} does not say where such "
                    "names start: give --image-root"
                )
            base = "/"
        try:
            return uri.resolve(text, base)
        except ValueError:  # it was read once; whatever it is now, reading it will say
            return text


def is_relative(reference: str) -> bool:
    """Whether a reference starts at some folder that it does not name itself."""
    return uri.is_local(reference) and not local_path(reference).is_absolute()
