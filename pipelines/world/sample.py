"""One sample: what the model is given and what is right, with the truth behind both. Knows no task's content."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from omnigen_actor.tasks import DEFAULT_TASKS, TaskTable
from pipelines.world.draws import Rng
from pipelines.world.presets import World
from pipelines.world.render import render
from pipelines.world.scene import Scene
from pipelines.world.shapes import Array

Fact = str | int | float | None | list[str] | list[int] | list[dict[str, str | int]]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Sample:
    """A task's instruction and input pictures, and the output picture that is exactly right.

    Pictures are (H, W, 3) uint8. ``scene`` is what the output shows; where the output is a map, what the map is of.
    ``source_scene`` is what the first input shows, or the scene that it is a map of; None without inputs. ``facts`` are
    what a check needs beside the scenes; JSON can hold them.
    """

    task: str
    instruction: str = ""
    inputs: tuple[Array, ...] = ()
    output: Array
    scene: Scene
    source_scene: Scene | None = None
    facts: dict[str, Fact] = field(default_factory=dict)

    def prompt(self, table: TaskTable = DEFAULT_TASKS) -> str:
        """The canonical prompt, as the task table words it. Raises RowError where the table has no such task."""
        return table.find(self.task).prompt(self.instruction, len(self.inputs))


Builder = Callable[[World, str, Rng], Sample]
"""World, the task's name, the sample's own draws -> the sample."""


def photo(world: World, scene: Scene) -> Array:
    """The picture of a scene, (H, W, 3) uint8."""
    return render(world, scene).picture
