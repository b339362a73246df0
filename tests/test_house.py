"""House rules that a machine can check: files that anyone may publish, exact pins, small documented modules."""

from __future__ import annotations

import ast
import re
import subprocess
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

ROOT = Path(__file__).parent.parent
MODULES = sorted(path for name in ("omnigen_actor", "pipelines", "jobs") for path in (ROOT / name).rglob("*.py"))
LONGEST_FILE = 300

# Written so that this file does not match itself.
FORBIDDEN = {
    "a package registry's host": re.compile(
        r"(?:pypi|pythonhosted|npmjs|crates|rubygems|anaconda)[.](?:org|io|com)|proxy[.]golang|download[.]pytorch"
    ),
    "a path of one machine": re.compile(r"(?<![\w.\-/])/(?:work|root)/"),
    "a folder outside the repository": re.compile(r"shared[/]design|[.][.]/shared"),
}


def files() -> list[Path]:
    """Everything that is, or could be, committed."""
    listed = subprocess.run(
        ["git", "ls-files", "-co", "--exclude-standard", "-z"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    if listed.returncode:
        pytest.skip("not a git checkout: there is no list of the files to read")
    return [path for name in listed.stdout.split("\0") if name and (path := ROOT / name).is_file()]


def pins() -> dict[str, Version]:
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    requirements = [Requirement(line) for line in lines if line and not line.startswith("#")]
    for requirement in requirements:
        assert re.fullmatch(r"==[^*,]+", str(requirement.specifier)), f"{requirement} is not an exact pin"
    return {canonicalize_name(pin.name): Version(str(pin.specifier).removeprefix("==")) for pin in requirements}


def dependencies() -> list[Requirement]:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    groups = [project["dependencies"], *project["optional-dependencies"].values()]
    return [Requirement(line) for group in groups for line in group]


def test_no_file_names_a_registry_or_a_place_outside_the_repository() -> None:
    found = [
        f"{path.relative_to(ROOT)}: {what}: {match[0]!r}"
        for path in files()
        for what, pattern in FORBIDDEN.items()
        if (match := pattern.search(path.read_bytes().decode("utf-8", "replace")))
    ]
    assert found == []


@pytest.mark.parametrize(
    "text",
    [
        "https://" + "pypi" + ".org/simple",
        "see /" + "work/main",
        "'/" + "root/.cache'",
        "../" + "shared",
        "download." + "pytorch.org",
    ],
)
def test_what_is_forbidden_is_found(text: str) -> None:
    assert any(pattern.search(text) for pattern in FORBIDDEN.values())


def test_a_folder_called_work_in_an_uri_is_nobodys_machine() -> None:
    assert not any(pattern.search("s3://bucket/" + "work/a.png") for pattern in FORBIDDEN.values())


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(ROOT)))
def test_a_module_says_what_it_is_for_and_stays_small(path: Path) -> None:
    source = path.read_text(encoding="utf-8")
    assert ast.get_docstring(ast.parse(source)), "no module docstring"
    assert len(source.splitlines()) <= LONGEST_FILE


@pytest.mark.parametrize("requirement", dependencies(), ids=str)
def test_a_dependency_is_pinned_within_its_bounds(requirement: Requirement) -> None:
    pinned = pins().get(canonicalize_name(requirement.name))
    assert pinned is not None, f"constraints.txt has no line for {requirement.name}"
    assert pinned in requirement.specifier
