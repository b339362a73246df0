"""Does a store's word hold? ``python -m jobs.reproduce STORE [ID ...] [options]`` makes rows again and compares them.

Knows nothing of how rows are made. Starts no Ray.
"""

from __future__ import annotations

import sys
from argparse import Namespace

from jobs import exit_codes, report_file
from jobs.options import Parser
from pipelines.reproduce import ReproduceConfig, ReproduceReport, reproduce
from pipelines.reproduce_compare import Finding

DESCRIPTION = "Make rows of a run store again, from their records alone, and compare the images."
MEANING = """\
exit codes:
  0    every row gave the same file, or on another kind of device the same pixels
  1    at least one row did not
  2    it could not start: an option, no run store, an unknown id, or the model
  70   a crash, with its traceback
  130  interrupted
"""
_LONGEST_MESSAGE = 300


def main(argv: list[str] | None = None) -> int:
    """Run the job and return its exit code."""
    return exit_codes.exit_code_of(lambda: _reproduce(_parse(sys.argv[1:] if argv is None else argv)))


def _parse(argv: list[str]) -> Namespace:
    parser = Parser(prog="python -m jobs.reproduce", description=DESCRIPTION, epilog=MEANING)
    parser.add_argument("store", metavar="STORE", help="folder or URI: the OUTPUT of a run")
    parser.add_argument(
        "ids", metavar="ID", nargs="*", help="a row with all its samples, or ID#SAMPLE; default: rows drawn by chance"
    )
    parser.add_argument("--num", type=int, default=20, metavar="INTEGER", help="how many rows are drawn (20)")
    parser.add_argument("--seed", type=int, default=0, metavar="INTEGER", help="of the draw (0)")
    parser.add_argument("--model", metavar="TEXT", help="where the recorded name of the model does not lead to it here")
    parser.add_argument(
        "--image-root",
        metavar="TEXT",
        help="where relative references to input images start, in place of what run.json says",
    )
    parser.add_argument(
        "--allow", metavar="TEXT", action="append", default=[], help="further place of input images; once for each"
    )
    parser.add_argument("--device", metavar="{auto,cuda,cpu}", help="default: that of the record")
    parser.add_argument("--output", metavar="FOLDER", help="keep the images that are made; path or URI")
    parser.add_argument("--report", metavar="FILE", help="write what was found as JSON; path or URI")
    return parser.parse(argv)


def _reproduce(arguments: Namespace) -> int:
    config = ReproduceConfig(
        ids=tuple(arguments.ids),
        num_rows=arguments.num,
        seed=arguments.seed,
        model=arguments.model,
        image_root=arguments.image_root,
        allow=tuple(arguments.allow),
        device=arguments.device,
        output=arguments.output,
    )
    place = report_file.place_of(arguments.report)
    report = reproduce(arguments.store, config, lambda found: exit_codes.show(line(found)))
    exit_codes.show("\n".join(verdict(report)))
    report_file.write(place, report.to_json())
    return exit_codes.ROWS_FAILED if report.num_bad else exit_codes.OK


def line(found: Finding) -> str:
    """One row."""
    message = f" ({' '.join(found.message.split())})" if found.message else ""
    return f"{found.id}#{found.sample}: {found.verdict.value}{message}"[:_LONGEST_MESSAGE]


def verdict(report: ReproduceReport) -> list[str]:
    """The sum over all rows."""
    counts = ", ".join(f"{name.value} {count}" for name, count in report.counts.most_common())
    rows = f"{len(report.findings)} rows" if len(report.findings) > 1 else "1 row"
    left = f"{report.num_bad} not reproduced" if report.num_bad else "all reproduced"
    return [f"{rows} in {report.seconds:.1f} s: {counts}", left]


if __name__ == "__main__":
    sys.exit(main())
