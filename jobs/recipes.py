"""Lists the built-in recipes, or prints one to begin a recipe of one's own with. Starts nothing.

python -m jobs.recipes [NAME]
"""

from __future__ import annotations

import sys

from jobs import exit_codes
from jobs.options import Parser
from pipelines.recipes.loading import built_in, load_recipe, read_recipe
from pipelines.recipes.recipe import Recipe


def main(argv: list[str] | None = None) -> int:
    """Run the job and return its exit code."""
    return exit_codes.exit_code_of(lambda: _show(sys.argv[1:] if argv is None else argv))


def _show(argv: list[str]) -> int:
    parser = Parser(prog="python -m jobs.recipes", description="List the built-in recipes, or print one.")
    parser.add_argument("name", metavar="NAME", nargs="?", help="the recipe to print, as YAML")
    name = parser.parse(argv).name
    print(read_recipe(name).rstrip() if name else "\n\n".join(described(load_recipe(one)) for one in built_in()))
    return exit_codes.OK


def described(recipe: Recipe) -> str:
    """What a recipe makes, needs and lets one set, in three lines."""
    columns = sorted({column for group in recipe.groups for column in group.columns})
    parameters = recipe.parameters or {}
    return "\n".join(
        [
            recipe.name,
            f"    {recipe.description}",
            f"    columns: {', '.join(columns) or 'none'}; parameters: {', '.join(parameters) or 'none'}",
        ]
    )


if __name__ == "__main__":
    sys.exit(main())
