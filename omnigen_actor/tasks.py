"""The task table: what one word in a manifest means. Adding a task is adding one entry. Knows no tables and no files.

Wording, number of images and guidance follow the OmniGen authors' README, inference guide and notebooks; where they
name a task without a fixed wording (edges, denoise and the other restorations) the sentence here is ours.
"""

from __future__ import annotations

import difflib
import hashlib
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from omnigen_actor import placeholders
from omnigen_actor.errors import ConfigError, ErrorKind, RowError, Stage

MAX_IMAGES = 16

EXAMPLE = "Input: {img%d}\nOutput: {img%d}\n\n"
"""What ``{examples}`` holds for each pair of images before the last image."""

_MARK = re.compile(r"\{(i|images|img\d+)\}")
_NAME = re.compile(r"[a-z][a-z0-9_]*")


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskSpec:
    """One task. Raises ConfigError for a specification that can't work.

    ``wording`` holds ``{i}`` for the instruction and ``{img1}``, ``{img2}``… for input images; ``{examples}`` and
    ``{last}`` stand for all images but the last, in pairs, and the last; ``{images}`` stands for all, in order, with
    blanks between them. ``more_wordings`` say the same otherwise: one of all is drawn for each row, by its id. An
    instruction that brings its own placeholders is the whole prompt.
    ``image_step``: how many images come together above ``min_images``. ``sized_by_input``: without a size of its own
    the output has the size of the first input image. ``aliases``: further names.
    """

    name: str
    wording: str
    min_images: int
    max_images: int
    more_wordings: tuple[str, ...] = ()
    image_step: int = 1
    needs_instruction: bool = True
    sized_by_input: bool = False
    guidance_scale: float = 2.5
    img_guidance_scale: float = 1.6
    aliases: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        for name in (self.name, *self.aliases):
            if not _NAME.fullmatch(name):
                raise ConfigError(f"task {name!r}: a name has small letters, digits and _, and begins with a letter")
        if not 0 <= self.min_images <= self.max_images <= MAX_IMAGES:
            raise ConfigError(
                f"task {self.name!r}: min_images={self.min_images}, max_images={self.max_images}: "
                f"must be in order, between 0 and {MAX_IMAGES}"
            )
        for wording in self.wordings:
            self._check_wording(wording)

    @property
    def wordings(self) -> tuple[str, ...]:
        """All wordings, the first one first."""
        return (self.wording, *self.more_wordings)

    @property
    def places_images(self) -> bool:
        """Whether every wording says where the images stand; else the instruction has to."""
        return all(map(_places_images, self.wordings))

    def takes(self, num_images: int) -> bool:
        """Whether a row of this task may have that many input images."""
        extra = num_images - self.min_images
        return 0 <= extra <= self.max_images - self.min_images and extra % self.image_step == 0

    def prompt(self, instruction: str | None, num_images: int, draw: str = "") -> str:
        """The canonical prompt of one row; ``draw``, the row's id, chooses among wordings.

        Raises RowError (stage check) for what the task can't accept.
        """
        text = placeholders.normalise((instruction or "").strip())
        self._check(text, num_images)
        prompt = text if placeholders.numbers(text) else self._fill(self._drawn(draw), text, num_images)
        placeholders.check(prompt, num_images)
        return prompt

    def _drawn(self, draw: str) -> str:
        if not self.more_wordings:
            return self.wording
        digest = hashlib.sha256(f"wording\0{self.name}\0{draw}".encode()).digest()
        return self.wordings[int.from_bytes(digest[:8], "big") % len(self.wordings)]

    def _fill(self, wording: str, text: str, num_images: int) -> str:
        pairs = "".join(EXAMPLE % (number, number + 1) for number in range(1, num_images, 2))
        wording = wording.replace("{examples}", pairs).replace("{last}", f"{{img{num_images}}}")
        return _MARK.sub(lambda mark: _filled(mark[1], text, num_images), wording)

    def _check(self, text: str, num_images: int) -> None:
        if not self.takes(num_images):
            raise RowError(
                ErrorKind.BAD_IMAGE_COUNT,
                Stage.CHECK,
                f"task {self.name!r} takes {self._count()}, and this row has {num_images}",
            )
        if self.needs_instruction and not text:
            raise RowError(
                ErrorKind.BAD_INSTRUCTION, Stage.CHECK, f"task {self.name!r} needs an instruction; it is empty"
            )

    def _check_wording(self, wording: str) -> None:
        """Every number of images that the task takes must make a prompt with all of them, or leave them to the row."""
        if ("{i}" in wording) != self.needs_instruction:
            verb = "has no {i}, and needs_instruction is true" if self.needs_instruction else "has {i}"
            raise ConfigError(f"task {self.name!r}: the wording {wording!r} {verb}")
        if not _places_images(wording):
            return
        for count in range(self.min_images, self.max_images + 1, self.image_step):
            try:
                placeholders.check(self._fill(wording, "x", count), count)
            except RowError as error:
                raise ConfigError(
                    f"task {self.name!r}: the wording {wording!r} with {count} images: {error.message}"
                ) from None

    def _count(self) -> str:
        if self.min_images == self.max_images:
            return "no input image" if not self.max_images else f"exactly {self.min_images} input image(s)"
        step = f" in steps of {self.image_step}" if self.image_step > 1 else ""
        return f"{self.min_images} to {self.max_images} input images{step}"


def _places_images(wording: str) -> bool:
    return bool(_MARK.search(wording.replace("{i}", ""))) or "{last}" in wording


