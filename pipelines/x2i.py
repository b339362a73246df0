"""Training files of OmniGen and OmniGen2 as manifests: the columns that they lack, from those that they have.

Their rows have ``task_type``, ``instruction``, ``input_images`` and ``output_image``. Columns are added or take another
name; no cell changes, and no cell is judged: that is left to the check. Knows no file formats.
"""

from __future__ import annotations

import difflib
import hashlib
import json
import re
from collections.abc import Callable, Iterator
from functools import lru_cache, partial

import pyarrow as pa

from omnigen_actor import placeholders, schema
from omnigen_actor.errors import ErrorKind, RowError
from omnigen_actor.tasks import TaskSpec, TaskTable
from pipelines import values
from pipelines.sweeps import Cells

TASK_TYPE = "task_type"
INPUT_IMAGES = "input_images"

# An edit keeps the size of its input, which restorations need too: so it also stands for those parts of X2I whose rows
# are of several tasks. A row of such a part that is no edit of one image becomes what its images and instruction are.
_SAME_AS = {
    "text_to_image": "text2image text2img txt2img text_to_img image_generation",
    "edit": "image_edit image_editing editing instruction_edit instruction_editing instructpix2pix instruct_pix2pix"
    " pix2pix magicbrush ssv2 stylebooth style_transfer image_to_image image2image img2img i2i ti2i"
    " video_edit inpaint_edit icedit video_icedit mm_instruction computer_vision weather_stream weather_stream_gopro",
    "subject": "subject_driven subject_driven_generation subject_driven_editing",
    "multi_image_edit": "ic icgen in_context_generation video_icgen video_interleave multi_image",
    "try_on": "tryon virtual_try_on virtual_tryon fashion_try_on fashion_tryon fashiontryon viton hr_viton",
    "canny": "edge canny_edge edge_detection",
    "depth": "depth_map depth_estimation",
    "pose": "human_pose pose_estimation pose_detection",
    "segmentation": "seg segment semantic_segmentation reasoning_segmentation ade ade20k coco coco2017 mulan reasonseg",
    "denoise": "denoising",
    "deblur": "deblurring gopro",
    "derain": "deraining rain100h derain_rain100h",
    "raindrop": "raindrop_removal",
    "desnow": "desnowing",
    "dehaze": "dehazing",
    "enhance": "enhancement low_light_enhancement lol enhance_lol",
    "colorize": "colorization",
    "inpaint": "inpainting",
    "follow_pose": "pose_to_image",
    "follow_depth": "depth_to_image",
    "in_context": "in_context_learning icl few_shot few_shot_to_image",
}

FOREIGN_NAMES = {foreign: name for name, others in _SAME_AS.items() for foreign in others.split()}
"""What others call a task of the table: the parts of X2I and X2I2, and names that are common beside them."""

_LIKENESS = 0.9
"""text_to_iamge is 0.92 like text_to_image; ti2i, which is no t2i, is 0.86 like it."""

_LONGEST_NAME = 100
_SEPARATORS = re.compile(r"[\s-]+")
_TASK = schema.MANIFEST.field("task")
_ID = schema.MANIFEST.field("id")
_LINE_ERROR = schema.LINE_ERROR.name
_TARGETS = ("output_image", "output_images")
_CONTENT = [name for name in (*schema.MANIFEST.names, TASK_TYPE, *_TARGETS) if name not in ("id", "task")]
"""The columns that tell rows apart. The task follows from them, and may do so otherwise with other tasks."""


def is_x2i(table_schema: pa.Schema) -> bool:
    """Whether a table has rows as the training files have them. OmniGen2 lets them leave out their ``task_type``."""
    names = set(table_schema.names)
    return "task" not in names and not names.isdisjoint((TASK_TYPE, *_TARGETS))


