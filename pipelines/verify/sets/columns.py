"""Names that data sets give to the same things, ours first, and a row's cells under our own. Knows no files."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from pipelines.verify.sets.member import Member, Picture, Style

CHOSEN, REJECTED = "chosen_image", "rejected_image"
"""Of a preference pair. The rejected image is its output: no other row has it."""

OUTPUTS = (
    *("output_image", "output_image_file_name", "output_images", "output", "edited_image", "edited", "target_image"),
    *("target_img", "target", "edited_file_name", "image_file_name", "file_name", "image", "jpg", "png", "webp"),
    REJECTED,
)
INPUTS = (
    *("input_images", "input_images_file_names", "input_image", "input_image_file_name", "input", "source_image"),
    *("source_img", "source", "original_image", "original", "original_file_name", "conditioning_image"),
)
_INSTRUCTIONS = ("instruction", "edit_prompt", "edit_instruction", "instruction_en", "edit", "caption", "text", "txt")
_IDS = ("id", "key", "__key__", "uid")
_TASKS = ("task", "task_type", "edit_type")
_TOLD = ("output_sha256", "input_sha256", "width", "height", "chosen_sample", "chosen_sha256")


def first_of(wanted: Iterable[str], names: Iterable[str]) -> str | None:
    """The first of the ``wanted`` that is among ``names``, upper and lower case alike."""
    there = {name.lower(): name for name in names}
    return next((there[name] for name in wanted if name in there), None)


def split_roles(names: Sequence[str]) -> tuple[list[str], str | None]:
    """The names of images -> those of the inputs, in order, and that of the output."""
    output = first_of(OUTPUTS, names)
    known = [name for name in names if name.lower() in INPUTS or name.lower().startswith(("input", "source"))]
    inputs = [name for name in known if name != output]
    if output is None and len(names) > len(inputs):
        output = [name for name in names if name not in inputs][-1]
    return inputs, output


def paths(value: Any) -> tuple[Picture, ...]:
    """A cell with a path or several as pictures; what is no text has no name."""
    if value is None:
        return ()
    values = value if isinstance(value, list | tuple) else [value]
    return tuple(Picture(name=one if isinstance(one, str) else "", is_path=True) for one in values)


def texts(cells: Mapping[str, Any]) -> dict[str, Any]:
    """What a Member has beside its images, from a row's cells."""
    row_id = _cell(cells, _IDS)
    if "rejected_sample" in cells:
        cells = {**cells, "sample": cells["rejected_sample"], "output_sha256": cells.get("rejected_sha256")}
    sample = cells.get("sample")
    told = {name: _unpacked(cells[name]) for name in _TOLD if cells.get(name) is not None}
    return {
        "id": None if row_id is None else str(row_id),
        "sample": sample if isinstance(sample, int) else 0,
        "task": _text(_cell(cells, _TASKS)),
        "instruction": _text(_cell(cells, _INSTRUCTIONS)),
        "prompt": _text(cells.get("prompt")),
        "told": told,
    }


def member(
    cells: Mapping[str, Any], *, file: str, number: int, split: str, style: Style, base: str = "", **own: Any
) -> Member:
    """A row whose images are paths, unless ``own`` has them."""
    if "output" not in own:
        names = [name for name in cells if name.lower() in (*OUTPUTS, *INPUTS)]
        inputs, output = split_roles(names)
        found = paths(cells.get(output)) if output else ()
        own |= {
            "inputs": tuple(one for name in inputs for one in paths(cells[name])),
            "output": found[0] if found else None,
        }
    return Member(file=file, number=number, split=split, style=style, base=base, **texts(cells), **own)


def _cell(cells: Mapping[str, Any], names: Sequence[str]) -> Any:
    name = first_of(names, cells)
    return None if name is None else cells[name]


def _text(value: Any) -> str | None:
    return value if isinstance(value, str) else None


def _unpacked(value: Any) -> Any:
    """A list of ours that a WebDataset has as a text."""
    if isinstance(value, str) and value.startswith("["):
        try:
            return json.loads(value)
        except (ValueError, RecursionError):
            return value
    return value
