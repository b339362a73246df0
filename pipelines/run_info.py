"""run.json: what the images of a store were made with, and the history of its runs. Knows no rows, no Ray, no torch."""

from __future__ import annotations

import dataclasses
import json
import secrets
from collections.abc import Sequence
from datetime import UTC, datetime
from importlib import metadata
from typing import Any

from omnigen_actor import store, uri
from omnigen_actor.checkpoint.adapters import parse_adapter
from omnigen_actor.errors import OutputError
from pipelines.config import RunConfig

_PACKAGES = ("omnigen-batch", "ray", "torch", "transformers", "diffusers", "numpy", "pillow", "pyarrow")
_MAX_BYTES = 64 * 2**20
_BEFORE = {"vae_dtype": "float32", "approximations": [], "adapters": []}
"""What a store was made with whose ``run.json`` is older than these settings."""


def new_run_id() -> str:
    """A name for one run: the time in UTC, for people, and enough chance for two runs of one second."""
    return f"{datetime.now(UTC):%Y%m%dT%H%M%SZ}-{secrets.token_hex(3)}"


def fingerprint(config: RunConfig, model_sha256: str) -> dict[str, Any]:
    """Everything that pixels depend on beside the rows. The number of samples does not change any one of them.

    Raises ModelError for an adapter whose weight is no number.
    """
    generation = dataclasses.asdict(config.generation)
    del generation["num_samples"]
    own = {
        "model_sha256": model_sha256,
        "image_format": config.images.image_format,
        "dtype": config.workers.dtype,
        "vae_dtype": config.engine.vae_dtype,
        "approximations": list(config.engine_settings().approximations),
        "adapters": _named(config.engine.adapters),
    }
    return own | generation


def read_history(store_root: str, expected: dict[str, Any]) -> list[dict[str, Any]]:
    """The runs so far; none in a new store. Raises OutputError when the store's images were made with anything else."""
    try:
        text = uri.read_bytes(uri.join(store_root, store.RUN_KEY), max_bytes=_MAX_BYTES)
        found = json.loads(text)
        made_with, runs = _BEFORE | dict(found["fingerprint"]), list(found["runs"])
    except uri.UriNotFound:
        return []
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise OutputError(f"{store.RUN_KEY} of {uri.redact(store_root)!r} can't be read ({error})") from None
    different = sorted(name for name in made_with.keys() | expected if made_with.get(name) != expected.get(name))
    if different:
        changes = ", ".join(f"{name}={made_with.get(name)!r} (now {expected.get(name)!r})" for name in different)
        raise OutputError(
            f"output {uri.redact(store_root)!r} holds images made with {changes}: "
            "choose another output, or the same settings"
        )
    return runs


def write(
    store_root: str, made_with: dict[str, Any], runs: Sequence[dict[str, Any]], run_id: str, config: RunConfig
) -> None:
    """Add a run to the history."""
    settings = dataclasses.asdict(config) | {"model": uri.redact(config.model)}
    settings["engine"]["adapters"] = _named(config.engine.adapters)
    settings["inputs"]["image_root"] = config.inputs.image_root and uri.redact(config.inputs.image_root)
    run = {
        "run_id": run_id,
        "started_at": datetime.now(UTC).isoformat(timespec="seconds"),
        "config": settings,
        "versions": _versions(),
    }
    content = {"fingerprint": made_with, "runs": [*runs, run]}
    text = json.dumps(content, indent=2) + "\n"
    uri.write_bytes(uri.join(store_root, store.RUN_KEY), text.encode())


def _named(adapters: Sequence[str]) -> list[str]:
    """Name and weight of each, without secrets. ``model_sha256`` tells what is in them."""
    return [f"{uri.redact(name)}@{weight:g}" for name, weight in map(parse_adapter, adapters)]


def _versions() -> dict[str, str]:
    found = {}
    for package in _PACKAGES:
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:  # a checkout that is not installed
            continue
    return found
