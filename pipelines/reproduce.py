"""Rows of a store made again from their records alone, and compared. Knows no argv and no Ray: one engine, here.

records ─► run.json's settings ─► input images ─► one engine for all rows of the same settings ─► verdicts

A row is made alone, whatever it shared a wave with: on a CPU that is how it was made, on a GPU rounding may differ.
"""

from __future__ import annotations

import dataclasses
import json
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from itertools import zip_longest
from typing import NamedTuple

from PIL import Image

from omnigen_actor import store, uri
from omnigen_actor.actor import make_request
from omnigen_actor.engine_settings import EngineSettings
from omnigen_actor.engines import is_class, open_engine, verify_model
from omnigen_actor.errors import ConfigError, ModelError, OutputError
from omnigen_actor.images import EXTENSIONS
from omnigen_actor.types import Engine, Failure
from pipelines import references, reproduce_rows, run_info
from pipelines.locations import locate
from pipelines.reproduce_compare import (
    Finding,
    Record,
    Stored,
    Verdict,
    compare,
    describe,
    encode_again,
    finding,
    read_stored,
)
from pipelines.reproduce_rows import InputReader, Inputs
from pipelines.run_info import PastRun
from pipelines.stopping import store_failures
from pipelines.stored import current_images, open_store

_DEVICES = ("auto", "cuda", "cpu")
_CPU = "cpu"


@dataclass(frozen=True, slots=True, kw_only=True)
class ReproduceConfig:
    """Which rows, and what run.json does not know here. Raises ConfigError.

    ``ids``: ``id`` or ``id#sample`` each; with none, ``num_rows`` are drawn by ``seed``. ``model`` takes the place of
    the recorded name. ``device``: by default that of the record. ``output``: where what was made is kept.
    """

    ids: tuple[str, ...] = ()
    num_rows: int = 20
    seed: int = 0
    model: str | None = None
    image_root: str | None = None
    allow: tuple[str, ...] = ()
    device: str | None = None
    output: str | None = None

    def __post_init__(self) -> None:
        if self.num_rows < 1:
            raise ConfigError(f"num={self.num_rows}: must be 1 or greater")
        if self.device is not None and self.device not in _DEVICES:
            raise ConfigError(f"device={self.device!r}: must be one of {', '.join(_DEVICES)}")


@dataclass(frozen=True, slots=True, kw_only=True)
class ReproduceReport:
    """The verdicts in the order of ids and samples; ``store`` without its secrets."""

    store: str
    findings: Sequence[Finding]
    seconds: float
    counts: Counter[Verdict] = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "counts", Counter(one.verdict for one in self.findings))

    @property
    def num_bad(self) -> int:
        """Rows that are not reproduced."""
        return sum(not one.is_good for one in self.findings)

    def to_json(self) -> str:
        """All of it, for machines."""
        rows = [dataclasses.asdict(one) | {"is_good": one.is_good} for one in self.findings]
        told = {"store": self.store, "seconds": self.seconds, "counts": self.counts, "rows": rows}
        return json.dumps(told, indent=2) + "\n"


def reproduce(
    location: str, config: ReproduceConfig, on_row: Callable[[Finding], None] = lambda _: None
) -> ReproduceReport:
    """Make rows of a store again and compare them with it. ``on_row`` hears of each row once it is known.

    Raises OutputError where there is no store, ConfigError for an unknown id, ModelError for the given ``model``.
    """
    started = time.monotonic()
    store_root = open_store(location)
    runs = run_info.read_runs(store_root)
    tables = current_images(store_root)
    if config.ids:
        records = reproduce_rows.named(tables, config.ids)
    else:
        records = reproduce_rows.drawn(tables, config.num_rows, config.seed)
    if not records:
        raise OutputError(f"store {uri.redact(store_root)!r} has no images: there is nothing to reproduce")
    with store_failures(OutputError):
        findings = sorted(_findings(store_root, records, runs, config, on_row), key=lambda one: (one.id, one.sample))
    return ReproduceReport(store=uri.redact(store_root), findings=findings, seconds=time.monotonic() - started)


class _Key(NamedTuple):
    """What rows must have in common to be made by one engine."""

    model: str
    settings: EngineSettings


def _findings(
    store_root: str,
    records: Sequence[Record],
    runs: Mapping[str, PastRun],
    config: ReproduceConfig,
    on_row: Callable[[Finding], None],
) -> Iterator[Finding]:
    groups: dict[_Key | None, list[Record]] = {}
    for record in records:
        groups.setdefault(_key(record, runs.get(record["run_id"]), config), []).append(record)
    for key, rows in groups.items():
        with closing(_Workbench(store_root, key, config)) as workbench:
            for record in rows:
                found = workbench.judge(record, runs.get(record["run_id"]))
                on_row(found)
                yield found


