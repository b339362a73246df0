"""Writes the manifest that a recipe makes of a source. Starts nothing: ``jobs.generate`` runs the manifest.

python -m jobs.expand RECIPE SOURCE MANIFEST [--set NAME=VALUE]… [--seed N] [--tasks FILE]…
"""

from __future__ import annotations

import sys
from argparse import Namespace

import yaml

from jobs import exit_codes
from jobs.options import Parser
from omnigen_actor import uri
from omnigen_actor.errors import ConfigError
from omnigen_actor.types import MAX_SEED
from pipelines.recipes.expand import Account, Expander, check_columns
from pipelines.recipes.filling import Places, SourceRow
from pipelines.recipes.loading import load_recipe
from pipelines.recipes.source import Source, open_source
from pipelines.recipes.writing import manifest_location, write_jsonl
from pipelines.task_files import load_tasks

DESCRIPTION = "Make a manifest of a table of captions and images, by a recipe. python -m jobs.recipes lists them."


def main(argv: list[str] | None = None) -> int:
    """Run the job and return its exit code."""
    return exit_codes.exit_code_of(lambda: _expand(_parse(sys.argv[1:] if argv is None else argv)))


def _parse(argv: list[str]) -> Namespace:
    parser = Parser(prog="python -m jobs.expand", description=DESCRIPTION)
    parser.add_argument("recipe", metavar="RECIPE", help="name of a built-in recipe, or a YAML file")
    parser.add_argument(
        "source",
        metavar="SOURCE",
        help="captions and images: .jsonl, .csv, .parquet, or a folder of images; path or URI",
    )
    parser.add_argument("manifest", metavar="MANIFEST", help="what is written: .jsonl or .jsonl.gz; path or URI")
    parser.add_argument(
        "--set", action="append", default=[], metavar="NAME=VALUE", help="another value for a parameter of the recipe"
    )
    parser.add_argument("--seed", default="0", metavar="INTEGER", help="another seed draws other choices (default: 0)")
    parser.add_argument(
        "--tasks", action="append", default=[], metavar="FILE", help="more tasks: YAML, or package.module:NAME"
    )
    return parser.parse(argv)


def _expand(arguments: Namespace) -> int:
    recipe = load_recipe(arguments.recipe, dict(map(_setting, arguments.set)))
    source, manifest = open_source(arguments.source), manifest_location(arguments.manifest)
    check_columns(recipe, source.columns)
    expander = Expander(
        recipe,
        Places(source_folder=source.base_folder, manifest_folder=uri.parent(manifest)),
        tasks=load_tasks(arguments.tasks),
        seed=_seed(arguments.seed),
        on_rejected=_tell,
    )
    write_jsonl(manifest, expander.rows(source.rows()))
    print("\n".join(account(expander.account, source, manifest)))
    good = expander.account.adds_up and not expander.account.num_rejected
    return exit_codes.OK if good else exit_codes.ROWS_FAILED


def account(counts: Account, source: Source, manifest: str) -> list[str]:
    """What has become of the source, line by line."""
    tasks = ", ".join(f"{task} {number}" for task, number in counts.per_task.most_common())
    shares = counts.shares
    lines = [
        f"in {counts.num_source} = used {counts.num_used} + rejected {counts.num_rejected}",
        f"out {counts.num_rows} rows, {counts.num_images} images: {tasks or 'none'}",
    ]
    if len(shares.made) > 1:
        lines += [
            f"    {name}: {made} images, {shares.made_percent(name):.1f} % (asked {shares.asked_percent(name):.1f} %)"
            for name, made in shares.made.items()
        ]
    if source.left_out:
        lines.append(f"columns that a manifest can't hold, left out: {', '.join(source.left_out)}")
    return [*lines, f"manifest {uri.redact(manifest)}"]


def _setting(text: str) -> tuple[str, object]:
    name, equals, value = text.partition("=")
    if not name or not equals:
        raise ConfigError(f"--set {text!r}: must be NAME=VALUE")
    try:
        return name, yaml.safe_load(value)
    except yaml.YAMLError as error:
        raise ConfigError(f"--set {text!r}: {' '.join(str(error).split())}") from None


def _seed(text: str) -> int:
    if not text.isascii() or not text.isdecimal() or int(text) > MAX_SEED:
        raise ConfigError(f"--seed {text!r}: must be a whole number between 0 and {MAX_SEED}")
    return int(text)


def _tell(source_row: SourceRow, reason: str) -> None:
    exit_codes.say(f"rejected: {source_row}: {reason}")


if __name__ == "__main__":
    sys.exit(main())
