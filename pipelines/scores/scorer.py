"""What a scorer is, and how its answers become a table. Knows no store, no Ray and none of the scorers.

A scorer is given pictures and answers with one dict of its columns for each, in their order. What it answers wrongly,
or raises, becomes the ``score_error`` of the pictures that it concerns: no picture is lost, and no run ends.
"""

from __future__ import annotations

import importlib
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

import pyarrow as pa

from omnigen_actor import uri
from omnigen_actor.errors import ConfigError, first_line

if TYPE_CHECKING:
    from PIL import Image

ID_COLUMNS = ("id", "sample", "sha256")
ERROR_COLUMN = "score_error"

_IMAGE_FIELDS = [
    pa.field("id", pa.string(), nullable=False),
    pa.field("sample", pa.int32(), nullable=False),
    pa.field("sha256", pa.string(), nullable=False),  # of the image file: a score belongs to it alone
]
_ERROR_FIELD = pa.field(ERROR_COLUMN, pa.string())
_NOT_SETTINGS = frozenset({"device"})
"""Options that say where a scorer runs, and not what it answers."""
_ATTRIBUTES = ("name", "columns", "needs_inputs", "num_gpus", "batch_size")
_LONGEST_ERROR = 300


@dataclass(frozen=True, slots=True, kw_only=True)
class Picture:
    """An image of the store, and what it was made from.

    ``image`` and ``inputs`` are PIL images in RGB; ``inputs`` as the model saw them, empty where the scorer does not
    need them. ``sha256`` is of the image file.
    """

    id: str
    sample: int
    sha256: str
    task: str
    prompt: str
    instruction: str
    image: Image.Image
    inputs: tuple[Image.Image, ...] = ()


Score = dict[str, object]
"""One picture's values by column. None: the scorer has no answer for this picture."""


@runtime_checkable
class Scorer(Protocol):
    """Judges pictures, some at a time.

    ``columns``: what it answers, Arrow types. ``needs_inputs``: whether it looks at the input images. ``num_gpus``: of
    its worker. ``batch_size``: pictures at a time.
    """

    name: str
    columns: pa.Schema
    needs_inputs: bool
    num_gpus: float
    batch_size: int

    def __call__(self, pictures: Sequence[Picture]) -> list[Score]:
        """One dict of the columns for each picture, in order. Raises for the whole batch."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class ScorerSpec:
    """What it takes to open a scorer elsewhere: plain values that travel to a worker.

    ``name``: of its folder in the store. ``factory``: ``package.module:name`` of a function or class, called with
    ``options``. ``version``: another one answers differently with the same options.
    """

    name: str
    factory: str
    options: Mapping[str, str | int | float | bool] = field(default_factory=dict)
    version: str = "1"

    @property
    def settings(self) -> dict[str, object]:
        """What its answers depend on, for scorer.json."""
        kept = {key: self.options[key] for key in sorted(self.options) if key not in _NOT_SETTINGS}
        return {"factory": self.factory} | {
            key: uri.redact(value) if isinstance(value, str) else value for key, value in kept.items()
        }

    def open(self) -> Scorer:
        """The scorer, with its weights in memory. Raises ConfigError where there is none, or where it is no scorer."""
        scorer = find_factory(self.factory, self.name)(dict(self.options))
        missing = [name for name in _ATTRIBUTES if not hasattr(scorer, name)]
        if missing or not isinstance(scorer, Scorer):
            lacks = ", ".join(missing or ["__call__"])
            raise ConfigError(f"scorer {self.name!r}: {self.factory} gave {type(scorer).__name__}, which lacks {lacks}")
        check_columns(self.name, scorer.columns)
        if scorer.batch_size < 1:
            raise ConfigError(f"scorer {self.name!r}: batch_size={scorer.batch_size}: must be at least 1")
        return scorer


def find_factory(factory: str, name: str = "") -> Callable[[dict[str, Any]], object]:
    """The function or class ``package.module:name``. Raises ConfigError."""
    module, _, attribute = factory.partition(":")
    try:
        found = getattr(importlib.import_module(module), attribute)
    except (ImportError, AttributeError, ValueError) as error:
        raise ConfigError(
            f"scorer {name or factory!r}: {first_line(error)}; the form is package.module:Class"
        ) from None
    if not callable(found):
        raise ConfigError(f"scorer {name or factory!r}: {factory} is {type(found).__name__}, not a class or a function")
    called: Callable[[dict[str, Any]], object] = found
    return called


def check_columns(name: str, columns: pa.Schema) -> None:
    """Raises ConfigError where a scorer's columns can't stand in its table."""
    if not columns.names:
        raise ConfigError(f"scorer {name!r}: has no columns")
    taken = {*ID_COLUMNS, ERROR_COLUMN}
    bad = sorted({one for one in columns.names if one in taken or columns.names.count(one) > 1})
    if bad:
        raise ConfigError(f"scorer {name!r}: the column {bad[0]!r} is there already; rename it")


def score_schema(columns: pa.Schema) -> pa.Schema:
    """The schema of a scorer's table: id, sample and sha256 of the image, its columns, and ``score_error``."""
    return pa.schema([*_IMAGE_FIELDS, *(one.with_nullable(True) for one in columns), _ERROR_FIELD])


