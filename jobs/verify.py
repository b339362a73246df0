"""Is a run store or a data set whole? ``python -m jobs.verify PATH [options]`` checks it, and mends what is safe.

Knows nothing of how things are found. Starts no Ray and loads no torch.
"""

from __future__ import annotations

import sys
from argparse import BooleanOptionalAction, Namespace

from jobs import exit_codes, report_file
from jobs.check_line import CheckLine
from jobs.options import Parser
from pipelines.scores.hamming import DEFAULT_RADIUS
from pipelines.verify.any_check import verify_any
from pipelines.verify.findings import WARNINGS
from pipelines.verify.report import Report
from pipelines.verify.sets.config import SetConfig

DESCRIPTION = """\
Check that every record of a run store has its image, whole, and that nothing else lies there; or that a data set is
whole: an export, or Parquet, WebDataset or training files of OmniGen (X2I) and OmniGen2 of others.
"""
MEANING = """\
exit codes:
  0    nothing is wrong, or all of it is mended
  1    something is wrong
  2    the check could not start: an option, no store and no set, or --fix while a run writes to it
  70   a crash, with its traceback
  130  interrupted
"""
_LONGEST_MESSAGE = 160


def main(argv: list[str] | None = None) -> int:
    """Run the job and return its exit code."""
    return exit_codes.exit_code_of(lambda: _verify(_parse(sys.argv[1:] if argv is None else argv)))


def _parse(argv: list[str]) -> Namespace:
    parser = Parser(prog="python -m jobs.verify", description=DESCRIPTION, epilog=MEANING)
    parser.add_argument(
        "path",
        metavar="PATH",
        help="folder or URI: the OUTPUT of a run, an export, or a data set; or one file of a set",
    )
    parser.add_argument(
        "--fix",
        action="store_true",
        help="remove what no record names and what was left behind; have lost images made again by the next run",
    )
    parser.add_argument("--hash", action=BooleanOptionalAction, default=True, help="compare each image's sha256 (yes)")
    parser.add_argument("--decode", action=BooleanOptionalAction, default=True, help="decode each image (yes)")
    parser.add_argument("--quick", action="store_true", help="read no image, compare sizes of files alone")
    parser.add_argument("--threads", type=int, default=8, metavar="INTEGER", help="images at a time (8)")
    parser.add_argument(
        "--take-over", action="store_true", help="--fix although a run says that it writes to the store"
    )
    parser.add_argument("--image-root", metavar="FOLDER", help="where the paths of a set start; default: in PATH")
    parser.add_argument(
        "--near-duplicates",
        type=int,
        nargs="?",
        const=DEFAULT_RADIUS,
        metavar="BITS",
        help=f"find images of two splits of a set that look alike: hashes differ in so few bits ({DEFAULT_RADIUS})",
    )
    parser.add_argument(
        "--load", action="store_true", help="load the set with datasets and webdataset, where they are installed"
    )
    parser.add_argument("--report", metavar="FILE", help="write what was found as JSON; path or URI")
    return parser.parse(argv)


def _verify(arguments: Namespace) -> int:
    reads = not arguments.quick
    config = SetConfig(
        image_root=arguments.image_root,
        has_hash=reads and arguments.hash,
        has_decode=reads and arguments.decode,
        near_duplicates=arguments.near_duplicates,
        has_load=arguments.load,
        num_threads=arguments.threads,
    )
    place = report_file.place_of(arguments.report)
    with CheckLine(sys.stderr) as line:
        report = verify_any(
            arguments.path, config, fix=arguments.fix, take_over=arguments.take_over, on_progress=line.update
        )
    exit_codes.show("\n".join(lines(report, has_fix=arguments.fix)))
    report_file.write(place, report.to_json())
    return exit_codes.ROWS_FAILED if report.num_left else exit_codes.OK


def lines(report: Report, *, has_fix: bool) -> list[str]:
    """The counts by kind with an example of each, and the verdict."""
    rows = f"{report.num_records} records" if report.kind is None else f"{report.kind}: {report.num_records} rows"
    figures = f"{rows}, {report.num_images} good images, {report.num_bytes} bytes"
    shown = [f"{figures}; checked in {report.seconds:.1f} s"]
    if report.has_lease and not has_fix:
        shown.append("a run is writing to this store, or was killed: some of this may be its work under way")
    for kind, count in report.counts.most_common():
        example = report.examples[kind]
        mended = f", {report.mended.get(kind, 0)} mended" if has_fix else ""
        shown.append(f"{'warning ' if kind in WARNINGS else ''}{kind}: {count}{mended}")
        shown.append(f"    {' '.join(f'{example.key}: {example.message}'.split())}"[:_LONGEST_MESSAGE])
    shown += [f"not mended: {failure}" for failure in report.failures]
    return [*shown, _verdict(report, has_fix=has_fix)]


def _verdict(report: Report, *, has_fix: bool) -> str:
    if not report.counts:
        return "nothing is wrong"
    if report.counts.total() == report.num_warnings:
        return "nothing is wrong; what is a warning may be meant so"
    if not report.num_left:
        return "all is mended; the next run makes lost images again" if report.kind is None else "all is mended"
    left = f"{report.num_left} things are wrong" if report.num_left > 1 else "one thing is wrong"
    return left if has_fix or not report.num_safe else f"{left}; --fix mends {report.num_safe}"


if __name__ == "__main__":
    sys.exit(main())
