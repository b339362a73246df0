"""``python -m jobs.tiny_model FOLDER``: write a tiny random OmniGen checkpoint. Knows nothing of what is in it."""

from __future__ import annotations

import sys
from pathlib import Path

from jobs import exit_codes
from jobs.options import Parser
from omnigen_actor.errors import OutputError

DESCRIPTION = "Write a tiny OmniGen checkpoint with random weights: all the real files, images of noise."


def main(argv: list[str] | None = None) -> int:
    """Run the job and return its exit code."""
    return exit_codes.exit_code_of(lambda: _write(sys.argv[1:] if argv is None else argv))


def _write(argv: list[str]) -> int:
    parser = Parser(prog="python -m jobs.tiny_model", description=DESCRIPTION)
    parser.add_argument("folder", metavar="FOLDER", type=Path, help="where to write it; created where it is missing")
    parser.add_argument("--seed", metavar="INTEGER", type=int, default=0, help="of the random weights (default: 0)")
    arguments = parser.parse(argv)
    from omnigen_actor.checkpoint.tiny import write_tiny_checkpoint

    try:
        write_tiny_checkpoint(arguments.folder, arguments.seed)
    except OSError as error:
        raise OutputError(f"cannot write a checkpoint to {arguments.folder}: {error}") from error
    print(f"tiny OmniGen checkpoint, random weights of seed {arguments.seed}: {arguments.folder}")
    return exit_codes.OK


if __name__ == "__main__":
    sys.exit(main())