def _filled(mark: str, text: str, num_images: int) -> str:
    """Placeholders or the instruction, which is not read again: it may hold braces of its own."""
    if mark == "i":
        return text
    if mark == "images":
        return " ".join(map(placeholders.placeholder, range(1, num_images + 1)))
    number = int(mark.removeprefix("img"))
    return placeholders.placeholder(number) if number <= num_images else f"{{{mark}}}"


class TaskTable:
    """The tasks that a manifest may name. Raises ConfigError where two have the same name or alias."""

    def __init__(self, specs: Iterable[TaskSpec]) -> None:
        self._by_name: dict[str, TaskSpec] = {}
        for spec in specs:
            for name in (spec.name, *spec.aliases):
                if name in self._by_name:
                    raise ConfigError(f"task {name!r} of {spec.name!r} is there already: choose another name")
                self._by_name[name] = spec

    def __iter__(self) -> Iterator[TaskSpec]:
        return iter(dict.fromkeys(self._by_name.values()))

    def __contains__(self, name: object) -> bool:
        return name in self._by_name

    def find(self, name: str | None) -> TaskSpec:
        """The task of that name or alias. Raises RowError that lists the nearest, or all, known names."""
        spec = self._by_name.get(name or "")
        if spec is not None:
            return spec
        near = difflib.get_close_matches(name or "", self._by_name, n=3)
        names = ", ".join(spec.name for spec in self)
        known = f"did you mean {', '.join(near)}?" if near else f"known tasks: {names}"
        shown = repr(name if name is None else name[:80])
        raise RowError(ErrorKind.UNKNOWN_TASK, Stage.CHECK, f"unknown task {shown}; {known}")


def _edit(name: str, wording: str = "{img1} {i}") -> TaskSpec:
    # The authors put the image before the instruction, so the branches of guidance share what they know of it.
    return TaskSpec(name=name, wording=wording, min_images=1, max_images=1, sized_by_input=True)


def _map(name: str, wording: str, *aliases: str) -> TaskSpec:
    return TaskSpec(
        name=name,
        wording=wording,
        min_images=1,
        max_images=1,
        needs_instruction="{i}" in wording,
        sized_by_input=True,
        aliases=aliases,
    )


def _conditioned(name: str, wording: str, guidance_scale: float = 2.5) -> TaskSpec:
    return TaskSpec(
        name=name, wording=wording, min_images=1, max_images=1, sized_by_input=True, guidance_scale=guidance_scale
    )


def _subjects(name: str, fewest: int, img_guidance_scale: float, *aliases: str) -> TaskSpec:
    return TaskSpec(
        name=name,
        wording="{i}",
        min_images=fewest,
        max_images=MAX_IMAGES,
        img_guidance_scale=img_guidance_scale,
        aliases=aliases,
    )


TASKS: dict[str, TaskSpec] = {
    spec.name: spec
    for spec in (
        TaskSpec(name="text_to_image", wording="{i}", min_images=0, max_images=0, aliases=("t2i",)),
        _edit("edit"),
        _edit("reasoning_edit"),
        _subjects("subject", 1, 1.8),
        _subjects("referring", 1, 1.6),
        _subjects("multi_subject", 2, 1.8),
        _subjects("compose", 2, 1.6, "place"),
        # For instructions without placeholders, as OmniGen2's are; images before the instruction, as in an edit.
        TaskSpec(name="multi_image_edit", wording="{images} {i}", min_images=2, max_images=MAX_IMAGES),
        TaskSpec(name="try_on", wording="{img1} wears {img2}.", min_images=2, max_images=2, needs_instruction=False),
        _map("canny", "Detect the edges in this image: {img1}.", "edges"),
        _map("depth", "Generate the depth map for this image: {img1}."),
        _map("pose", "Detect the skeleton of human in this image: {img1}."),
        _map("segmentation", "Find {i} in the picture {img1} and color them blue.", "highlight"),
        _map("denoise", "Remove the noise from this image: {img1}."),
        _map("deblur", "Remove the blur from this image: {img1}."),
        _map("derain", "Remove the rain from this image: {img1}."),
        _map("raindrop", "Remove the raindrops from this image: {img1}."),
        _map("desnow", "Remove the snow from this image: {img1}."),
        _map("dehaze", "Remove the haze from this image: {img1}."),
        _map("enhance", "Brighten this low-light image: {img1}."),
        _map("colorize", "Colorize this black-and-white image: {img1}."),
        _map("inpaint", "Fill in the missing parts of this image: {img1}."),
        _conditioned(
            "condition",
            "Generate a new photo using the following picture and text as conditions: {img1}\n {i}",
        ),
        _conditioned(
            "follow_pose",
            "Following the human pose of this image {img1}, generate a new photo: {i}",
            guidance_scale=2.0,
        ),
        _conditioned(
            "follow_depth",
            "Following the depth mapping of this image {img1}, generate a new image: {i}",
            guidance_scale=2.0,
        ),
        TaskSpec(
            name="in_context",
            wording=(
                "According to the following examples, generate an output for the input.\n"
                "{examples}Input: {last}\nOutput: "
            ),
            min_images=3,
            max_images=15,
            image_step=2,
            needs_instruction=False,
        ),
        TaskSpec(name="custom", wording="{i}", min_images=0, max_images=MAX_IMAGES),
    )
}

DEFAULT_TASKS = TaskTable(TASKS.values())
"""The tasks that are always there."""
