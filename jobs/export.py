"""Exports a run store: ``python -m jobs.export STORE DEST [options]``. Knows nothing of how formats look."""

from __future__ import annotations

import sys

from jobs import exit_codes
from jobs.options import parse
from omnigen_actor import uri
from pipelines.export.config import ExportConfig
from pipelines.export.run import Exported, export
from pipelines.settings import Surface

SURFACE = Surface(ExportConfig)
PLACES = {
    "store": "folder or URI: the OUTPUT of jobs.generate",
    "dest": "folder or URI for the data set; an export that was cut off there is continued",
}
DESCRIPTION = "Export the images of a run store as a data set. Run it again to go on with one that was cut off."
MEANING = """\
exit codes:
  0    every chosen image is exported, or no more than --max-failed percent are left out
  1    more are left out; left_out.parquet says why
  2    the export could not start: an option, the store, or DEST holds something else
  70   a crash, with its traceback
  75   the store, DEST or the cluster failed on the way; the same command continues
  130  interrupted; the same command continues
"""


def main(argv: list[str] | None = None) -> int:
    """Run the job and return its exit code."""
    return exit_codes.exit_code_of(lambda: _export(sys.argv[1:] if argv is None else argv))


def _export(argv: list[str]) -> int:
    arguments = parse(argv, SURFACE, PLACES, prog="python -m jobs.export", description=DESCRIPTION, epilog=MEANING)
    config: ExportConfig = arguments.config
    done = export(arguments.places["store"], arguments.places["dest"], config, on_shards=_tell)
    exit_codes.show("\n".join(account(done)))
    return exit_codes.OK if percent_left_out(done) <= config.max_failed else exit_codes.ROWS_FAILED


def _tell(num_done: int, num_shards: int) -> None:
    exit_codes.say(f"shards {num_done} of {num_shards}")


def percent_left_out(done: Exported) -> float:
    """Of the chosen images."""
    counts = done.marker["counts"]
    share: float = counts["num_left_out"] / max(1, counts["num_chosen"])
    return 100 * share


def account(done: Exported) -> list[str]:
    """What came of the chosen images, line by line."""
    counts = done.marker["counts"]
    counted, unit = ("pairs", "pairs") if done.marker["format"] == "pairs" else ("chosen", "images")
    lines = [
        f"{counted} {counts['num_chosen']} = exported {counts['num_images']} + left out {counts['num_left_out']}",
        *(f"left out, {reason}: {number}" for reason, number in counts["left_out"].items()),
    ]
    for split, tasks in counts["splits"].items():
        told = ", ".join(f"{task} {number}" for task, number in tasks.items())
        lines.append(f"{split}: {sum(tasks.values())} {unit}" + (f": {told}" if told else ""))
    if counts["num_left_out"]:
        lines.append("left_out.parquet names each; once that is mended, --replace exports them all anew")
    if not done.is_new:
        lines.append("the export was whole already: nothing was written")
    return [*lines, f"export {uri.redact(done.root)}"]


if __name__ == "__main__":
    sys.exit(main())
