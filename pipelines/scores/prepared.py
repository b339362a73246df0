"""A scorer as the driver knows it: its settings with the identity of its weights, and what it needs. Loads no weights.

The factories of the package say by their return type which class they give, and its attributes say what it needs. A
scorer that tells nothing before it is made is opened here once.
"""

from __future__ import annotations

import inspect
import typing
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import pyarrow as pa

from omnigen_actor import uri
from omnigen_actor.errors import ConfigError
from pipelines.scores.registry import KNOWN
from pipelines.scores.scorer import Scorer, ScorerSpec, check_columns, describe, find_factory
from pipelines.scores.weights import find_weights

_ATTRIBUTES = ("columns", "needs_inputs", "num_gpus")
_WITH_LABELS = frozenset({"aesthetic", "nsfw"})
_MODELS = {known.factory: word for word, known in KNOWN.items() if known.has_model}


@dataclass(frozen=True, slots=True, kw_only=True)
class Prepared:
    """A scorer that can be opened elsewhere. ``num_gpus``: of one worker, where there are GPUs."""

    spec: ScorerSpec
    columns: pa.Schema
    needs_inputs: bool
    num_gpus: float

    @property
    def name(self) -> str:
        """Of its folder in the store."""
        return self.spec.name

    @property
    def description(self) -> dict[str, Any]:
        """What scorer.json holds, without secrets."""
        found = describe(self.spec, self.columns)
        settings = dict(typing.cast("Mapping[str, Any]", found["settings"]))
        if "model" in settings:
            settings["model"] = uri.redact(str(settings["model"]))
        return {**found, "settings": settings}

    def on(self, device: str) -> ScorerSpec:
        """What a worker on this device opens."""
        if "device" not in self.spec.options:
            return self.spec
        return replace(self.spec, options={**self.spec.options, "device": device})


def prepare(spec: ScorerSpec) -> Prepared:
    """A scorer, once its weights are found. Raises ModelError for weights, ConfigError for what is no scorer."""
    if spec.factory in _MODELS:
        spec = _with_weights(spec)
    facts = _promised(find_factory(spec.factory, spec.name))
    if facts is None:
        facts = _facts(spec.open())
        assert facts is not None
    check_columns(spec.name, facts["columns"])
    return Prepared(
        spec=spec,
        columns=facts["columns"],
        needs_inputs=bool(facts["needs_inputs"]),
        num_gpus=float(facts["num_gpus"]),
    )


def _with_weights(spec: ScorerSpec) -> ScorerSpec:
    """The spec with the sha256 of its weights, and with the label that follows a ``#``."""
    word = _MODELS[spec.factory]
    model, mark, label = str(spec.options["model"]).partition("#")
    if mark and (word not in _WITH_LABELS or not label):
        raise ConfigError(f"scorer {spec.name!r}: {word} takes no label after the model; leave out {mark + label!r}")
    options = {**spec.options, "model": model, **({"label": label} if label else {})}
    return replace(spec, options={**options, "weights_sha256": find_weights(model).sha256})


def _promised(factory: Callable[..., object]) -> dict[str, Any] | None:
    """What the class says that a factory gives, where it is known before one is made."""
    if inspect.isclass(factory):
        return _facts(factory)
    try:
        made = typing.get_type_hints(factory).get("return")
    except (NameError, TypeError):
        return None
    return _facts(made) if inspect.isclass(made) and made is not Scorer else None


def _facts(source: object) -> dict[str, Any] | None:
    found = {name: getattr(source, name, None) for name in _ATTRIBUTES}
    is_told = isinstance(found["columns"], pa.Schema) and not any(value is None for value in found.values())
    return found if is_told and not any(isinstance(value, property) for value in found.values()) else None
