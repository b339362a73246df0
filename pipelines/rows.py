"""The rules for one manifest row: its cells -> one planned row per sample. Knows no tables, no files, no other rows.

What a row brings is read first, then what it leaves out is filled in: the run's configuration, then the task. The first
fault becomes the row's error; every value that is usable is kept beside it.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Any, NamedTuple, TypeVar

from omnigen_actor import schema, seeding, types, uri
from omnigen_actor.errors import ErrorKind, RowError, Stage
from omnigen_actor.tasks import DEFAULT_TASKS, TaskSpec, TaskTable
from pipelines import references, values
from pipelines.config import GenerationConfig
from pipelines.sweeps import BadSweep, Cells

MAX_ID_LENGTH = 200
MAX_SAMPLES = 10_000

PlannedRow = tuple[object, ...]
"""The cells of one planned row in the order of the schema PLAN."""

_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f]")
_LINE_ERROR = schema.LINE_ERROR.name
_Value = TypeVar("_Value")


@dataclass(slots=True)
class _Faults:
    """What is wrong with a row. The first fault is its error; all of them are part of its content."""

    first: RowError | None = None
    messages: list[str] = field(default_factory=list)
    columns: set[str] = field(default_factory=set)

    def add(self, error: RowError, column: str = "") -> None:
        self.first = self.first or error
        self.messages.append(error.message)
        self.columns.add(column)

    def attempt(self, column: str, function: Callable[..., _Value], *args: object) -> _Value | None:
        """The function's value, or None where the column, or an earlier step of it, is at fault."""
        if column in self.columns:
            return None
        try:
            return function(*args)
        except RowError as error:
            self.add(error, column)
            return None


class _Own(NamedTuple):
    """A manifest row's own values, typed; None where it has none or an unusable one."""

    id: str | None
    num_samples: int | None
    task: str | None
    instruction: str | None
    images: list[str] | None
    width: int | None
    height: int | None
    seed: int | None
    steps: int | None
    guidance_scale: float | None
    img_guidance_scale: float | None
    negative_prompt: str | None


class _Asked(NamedTuple):
    """What a row asks for, in the order of the plan's columns, and how far its images are reduced; all but the seed."""

    task: str | None
    instruction: str | None
    prompt: str | None
    images: list[str]
    width: int | None
    height: int | None
    steps: int | None
    guidance_scale: float | None
    img_guidance_scale: float | None
    negative_prompt: str | None
    max_input_image_size: int | None
    parents: list[str]
    image_uris: list[str]


def check_row(
    cells: Cells,
    generation: GenerationConfig,
    base_folder: str,
    tasks: TaskTable = DEFAULT_TASKS,
    *,
    bad_sweep: BadSweep | None = None,
) -> list[PlannedRow]:
    """One planned row per sample, or a single one where their number is at fault. Never raises for a value.

    ``bad_sweep``: a list of the row's that could not be expanded.
    """
    faults = _Faults()
    if bad_sweep:
        faults.add(bad_sweep.error, bad_sweep.column)
    own = _read(cells, faults)
    row_id = own.id or _content_id(cells, own, faults)
    asked = _resolve(own, generation, base_folder, faults, tasks=tasks, row_id=row_id)
    num_samples = 1 if "num_samples" in faults.columns else own.num_samples or generation.num_samples
    seeds = [_seed(row_id, sample, own, generation, faults) for sample in range(num_samples)]
    return [_planned_row(row_id, sample, seed, asked, faults) for sample, seed in enumerate(seeds)]


def _read(cells: Cells, faults: _Faults) -> _Own:
    line_error = cells.get(_LINE_ERROR)
    if line_error:
        faults.add(RowError(ErrorKind.BAD_ROW, Stage.CHECK, str(line_error["message"])))
    given = ((name, parse, cells.get(name)) for name, parse in _PARSERS.items())
    return _Own(*[None if cell is None else faults.attempt(name, parse, name, cell) for name, parse, cell in given])


def _resolve(
    own: _Own, generation: GenerationConfig, base_folder: str, faults: _Faults, *, tasks: TaskTable, row_id: str
) -> _Asked:
    attempt = faults.attempt
    images = own.images or []
    spec = attempt("task", tasks.find, own.task)
    prompt = None
    if spec and not faults.columns & {"instruction", "images"}:
        prompt = attempt("prompt", spec.prompt, own.instruction, len(images), row_id)
    uris = attempt("images", resolve_uris, images, base_folder)
    sides = attempt("width", _sides, own, spec, generation, faults)
    steps = attempt("steps", _steps, own, generation)
    guidance, img_guidance = (attempt(name, _guidance, name, own, spec, generation) for name in _GUIDANCE)
    width, height = sides or (None, None)
    return _Asked(
        task=spec.name if spec else own.task,
        instruction=own.instruction,
        prompt=prompt,
        images=images,
        width=width,
        height=height,
        steps=steps,
        guidance_scale=guidance,
        img_guidance_scale=img_guidance,
        negative_prompt=own.negative_prompt,
        max_input_image_size=generation.max_input_image_size if images else None,
        parents=list(dict.fromkeys(str(found) for text in images if (found := _reference(text)))),
        image_uris=uris or [],
    )


