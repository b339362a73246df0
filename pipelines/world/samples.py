"""Every task of the world by its name in the task table, and the one way to make a sample. Knows no files."""

from __future__ import annotations

from collections.abc import Sequence

from omnigen_actor.errors import ConfigError
from pipelines.world import edits, pictures, subjects
from pipelines.world.draws import stream
from pipelines.world.in_context import in_context
from pipelines.world.presets import World
from pipelines.world.sample import Builder, Sample

__all__ = ["TASKS_OF_THE_WORLD", "Sample", "check_tasks", "make_sample"]

TASKS_OF_THE_WORLD: dict[str, Builder] = {
    "text_to_image": pictures.text_to_image,
    "edit": edits.edit,
    "reasoning_edit": edits.reasoning_edit,
    "subject": subjects.subject,
    "referring": subjects.referring,
    "multi_subject": subjects.multi_subject,
    "compose": subjects.compose,
    "try_on": edits.try_on,
    "canny": pictures.canny,
    "depth": pictures.depth,
    "pose": pictures.pose,
    "segmentation": pictures.segmentation,
    **dict.fromkeys(pictures.DEGRADATION_OF_TASK, pictures.restoration),
    "condition": pictures.condition,
    "follow_pose": pictures.follow_pose,
    "follow_depth": pictures.follow_depth,
    "in_context": in_context,
}
"""All of the task table but those whose meaning is the user's own."""


def make_sample(world: World, task: str, seed: int, index: int) -> Sample:
    """The ``index``-th sample of a task: of these four alone, whatever was made before. Raises ConfigError."""
    check_tasks([task])
    return TASKS_OF_THE_WORLD[task](world, task, stream(seed, task, index))


def check_tasks(tasks: Sequence[str]) -> None:
    """Raise ConfigError for a task that the world has no samples of, or where there is none."""
    if not tasks:
        raise ConfigError(f"no tasks: name some of {', '.join(TASKS_OF_THE_WORLD)}")
    for task in tasks:
        if task not in TASKS_OF_THE_WORLD:
            raise ConfigError(f"the world has no task {task!r}; it has {', '.join(TASKS_OF_THE_WORLD)}")
