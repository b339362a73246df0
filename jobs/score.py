"""Scores the images of a run store: ``python -m jobs.score STORE --scorers statistics,phash,…``. Knows no scorer.

Imports neither ray nor torch before the options are right.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

from jobs import exit_codes
from jobs.options import Arguments, parse
from jobs.progress import Progress
from pipelines.scores.config import ScoreConfig
from pipelines.settings import Surface

if TYPE_CHECKING:
    from pipelines.scores.plan import Account

SURFACE = Surface(ScoreConfig)
PLACES = {"store": "folder or URI: the OUTPUT of a run"}
DESCRIPTION = "Say how good the images of a run store are. Run it again to score what is new."
MEANING = """\
scorers: statistics, copy_through, phash, near_duplicates, edges, depth:MODEL, pose:MODEL, clip:MODEL,
aesthetic:MODEL, nsfw:MODEL, or package.module:Class; NAME=SCORER keeps its scores under another name

exit codes:
  0    every image has its scores, or no more than --max-failed percent have none
  1    the scoring finished, but more images have none, or the sum does not add up
  2    it could not start: an option, no run store, a model, or scores of other settings
  70   a crash, with its traceback
  75   the store or the cluster failed while it went on; the same command continues
  130  interrupted; the same command continues
"""
_NOTE_LENGTH = 160


def main(argv: list[str] | None = None) -> int:
    """Run the job and return its exit code."""
    return exit_codes.exit_code_of(lambda: _score(sys.argv[1:] if argv is None else argv))


def _score(argv: list[str]) -> int:
    arguments = parse(argv, SURFACE, PLACES, prog="python -m jobs.score", description=DESCRIPTION, epilog=MEANING)
    accounts = _run(arguments)
    exit_codes.show("\n".join(lines(accounts)))
    return verdict(accounts, arguments.config.max_failed)


def _run(arguments: Arguments[ScoreConfig]) -> list[Account]:
    from pipelines.scores.run import score

    with Progress(sys.stderr, arguments.config.progress_every_s) as progress:
        return score(arguments.places["store"], arguments.config, on_start=progress.start, on_progress=progress.update)


def lines(accounts: Sequence[Account]) -> list[str]:
    """The sum of each scorer, and what else there is to say."""
    shown = []
    for one in accounts:
        before = f" ({one.num_already_errors} of them errors: --retry-errors)" if one.num_already_errors else ""
        lost = "" if one.adds_up else f": IT DOES NOT ADD UP, {one.num_missing} have no score"
        shown.append(
            f"{one.name}: {one.num_images} images, scored {one.num_scored}, errors {one.num_errors}, "
            f"already there {one.num_already}{before}{lost}"
        )
        if one.note:
            shown.append(f"    {' '.join(one.note.split())}"[:_NOTE_LENGTH])
    return shown


def verdict(accounts: Sequence[Account], max_failed: float) -> int:
    """The exit code of a finished scoring; ``max_failed`` is in percent, of the images of each scorer."""
    good = all(one.adds_up and one.percent_failed <= max_failed for one in accounts)
    return exit_codes.OK if good else exit_codes.ROWS_FAILED


if __name__ == "__main__":
    sys.exit(main())
