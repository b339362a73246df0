"""``python -m jobs.world OUTPUT``: write samples of the drawn world with their exact truth. Knows no pixels.

python -m jobs.world OUTPUT [--rows 1000] [--seed 0] [--size 64] [--preset small] [--tasks canny,depth]
"""

from __future__ import annotations

import dataclasses
import sys

from jobs import exit_codes
from jobs.options import Parser
from omnigen_actor.errors import ConfigError

DESCRIPTION = """\
Write samples of a drawn world: a manifest with the true outputs beside it, and the same as an X2I training set.
The same options give the same bytes."""


def main(argv: list[str] | None = None) -> int:
    """Run the job and return its exit code."""
    return exit_codes.exit_code_of(lambda: _write(sys.argv[1:] if argv is None else argv))


def _write(argv: list[str]) -> int:
    arguments = _parser().parse(argv)
    from pipelines.world.presets import PRESETS
    from pipelines.world.samples import TASKS_OF_THE_WORLD
    from pipelines.world.source import MANIFEST_NAME, write_world

    if arguments.preset not in PRESETS:
        raise ConfigError(f"--preset {arguments.preset}: must be one of {', '.join(PRESETS)}")
    world = dataclasses.replace(PRESETS[arguments.preset], size=arguments.size)
    tasks = turns_of(arguments.tasks) if arguments.tasks is not None else list(TASKS_OF_THE_WORLD)
    write_world(arguments.output, world, tasks, arguments.rows, arguments.seed, image_format=arguments.image_format)
    print(f"{arguments.rows} rows of {len(set(tasks))} tasks, {world.size} px, seed {arguments.seed}")
    print(f"manifest: {arguments.output}/{MANIFEST_NAME}")
    return exit_codes.OK


def turns_of(text: str) -> list[str]:
    """``edit=2,depth`` as [edit, edit, depth]. Raises ConfigError."""
    turns = []
    for entry in text.split(","):
        name, equals, number = entry.partition("=")
        if equals and not (number.isascii() and number.isdecimal() and 1 <= int(number) <= 1000):
            raise ConfigError(f"--tasks {entry!r}: must be NAME or NAME=TURNS, with 1 to 1000 turns")
        turns += [name] * (int(number) if equals else 1)
    return turns


def _parser() -> Parser:
    parser = Parser(prog="python -m jobs.world", description=DESCRIPTION)
    parser.add_argument("output", metavar="OUTPUT", help="folder or URI; what is there is overwritten")
    parser.add_argument("--rows", metavar="INTEGER", type=int, default=1000, help="how many (default: 1000)")
    parser.add_argument("--seed", metavar="INTEGER", type=int, default=0, help="of all samples (default: 0)")
    parser.add_argument("--size", metavar="PIXELS", type=int, default=64, help="side of a picture (default: 64)")
    parser.add_argument("--preset", metavar="{small,full}", default="small", help="which world (default: small)")
    parser.add_argument(
        "--tasks", metavar="NAMES", help="with commas between them, edit=2 for two turns (default: all)"
    )
    parser.add_argument(
        "--image-format", metavar="{png,webp,jpeg}", default="png", help="of the pictures (default: png)"
    )
    return parser


if __name__ == "__main__":
    sys.exit(main())