def _key(record: Record, run: PastRun | None, config: ReproduceConfig) -> _Key | None:
    """None for a run that run.json does not have."""
    if run is None:
        return None
    device = config.device or (_CPU if record["device"] == _CPU else None)
    return _Key(config.model or run.config.model, run.config.engine_settings(device))


class _Workbench:
    """One engine, opened for the first row that needs it, and the rows that it makes."""

    def __init__(self, store_root: str, key: _Key | None, config: ReproduceConfig) -> None:
        self._store_root, self._key, self._config = store_root, key, config
        self._output = config.output and locate(config.output, OutputError, "output ")
        image_root = config.image_root and locate(config.image_root, ConfigError, "image_root=")
        self._read_inputs = InputReader(store_root, image_root, config.allow)
        self._engine: Engine | None = None
        self._sha256: str | None = None
        self._model_error: ModelError | None = None

    def close(self) -> None:
        """Free the engine."""
        if self._engine:
            self._engine.close()

    def judge(self, record: Record, run: PastRun | None) -> Finding:
        """The verdict on one row. Raises UriFailed for the store, ModelError for a model that the user named.

        An image that is missing or tampered with is made again all the same: that tells what it was.
        """
        if run is None or self._key is None:
            return finding(record, Verdict.RUN_UNKNOWN, f"{store.RUN_KEY} does not have its run {record['run_id']}")
        stored = read_stored(self._store_root, record)
        if stored.fault and stored.fault.verdict is Verdict.RECORD_TAMPERED:
            return stored.fault  # there is nothing to make it from
        again = self._make_again(record, run, stored, self._key)
        return stored.fault if stored.fault and again.made_sha256 is None else again

    def _make_again(self, record: Record, run: PastRun, stored: Stored, key: _Key) -> Finding:
        inputs = self._read_inputs(record, run)
        if fault := _input_fault(record, inputs):
            return fault
        engine = self._engine_for(record, key)
        if isinstance(engine, Finding):
            return engine
        made = _make(engine, record, inputs, run.config.generation.max_input_image_size)
        if isinstance(made, str):
            return finding(record, Verdict.FAILED, made)
        data = encode_again(made, record, stored, embeds=run.config.images.embed_provenance)
        if self._output:
            name = store.image_key(record["id"], record["sample"], EXTENSIONS[record["format"]]).rpartition("/")[2]
            uri.write_bytes(uri.join(self._output, name), data)
        max_pixels = run.config.inputs.max_image_pixels
        return compare(record, stored, data, made_on=engine.info.device, max_pixels=max_pixels)

    def _engine_for(self, record: Record, key: _Key) -> Engine | Finding:
        try:
            return self._opened(record, key)
        except ModelError as error:
            if self._config.model is not None:
                raise
            self._model_error = error  # the next row need not try
            return finding(record, Verdict.MODEL_MISSING, f"{error}; name the model with --model")

    def _opened(self, record: Record, key: _Key) -> Engine | Finding:
        if self._model_error:
            raise self._model_error
        if self._sha256 is None:
            self._sha256 = self._identify(key)
        if record["model_sha256"] != self._sha256:
            message = (
                f"model {uri.redact(key.model)!r} has weights of sha256 {self._sha256}, and the record "
                f"{record['model_sha256']}: name a model with those with --model"
            )
            return finding(record, Verdict.MODEL_CHANGED, message)
        if self._engine is None:
            self._engine = open_engine(key.model, key.settings)
        return self._engine

    def _identify(self, key: _Key) -> str:
        """The sha256 of the present weights; only a class must be opened for it."""
        if not is_class(key.model):
            return verify_model(key.model, key.settings.adapters)
        if self._config.model is None:
            raise ModelError(f"model {key.model!r} is a class, and no store decides which code runs")
        self._engine = open_engine(key.model, key.settings)
        return self._engine.info.sha256


def _input_fault(record: Record, inputs: Inputs) -> Finding | None:
    if inputs.error is not None:
        return finding(record, Verdict.INPUT_MISSING, inputs.error)
    changed = [
        uri.redact(name) if not name.startswith(references.PREFIX) else name
        for name, now, before in zip_longest(record["images"], inputs.sha256, record["image_sha256"], fillvalue="")
        if now != before
    ]
    if not changed:
        return None
    return finding(record, Verdict.INPUT_CHANGED, f"the sha256 of {', '.join(changed)} is not that of the record")


def _make(engine: Engine, record: Record, inputs: Inputs, max_input_image_size: int) -> Image.Image | str:
    """The image, or why there is none."""
    try:
        request = make_request(record, inputs.pixels, inputs.sizes, max_input_image_size)
        (outcome,) = engine.generate([request])
    except Exception as error:  # engines raise what they like
        return describe(error)
    return outcome.error.message if isinstance(outcome, Failure) else outcome.image