def _planned_row(row_id: str, sample: int, seed: int | None, asked: _Asked, faults: _Faults) -> PlannedRow:
    # Where the images lie takes no part in the hash: a folder of manifest and images can be moved.
    row_hash = _sha256([row_id, seed, asked[:11], faults.messages])
    error = faults.first
    told = (error.kind.value, error.stage.value, error.message) if error else (None, None, None)
    uris = [] if error else asked.image_uris
    parents = [] if error else asked.parents
    return (row_id, sample, 1, row_hash, *told, *asked[:6], seed, *asked[6:10], parents, int(bool(parents)), uris)


def _own_id(name: str, value: object) -> str | None:
    found = values.text(name, value, ErrorKind.BAD_ID)
    if found and len(found) > MAX_ID_LENGTH:
        raise _bad(ErrorKind.BAD_ID, f"id={values.shorten(found)}: longer than {MAX_ID_LENGTH} characters")
    if found and _CONTROL.search(found):
        raise _bad(ErrorKind.BAD_ID, f"id={values.shorten(found)}: must not hold control characters")
    return found


def _own_samples(name: str, value: object) -> int | None:
    found = values.integer(name, value)
    if found is not None and not 1 <= found <= MAX_SAMPLES:
        raise _bad(ErrorKind.BAD_PARAMETER, f"num_samples={found}: must be between 1 and {MAX_SAMPLES}")
    return found


def _own_seed(name: str, value: object) -> int | None:
    found = values.integer(name, value)
    if found is not None:
        types.check_seed(found)
    return found


_GUIDANCE = ("guidance_scale", "img_guidance_scale")
_PARSERS: dict[str, Callable[[str, object], Any]] = {
    "id": _own_id,
    "num_samples": _own_samples,
    "task": partial(values.text, kind=ErrorKind.UNKNOWN_TASK),
    "instruction": partial(values.text, kind=ErrorKind.BAD_INSTRUCTION),
    "images": values.uri_list,
    "width": partial(values.integer, kind=ErrorKind.BAD_SIZE),
    "height": partial(values.integer, kind=ErrorKind.BAD_SIZE),
    "seed": _own_seed,
    "steps": values.integer,
    "guidance_scale": values.number,
    "img_guidance_scale": values.number,
    "negative_prompt": partial(values.text, kind=ErrorKind.BAD_PARAMETER),
}
assert tuple(_PARSERS) == _Own._fields


def _content_id(cells: Cells, own: _Own, faults: _Faults) -> str:
    """An id for a row without a usable one. Defaults take no part: another configuration gives the same ids."""
    if cells.get(_LINE_ERROR):
        return f"line-{cells[_LINE_ERROR]['line']}"
    return _sha256([own, str(cells.get("id") or ""), faults.messages])[:16]


def resolve_uris(images: list[str], base_folder: str) -> list[str]:
    """Absolute URIs; a reference to a row stays as it is. Raises RowError that names the image."""
    resolved = []
    for reference in images:
        try:
            resolved.append(reference if references.parse(reference) else uri.resolve(reference, base_folder))
        except ValueError as error:
            raise _bad(ErrorKind.BAD_URI, f"image {values.shorten(uri.redact(reference))}: {error}") from None
    return resolved


def _reference(text: str) -> references.Reference | None:
    try:
        return references.parse(text)
    except ValueError:  # its fault is told where the URIs are resolved
        return None


def _sides(
    own: _Own, spec: TaskSpec | None, generation: GenerationConfig, faults: _Faults
) -> tuple[int | None, int | None]:
    if "height" in faults.columns:
        return None, None
    width, height = own.width, own.height
    if width is None and height is None and spec and not spec.sized_by_input:
        width, height = generation.width, generation.height
    types.check_size(width, height, has_images=True)
    return width and types.round_side(width), height and types.round_side(height)


def _steps(own: _Own, generation: GenerationConfig) -> int:
    steps = generation.steps if own.steps is None else own.steps
    types.check_steps(steps)
    return steps


def _guidance(name: str, own: _Own, spec: TaskSpec | None, generation: GenerationConfig) -> float | None:
    """The row's, else the run's, else the task's."""
    for source in (own, generation, spec):
        value: float | None = getattr(source, name, None)
        if value is not None:
            types.check_guidance(name, value)
            return float(value)
    return None


def _seed(row_id: str, sample: int, own: _Own, generation: GenerationConfig, faults: _Faults) -> int | None:
    if "seed" in faults.columns:
        return None
    if own.seed is not None and any(map(_reference, own.images or [])):
        # The seed that made an image does not edit it: by its id a row never shares one with its parents.
        return seeding.row_seed(own.seed, row_id, sample)
    if own.seed is not None:
        return seeding.sample_seed(own.seed, sample)
    return seeding.row_seed(generation.seed, row_id, sample)


def _sha256(content: object) -> str:
    return hashlib.sha256(json.dumps(content, ensure_ascii=False, separators=(",", ":")).encode()).hexdigest()


def _bad(kind: ErrorKind, message: str) -> RowError:
    return RowError(kind, Stage.CHECK, message)