def describe(spec: ScorerSpec, columns: pa.Schema) -> dict[str, object]:
    """What scorer.json holds: two scorers whose descriptions are equal give equal scores."""
    types = {one.name: str(one.type) for one in columns}
    return {"name": spec.name, "settings": spec.settings, "version": spec.version, "columns": types}


def error_table(images: Sequence[tuple[str, int, str]], message: str, columns: pa.Schema) -> pa.Table:
    """Rows without scores for (id, sample, sha256), all with the same ``score_error``."""
    names = ID_COLUMNS
    rows = [{**dict(zip(names, image, strict=True)), ERROR_COLUMN: _short(message)} for image in images]
    return pa.Table.from_pylist(rows, schema=score_schema(columns))


def score_table(scorer: Scorer, pictures: Sequence[Picture]) -> pa.Table:
    """One row for each picture, in order: its scores, or why it has none. Never raises for what a scorer does.

    A batch that fails is tried picture by picture, so that one bad picture does not cost the others their scores.
    """
    try:
        answers = _answers(scorer, pictures)
    except Exception as error:  # scorers are anyone's code
        if len(pictures) > 1:
            return pa.concat_tables([score_table(scorer, [picture]) for picture in pictures])
        images = [(one.id, one.sample, one.sha256) for one in pictures]
        return error_table(images, f"{type(error).__name__}: {first_line(error)}", scorer.columns)
    rows = [_row(picture, answer, scorer.columns) for picture, answer in zip(pictures, answers, strict=True)]
    return pa.Table.from_pylist(rows, schema=score_schema(scorer.columns))


def _answers(scorer: Scorer, pictures: Sequence[Picture]) -> Sequence[object]:
    answers: Sequence[object] = scorer(pictures)
    if len(answers) != len(pictures):
        raise ValueError(f"scorer {scorer.name!r} gave {len(answers)} answers for {len(pictures)} pictures")
    return answers


def _row(picture: Picture, answer: object, columns: pa.Schema) -> dict[str, object]:
    image: dict[str, object] = {"id": picture.id, "sample": picture.sample, "sha256": picture.sha256}
    problem = _problem(answer, columns)
    if problem is not None:
        return image | {ERROR_COLUMN: _short(problem)}
    assert isinstance(answer, Mapping)
    return image | dict(answer)


def _problem(answer: object, columns: pa.Schema) -> str | None:
    if not isinstance(answer, Mapping):
        return f"the answer is {type(answer).__name__}, and must be a dict"
    if set(answer) != set(columns.names):
        return f"the answer has {', '.join(map(repr, answer)) or 'nothing'}; the columns are {', '.join(columns.names)}"
    return next((found for one in columns if (found := _problem_of(answer[one.name], one))), None)


def _problem_of(value: object, column: pa.Field) -> str | None:
    if value is None:
        return None
    try:
        kept = pa.array([value], column.type)[0].as_py()
    except (pa.ArrowException, TypeError, ValueError, OverflowError) as error:
        return f"{column.name}={value!r}: must be {column.type} ({first_line(error)})"
    if isinstance(kept, float) and not math.isfinite(kept):
        return f"{column.name}={value!r}: not a finite number"
    if pa.types.is_integer(column.type) and kept != value:  # Arrow cuts 1.5 to 1 without a word
        return f"{column.name}={value!r}: must be {column.type}"
    return None


def _short(message: str) -> str:
    return " ".join(message.split())[:_LONGEST_ERROR]
