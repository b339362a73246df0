"""What the rows of a run may read: the places that its settings and its own files name. Knows no rows."""

from __future__ import annotations

from omnigen_actor import store, uri
from omnigen_actor.allowed import Allowed, allow, origin
from omnigen_actor.errors import ConfigError
from omnigen_actor.remote_http import is_http
from pipelines.config import InputConfig
from pipelines.locations import locate


def allowed_of_run(inputs: InputConfig, manifest_folder: str, store_root: str) -> Allowed:
    """Below the manifest's folder (of a web server: all of it), ``image_root``, the store's images and ``allow``.

    Raises ConfigError.
    """
    named = [locate(place, ConfigError, "allow=") for place in inputs.allow]
    roots = [] if inputs.image_root is None else [locate(inputs.image_root, ConfigError, "image_root=")]
    home = origin(manifest_folder) if is_http(manifest_folder) else manifest_folder
    try:
        return allow(named, (home, *roots, uri.join(store_root, store.IMAGES)))
    except ValueError as error:
        raise ConfigError(f"allow={[uri.redact(place) for place in named]}: {error}") from None
