"""Lists the tasks that a manifest may name, with those of ``--tasks``. Starts nothing.

python -m jobs.tasks [--tasks FILE]… [--markdown]
"""

from __future__ import annotations

import sys
from collections.abc import Sequence

from jobs import exit_codes
from jobs.options import Parser
from omnigen_actor.tasks import TaskSpec, TaskTable
from pipelines.task_files import load_tasks

HEADER = ("task", "wording", "images", "instruction", "guidance", "size")


def main(argv: list[str] | None = None) -> int:
    """Run the job and return its exit code."""
    return exit_codes.exit_code_of(lambda: _list(sys.argv[1:] if argv is None else argv))


def _list(argv: list[str]) -> int:
    parser = Parser(prog="python -m jobs.tasks", description="List the tasks that a manifest may name.")
    parser.add_argument(
        "--tasks", action="append", default=[], metavar="FILE", help="more tasks: YAML, or package.module:NAME"
    )
    parser.add_argument("--markdown", action="store_true", help="as the table of the documentation")
    arguments = parser.parse(argv)
    tasks = load_tasks(arguments.tasks)
    print("\n".join(markdown(tasks) if arguments.markdown else plain(tasks)))
    return exit_codes.OK


def markdown(tasks: TaskTable) -> list[str]:
    """The lines of the documentation's table."""
    rows = [cells(spec) for spec in tasks]
    quoted = [(_quoted(name), _quoted(wording), *rest) for name, wording, *rest in rows]
    return [_line(HEADER), "|---" * len(HEADER) + "|", *map(_line, quoted)]


def plain(tasks: TaskTable) -> list[str]:
    """A line for each task's facts, and below it its wordings."""
    lines = []
    for spec in tasks:
        name, _, images, instruction, guidance, size = cells(spec)
        aliases = f" (or {', '.join(spec.aliases)})" if spec.aliases else ""
        lines.append(f"{name}{aliases}: images {images}, instruction {instruction}, guidance {guidance}, size {size}")
        lines += [f"    {_one_line(wording)}" for wording in spec.wordings]
    return lines


def cells(spec: TaskSpec) -> tuple[str, ...]:
    """What the table says of one task, in the order of HEADER."""
    return (
        ", ".join((spec.name, *spec.aliases)),
        " / ".join(map(_one_line, spec.wordings)),
        images(spec),
        "needed" if spec.needs_instruction else "not needed",
        f"{spec.guidance_scale}, {spec.img_guidance_scale}",
        "input" if spec.sized_by_input else "run",
    )


def images(spec: TaskSpec) -> str:
    """How many input images: 1, 1–16, or 3, 5 … 15."""
    if spec.min_images == spec.max_images:
        return str(spec.min_images)
    if spec.image_step > 1:
        return f"{spec.min_images}, {spec.min_images + spec.image_step} … {spec.max_images}"
    return f"{spec.min_images}–{spec.max_images}"


def _one_line(wording: str) -> str:
    return wording.replace("\n", "\\n")


def _quoted(text: str) -> str:
    return f"`{text}`"


def _line(row: Sequence[str]) -> str:
    return f"| {' | '.join(row)} |"


if __name__ == "__main__":
    sys.exit(main())
