"""Which images of a run store make a data set? ``python -m jobs.select STORE NAME [options]`` writes it down there.

Knows none of the rules. Starts no Ray and loads no torch.
"""

from __future__ import annotations

import sys
from argparse import BooleanOptionalAction, Namespace

from jobs import exit_codes
from jobs.options import Parser
from omnigen_actor.errors import ConfigError
from pipelines.selection import quotas, splits
from pipelines.selection.options import QUOTA_ORDERS, SelectionConfig
from pipelines.selection.run import Account, select
from pipelines.selection.syntax import ExpressionError

DESCRIPTION = "Select images of a run store by what is known of them: filters, the best of each row, quotas, splits."
MEANING = """\
exit codes:
  0    some images are kept
  1    no image is kept
  2    the selection could not start: an option, an expression, no run store
  70   a crash, with its traceback
  130  interrupted
"""
_EXPRESSIONS = ("--where", "--by")
_MAX_REASONS = 20


def main(argv: list[str] | None = None) -> int:
    """Run the job and return its exit code."""
    return exit_codes.exit_code_of(lambda: _select(_parse(sys.argv[1:] if argv is None else argv)))


def _parse(argv: list[str]) -> Namespace:
    parser = Parser(prog="python -m jobs.select", description=DESCRIPTION, epilog=MEANING)
    parser.add_argument("store", metavar="STORE", help="folder or URI: the OUTPUT of a run")
    parser.add_argument("name", metavar="NAME", help="what the selection is called: selections/NAME in the store")
    parser.add_argument("--where", metavar="EXPR", help='a condition, such as "clip > 0.28 and not copy_through"')
    parser.add_argument("--by", metavar="EXPR", help="a number, highest first: clip, or -sharpness for the lowest")
    parser.add_argument("--best", metavar="N", help="of each row only the N best samples by --by")
    parser.add_argument(
        "--quota",
        action="extend",
        nargs="+",
        default=[],
        metavar="COLUMN=VALUE:N",
        help="at most N images with this value; COLUMN:N: of each other value",
    )
    parser.add_argument("--quota-by", default="hash", metavar="|".join(QUOTA_ORDERS), help="which are taken (hash)")
    parser.add_argument(
        "--split", default="", metavar="NAME=SHARE,…", help="validation=0.02,test=0.01; train: the rest"
    )
    parser.add_argument("--seed", default="0", metavar="INTEGER", help="another seed: other quotas and splits (0)")
    parser.add_argument(
        "--drop-duplicates",
        action="store_true",
        help="keep one image of each near-duplicate group: the best, or the first",
    )
    parser.add_argument("--duplicates", metavar="COLUMN", help="the column of these groups (duplicate_group)")
    parser.add_argument(
        "--pairs", action=BooleanOptionalAction, default=False, help="write rejected samples as preference pairs (no)"
    )
    parser.add_argument("--replace", action="store_true", help="replace a selection of this name with other settings")
    return parser.parse(_with_signs(argv))


def _with_signs(argv: list[str]) -> list[str]:
    """``--by -sharpness`` as ``--by=-sharpness``: an expression may begin with a minus sign."""
    words = list(argv)
    for index in range(len(words) - 1, 0, -1):
        if words[index - 1] in _EXPRESSIONS and words[index].startswith("-") and not words[index].startswith("--"):
            words[index - 1 : index + 1] = [f"{words[index - 1]}={words[index]}"]
    return words


def _select(arguments: Namespace) -> int:
    config = SelectionConfig(
        where=arguments.where,
        by=arguments.by,
        best=None if arguments.best is None else _whole("best", arguments.best),
        quotas=tuple(map(quotas.parse, arguments.quota)),
        quota_by=arguments.quota_by,
        split=splits.parse(arguments.split),
        seed=_whole("seed", arguments.seed),
        duplicates=arguments.duplicates,
        drop_duplicates=arguments.drop_duplicates,
    )
    try:
        account = select(arguments.store, arguments.name, config, has_pairs=arguments.pairs, replace=arguments.replace)
    except ExpressionError as error:
        exit_codes.say(f"error: {error}\n{error.place}")
        return exit_codes.NOT_STARTED
    exit_codes.show("\n".join(lines(account, config)))
    return exit_codes.OK if account.num_kept else exit_codes.ROWS_FAILED


def lines(account: Account, config: SelectionConfig) -> list[str]:
    """What became of the images, the reasons most frequent first, and the splits."""
    shown = [f"in {account.num_in} = kept {account.num_kept} + rejected {account.num_rejected}"]
    reasons = list(account.reasons.items())
    shown += [f"    {reason}: {count}" for reason, count in reasons[:_MAX_REASONS]]
    if len(reasons) > _MAX_REASONS:
        left = reasons[_MAX_REASONS:]
        shown.append(f"    {len(left)} other reasons: {sum(count for _, count in left)}")
    if config.split.shares:
        shown += [_split_line(name, count, account, config) for name, count in account.splits.items()]
        shown.append(f"families {account.num_families}, the largest of {account.largest_family} images")
    if account.num_pairs is not None:
        shown.append(f"preference pairs {account.num_pairs}")
    return [*shown, f"selection {account.place}"]


def _split_line(name: str, count: int, account: Account, config: SelectionConfig) -> str:
    shares = dict(config.split.shares)
    asked = 100 * shares.get(name, 1 - sum(shares.values()))
    got = 100 * count / account.num_kept if account.num_kept else 0.0
    return f"    {name}: {count} images, {got:.1f} % (asked {asked:.1f} %)"


def _whole(name: str, text: str) -> int:
    if not text.isascii() or not text.isdecimal() or len(text) > 20:
        raise ConfigError(f"--{name} {text!r}: must be a whole number")
    return int(text)


if __name__ == "__main__":
    sys.exit(main())
