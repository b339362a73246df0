"""run.json: what the images of a store were made with, and the history of its runs. Knows no rows, no Ray, no torch."""

from __future__ import annotations

import dataclasses
import json
import re
import secrets
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib import metadata
from typing import Any

from omnigen_actor import store, uri
from omnigen_actor.checkpoint.adapters import parse_adapter
from omnigen_actor.errors import OutputError
from pipelines.config import GenerationConfig, RunConfig
from pipelines.settings import RUN

_PACKAGES = ("omnigen-batch", "ray", "torch", "transformers", "diffusers", "numpy", "pillow", "pyarrow")
RUN_ID = re.compile(r"\d{8}T\d{6}Z-[0-9a-f]{6}")
"""What ``new_run_id`` gives."""

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


@dataclass(frozen=True, slots=True)
class History:
    """The runs of a store so far, and what earlier ones made images with if that was not the same (--allow-mixed).

    ``earlier``: ``{"fingerprint": …, "run_ids": […]}``, oldest first; the runs in none of them had the present one.
    """

    runs: Sequence[dict[str, Any]] = ()
    earlier: Sequence[dict[str, Any]] = ()

    def generations(self, present: GenerationConfig) -> list[GenerationConfig]:
        """The defaults of rows that earlier images were made with, the newest first, beside the present ones."""
        found: dict[GenerationConfig, None] = {}
        for one in reversed(self.earlier):
            own = {entry.name for entry in dataclasses.fields(GenerationConfig)} & one["fingerprint"].keys()
            values = {name: one["fingerprint"][name] for name in own}
            found[GenerationConfig(**{**values, "num_samples": present.num_samples})] = None
        found.pop(present, None)
        return list(found)


def read_history(store_root: str, expected: dict[str, Any], *, allow_mixed: bool = False) -> History:
    """The runs so far; none in a new store.

    Raises OutputError when the last one made images with anything else and ``allow_mixed`` is not given, and for
    another image format in any case: a reference to a row finds its image by it.
    """
    try:
        with _reading(store_root) as found:
            made_with = _BEFORE | dict(found["fingerprint"])
            history = History(list(found["runs"]), list(found.get("earlier", ())))
            history.generations(GenerationConfig())
    except uri.UriNotFound:
        return History()
    different = sorted(name for name in made_with.keys() | expected if made_with.get(name) != expected.get(name))
    if not different:
        return history
    changes = ", ".join(f"{name}={made_with.get(name)!r} (now {expected.get(name)!r})" for name in different)
    what = (
        f"output {uri.redact(store_root)!r} holds images made with {changes}: choose another output, the same settings"
    )
    if "image_format" in different:
        raise OutputError(f"{what.replace(', the', ' or the')}; a store has one image format")
    if not allow_mixed:
        raise OutputError(f"{what}, or --allow-mixed: what is done stays, the rest is made with the new ones")
    return _with_earlier(history, made_with)


@contextmanager
def _reading(store_root: str) -> Iterator[dict[str, Any]]:
    """The content of run.json. What goes wrong with it is an OutputError; UriNotFound where there is none."""
    try:
        yield json.loads(uri.read_bytes(uri.join(store_root, store.RUN_KEY), max_bytes=_MAX_BYTES))
    except uri.UriNotFound:
        raise
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise OutputError(f"{store.RUN_KEY} of {uri.redact(store_root)!r} can't be read ({error})") from None


@dataclass(frozen=True, slots=True)
class PastRun:
    """A run of the history: model, and the settings that make an image, the others being defaults.

    ``manifest`` and ``image_base`` are None for a run of an older version.
    """

    config: RunConfig
    manifest: str | None
    image_base: str | None


def read_runs(store_root: str) -> dict[str, PastRun]:
    """The runs of a store by their ids. Raises OutputError where run.json is missing or can't be read."""
    try:
        with _reading(store_root) as found:
            return {run["run_id"]: _past_run(run) for run in found["runs"] if "config" in run}
    except uri.UriNotFound as error:
        raise OutputError(str(error)) from None


def last_fingerprint(store_root: str) -> dict[str, Any]:
    """What the last run of a store made images with, as ``fingerprint`` gave it. Raises OutputError."""
    try:
        with _reading(store_root) as found:
            return dict(found.get("fingerprint", {}))
    except uri.UriNotFound as error:
        raise OutputError(str(error)) from None


def _past_run(run: Mapping[str, Any]) -> PastRun:
    given, values = run["config"], dict[str, Any]()
    for path, setting in RUN.settings.items():
        section = given.get(setting.section, {}) if setting.section else given
        if (setting.section or setting.name == "model") and setting.name in section:
            values[path] = setting.from_yaml(section[setting.name], f"{path} in {store.RUN_KEY}")
    values.setdefault("images.embed_provenance", False)  # older versions could not
    return PastRun(RUN.build(values), run.get("manifest"), run.get("image_base"))


def _with_earlier(history: History, made_with: dict[str, Any]) -> History:
    """The history once the next run has other settings than the last one."""
    told = {run_id for one in history.earlier for run_id in one["run_ids"]}
    run_ids = [run["run_id"] for run in history.runs if run["run_id"] not in told]
    return History(history.runs, [*history.earlier, {"fingerprint": made_with, "run_ids": run_ids}])


def write(
    store_root: str,
    made_with: dict[str, Any],
    history: History,
    run_id: str,
    config: RunConfig,
    *,
    manifest: str | None = None,
    image_base: str | None = None,
) -> None:
    """Add a run to the history. ``image_base``: where relative references of its manifest start."""
    settings = dataclasses.asdict(config) | {"model": uri.redact(config.model)}
    settings["engine"]["adapters"] = _named(config.engine.adapters)
    settings["inputs"]["allow"] = [uri.redact(place) for place in config.inputs.allow]
    settings["inputs"]["image_root"] = config.inputs.image_root and uri.redact(config.inputs.image_root)
    run = {
        "run_id": run_id,
        "started_at": datetime.now(UTC).isoformat(timespec="seconds"),
        "manifest": manifest and uri.redact(manifest),
        "image_base": image_base and uri.redact(image_base),
        "config": settings,
        "versions": versions_of(_PACKAGES),
    }
    content = {"fingerprint": made_with, "earlier": list(history.earlier), "runs": [*history.runs, run]}
    text = json.dumps(content, indent=2) + "\n"
    uri.write_bytes(uri.join(store_root, store.RUN_KEY), text.encode())


def _named(adapters: Sequence[str]) -> list[str]:
    """Name and weight of each, without secrets. ``model_sha256`` tells what is in them."""
    return [f"{uri.redact(name)}@{weight:g}" for name, weight in map(parse_adapter, adapters)]


def versions_of(packages: Sequence[str]) -> dict[str, str]:
    """The versions of those packages that are installed."""
    found = {}
    for package in packages:
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:  # a checkout that is not installed
            continue
    return found