def adopt(
    table_schema: pa.Schema, read: Callable[[], Iterator[pa.Table]], tasks: TaskTable
) -> tuple[pa.Schema, Callable[[], Iterator[pa.Table]]]:
    """The same rows with a ``task`` each, with ``images``, and with an ``id`` where the file has no ids."""
    adopted = _renamed(table_schema).append(_TASK)
    return adopted if _ID.name in adopted.names else adopted.append(_ID), partial(_read, read, tasks)


def _read(read: Callable[[], Iterator[pa.Table]], tasks: TaskTable) -> Iterator[pa.Table]:
    for written in read():
        table = pa.Table.from_arrays(written.columns, schema=_renamed(written.schema))
        rows = list(_rows(table))
        table = table.append_column(_TASK, pa.array([row and task_of(row, tasks) for row in rows], _TASK.type))
        if _ID.name not in table.column_names:
            table = table.append_column(_ID, pa.array([row and _content_id(row) for row in rows], _ID.type))
        yield table


def _renamed(table_schema: pa.Schema) -> pa.Schema:
    names = table_schema.names
    if INPUT_IMAGES not in names or "images" in names:
        return table_schema
    position = names.index(INPUT_IMAGES)
    return table_schema.set(position, table_schema.field(position).with_name("images"))


def _rows(table: pa.Table) -> Iterator[Cells | None]:
    """What a row's task and id depend on; None for a line that is no row."""
    names = [name for name in (*_CONTENT, _LINE_ERROR) if name in table.column_names]
    columns = [values.read_column(table, table.column_names.index(name)) for name in names]
    for cells in zip(*columns, strict=True):
        row = dict(zip(names, cells, strict=True))
        yield None if row.pop(_LINE_ERROR, None) else row


def task_of(row: Cells, tasks: TaskTable) -> str | None:
    """The task of a row, by its name and by what it has; never raises for a value.

    A row with a cell that can't be read keeps the name that it has: the check will say what is wrong with the cell.
    """
    try:
        name = values.text(TASK_TYPE, row.get(TASK_TYPE), ErrorKind.UNKNOWN_TASK)
    except RowError:
        return values.shorten(row[TASK_TYPE])  # the name of no task, so that the check refuses and shows it
    found = find_named(name, tasks) if name else None
    try:
        num_images = len(values.uri_list("images", row.get("images")))
        instruction = values.text("instruction", row.get("instruction"), ErrorKind.BAD_INSTRUCTION)
    except RowError:
        return found.name if found else name
    is_placed = bool(placeholders.numbers(placeholders.normalise(instruction or "")))
    if found and found.takes(num_images) and (not num_images or is_placed or found.places_images):
        return found.name
    return _task_without_name(num_images, is_placed=is_placed)


@lru_cache(maxsize=1024)
def find_named(name: str, tasks: TaskTable) -> TaskSpec | None:
    """The task that a name means: its own name or alias, a name in FOREIGN_NAMES, or a misspelling of one of these."""
    if len(name) > _LONGEST_NAME:
        return None
    plain = _SEPARATORS.sub("_", name.strip().lower())
    known = {foreign: own for foreign, own in FOREIGN_NAMES.items() if own in tasks}
    known |= {own: own for spec in tasks for own in (spec.name, *spec.aliases)}
    near = [plain] if plain in known else difflib.get_close_matches(plain, known, n=1, cutoff=_LIKENESS)
    return tasks.find(known[near[0]]) if near else None


def _task_without_name(num_images: int, *, is_placed: bool) -> str:
    """``is_placed``: the instruction says where the images stand."""
    if not num_images:
        return "text_to_image"
    if is_placed:
        return "custom"
    return "edit" if num_images == 1 else "multi_image_edit"


def _content_id(row: Cells) -> str:
    """16 hexadecimal digits. Training files ask for the same image again and again, with an ``output_image`` each."""
    content = {name: cell for name, cell in row.items() if cell is not None}
    return hashlib.sha256(json.dumps(content, sort_keys=True, default=repr).encode()).hexdigest()[:16]
