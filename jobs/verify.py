"""Is a run store whole? ``python -m jobs.verify STORE [options]`` checks it, and mends what is safe with ``--fix``.

Knows nothing of how things are found. Starts no Ray and loads no torch.
"""

from __future__ import annotations

import sys
from argparse import BooleanOptionalAction, Namespace

from jobs import exit_codes
from jobs.options import Parser
from omnigen_actor import uri
from omnigen_actor.errors import OutputError
from pipelines.locations import locate
from pipelines.verify.report import Report
from pipelines.verify.store_check import VerifyConfig, verify

DESCRIPTION = "Check that every record of a run store has its image, whole, and that nothing else lies there."
MEANING = """\
exit codes:
  0    nothing is wrong, or all of it is mended
  1    something is wrong
  2    the check could not start: an option, no run store, or --fix while a run writes to it
  70   a crash, with its traceback
  130  interrupted
"""
_LONGEST_MESSAGE = 160


def main(argv: list[str] | None = None) -> int:
    """Run the job and return its exit code."""
    return exit_codes.exit_code_of(lambda: _verify(_parse(sys.argv[1:] if argv is None else argv)))


def _parse(argv: list[str]) -> Namespace:
    parser = Parser(prog="python -m jobs.verify", description=DESCRIPTION, epilog=MEANING)
    parser.add_argument("store", metavar="STORE", help="folder or URI: the OUTPUT of a run")
    parser.add_argument(
        "--fix",
        action="store_true",
        help="remove what no record names and what runs left behind; have lost images made again by the next run",
    )
    parser.add_argument("--hash", action=BooleanOptionalAction, default=True, help="compare each image's sha256 (yes)")
    parser.add_argument("--decode", action=BooleanOptionalAction, default=True, help="decode each image (yes)")
    parser.add_argument("--quick", action="store_true", help="read no image, compare sizes of files alone")
    parser.add_argument("--threads", type=int, default=8, metavar="INTEGER", help="images at a time (8)")
    parser.add_argument(
        "--take-over", action="store_true", help="--fix although a run says that it writes to the store"
    )
    parser.add_argument("--report", metavar="FILE", help="write what was found as JSON; path or URI")
    return parser.parse(argv)


def _verify(arguments: Namespace) -> int:
    reads = not arguments.quick
    config = VerifyConfig(
        has_hash=reads and arguments.hash, has_decode=reads and arguments.decode, num_threads=arguments.threads
    )
    place = arguments.report and locate(arguments.report, OutputError, "report ")
    report = verify(arguments.store, config, fix=arguments.fix, take_over=arguments.take_over)
    exit_codes.show("\n".join(lines(report, has_fix=arguments.fix)))
    if place:
        _write(place, report)
    return exit_codes.ROWS_FAILED if report.num_left else exit_codes.OK


def _write(place: str, report: Report) -> None:
    try:
        uri.write_bytes(place, report.to_json().encode())
    except OSError as error:
        raise OutputError(f"the report can't be written: {error}") from None


def lines(report: Report, *, has_fix: bool) -> list[str]:
    """The counts by kind with an example of each, and the verdict."""
    figures = f"{report.num_records} records, {report.num_images} good images, {report.num_bytes} bytes"
    shown = [f"{figures}; checked in {report.seconds:.1f} s"]
    if report.has_lease and not has_fix:
        shown.append("a run is writing to this store, or was killed: some of this may be its work under way")
    for kind, count in report.counts.most_common():
        example = report.examples[kind]
        mended = f", {report.mended.get(kind, 0)} mended" if has_fix else ""
        shown.append(f"{kind}: {count}{mended}")
        shown.append(f"    {' '.join(f'{example.key}: {example.message}'.split())}"[:_LONGEST_MESSAGE])
    shown += [f"not mended: {failure}" for failure in report.failures]
    return [*shown, _verdict(report, has_fix=has_fix)]


def _verdict(report: Report, *, has_fix: bool) -> str:
    if not report.counts:
        return "nothing is wrong"
    if not report.num_left:
        return "all is mended; the next run makes lost images again"
    left = f"{report.num_left} things are wrong" if report.num_left > 1 else "one thing is wrong"
    return left if has_fix or not report.num_safe else f"{left}; --fix mends {report.num_safe}"


if __name__ == "__main__":
    sys.exit(main())
