"""The task table: what one word in a manifest means. Adding a task is adding one entry. Knows no tables and no files.

Wording, number of images and guidance follow the OmniGen authors' README, inference guide and notebooks; where they
name a task without a fixed wording (edges, denoise and the other restorations) the sentence here is ours.
"""

from __future__ import annotations

import difflib
from dataclasses import dataclass

from omnigen_actor import placeholders
from omnigen_actor.errors import ErrorKind, RowError, Stage

MAX_IMAGES = 16


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskSpec:
    """One task.

    ``wording`` holds ``{i}`` for the instruction and ``{img1}``, ``{img2}``… for input images. An instruction that
    brings its own placeholders is the whole prompt. ``sized_by_input``: without a size of its own the output has the
    size of the first input image.
    """

    name: str
    wording: str
    min_images: int
    max_images: int
    needs_instruction: bool = True
    sized_by_input: bool = False
    guidance_scale: float = 2.5
    img_guidance_scale: float = 1.6

    def prompt(self, instruction: str | None, num_images: int) -> str:
        """The canonical prompt of one row. Raises RowError (stage check) for what the task can't accept."""
        text = placeholders.normalise((instruction or "").strip())
        self._check(text, num_images)
        prompt = text if placeholders.numbers(text) else self._fill(text, num_images)
        placeholders.check(prompt, num_images)
        return prompt

    def _fill(self, text: str, num_images: int) -> str:
        prompt = self.wording
        for number in range(1, num_images + 1):
            prompt = prompt.replace(f"{{img{number}}}", placeholders.placeholder(number))
        return prompt.replace("{i}", text)

    def _check(self, text: str, num_images: int) -> None:
        if not self.min_images <= num_images <= self.max_images:
            raise RowError(
                ErrorKind.BAD_IMAGE_COUNT,
                Stage.CHECK,
                f"task {self.name!r} takes {self._count()}, and this row has {num_images}",
            )
        if self.needs_instruction and not text:
            raise RowError(
                ErrorKind.BAD_INSTRUCTION, Stage.CHECK, f"task {self.name!r} needs an instruction; it is empty"
            )

    def _count(self) -> str:
        if self.min_images == self.max_images:
            return "no input image" if not self.max_images else f"exactly {self.min_images} input image(s)"
        return f"{self.min_images} to {self.max_images} input images"


def _text(name: str, wording: str = "{i}") -> TaskSpec:
    return TaskSpec(name=name, wording=wording, min_images=0, max_images=0)


def _edit(name: str, wording: str = "{img1} {i}") -> TaskSpec:
    # The authors put the image before the instruction, so c and i branches share a prefix.
    return TaskSpec(name=name, wording=wording, min_images=1, max_images=1, sized_by_input=True, guidance_scale=2.5)


def _map(name: str, wording: str) -> TaskSpec:
    return TaskSpec(
        name=name, wording=wording, min_images=1, max_images=1, needs_instruction="{i}" in wording, sized_by_input=True
    )


def _conditioned(name: str, wording: str, guidance_scale: float = 2.5) -> TaskSpec:
    return TaskSpec(
        name=name, wording=wording, min_images=1, max_images=1, sized_by_input=True, guidance_scale=guidance_scale
    )


def _subjects(name: str, wording: str, fewest: int, img_guidance_scale: float, most: int = MAX_IMAGES) -> TaskSpec:
    return TaskSpec(
        name=name,
        wording=wording,
        min_images=fewest,
        max_images=most,
        needs_instruction="{i}" in wording,
        img_guidance_scale=img_guidance_scale,
    )


TASKS: dict[str, TaskSpec] = {
    spec.name: spec
    for spec in (
        _text("text_to_image"),
        _edit("edit"),
        _edit("reasoning_edit"),
        _subjects("subject", "{i}", 1, 1.8),
        _subjects("referring", "{i}", 1, 1.6),
        _subjects("multi_subject", "{i}", 2, 1.8),
        _subjects("compose", "{i}", 2, 1.6),
        _subjects("try_on", "{img1} wears {img2}.", 2, 1.6, most=2),
        _map("canny", "Detect the edges in this image: {img1}."),
        _map("depth", "Generate the depth map for this image: {img1}."),
        _map("pose", "Detect the skeleton of human in this image: {img1}."),
        _map("segmentation", "Find {i} in the picture {img1} and color them blue."),
        _map("denoise", "Remove the noise from this image: {img1}."),
        _map("deblur", "Remove the blur from this image: {img1}."),
        _map("derain", "Remove the rain from this image: {img1}."),
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
                "Input: {img1}\nOutput: {img2}\n\nInput: {img3}\nOutput: "
            ),
            min_images=3,
            max_images=3,
            needs_instruction=False,
        ),
        TaskSpec(name="custom", wording="{i}", min_images=0, max_images=MAX_IMAGES),
    )
}


def find_task(name: str | None) -> TaskSpec:
    """The task of that name. Raises RowError that lists the nearest, or all, known names."""
    spec = TASKS.get(name or "")
    if spec is not None:
        return spec
    near = difflib.get_close_matches(name or "", TASKS, n=3)
    known = f"did you mean {', '.join(near)}?" if near else f"known tasks: {', '.join(TASKS)}"
    shown = repr(name if name is None else name[:80])
    raise RowError(ErrorKind.UNKNOWN_TASK, Stage.CHECK, f"unknown task {shown}; {known}")
