"""The documentation against the code: tables that repeat it, options, imports in examples, and links."""

from __future__ import annotations

import ast
import json
import re
from dataclasses import fields
from datetime import UTC, datetime
from functools import cache
from pathlib import Path

import pyarrow as pa
import pytest

from jobs import exit_codes
from jobs.export import SURFACE as EXPORTING
from jobs.finetune import SURFACE as TRAINING
from jobs.options import option_name
from jobs.score import SURFACE as SCORING
from jobs.tasks import markdown
from omnigen_actor.errors import ErrorKind, Stage
from omnigen_actor.fake import FakeEngine
from omnigen_actor.metrics import EngineUse, to_jsonl
from omnigen_actor.schema import MANIFEST, RECORD
from omnigen_actor.tasks import DEFAULT_TASKS
from omnigen_actor.types import Request
from pipelines import prometheus
from pipelines.config import RunConfig
from pipelines.run_info import fingerprint
from pipelines.settings import RUN
from pipelines.summary import Summary

ROOT = Path(__file__).parent.parent
DOCS = sorted((ROOT / "docs").glob("*.md"))
PAGES = [path for path in (ROOT / "README.md", ROOT / "CONTRIBUTING.md", *DOCS) if path.is_file()]
PACKAGES = ("omnigen_actor", "pipelines", "jobs")

# Of programs that are not ours, and of our own beside the settings.
OTHER_OPTIONS = {
    "--address",
    "--base-folder",
    "--best",
    "--by",
    "--check",
    "--config",
    "--dashboard-port",
    "--duplicates",
    "--fix",
    "--gates",
    "--generate",
    "--head",
    "--help",
    "--ids",
    "--image",
    "--json",
    "--drop-duplicates",
    "--load",
    "--markdown",
    "--near-duplicates",
    "--no-decode",
    "--no-embed-provenance",
    "--no-hash",
    "--num",
    "--output",
    "--pairs",
    "--port",
    "--preset",
    "--quick",
    "--quota",
    "--quota-by",
    "--replace",
    "--report",
    "--rows",
    "--set",
    "--size",
    "--split",
    "--strict",
    "--threads",
    "--where",
    "--working-dir",
}

LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")
CELL = re.compile(r"(?<!\\)\|")


def read(path: Path) -> str:
    return path.read_text(encoding="utf-8")


def doc(name: str) -> str:
    return read(ROOT / "docs" / name)


def table(text: str, *header: str) -> list[list[str]]:
    """The cells of the first table with that header. Code marks are kept."""
    lines = iter(text.splitlines())
    for line in lines:
        if cells(line) == list(header):
            next(lines)
            return [cells(row) for row in iter(lambda: next(lines, ""), "") if row.startswith("|")]
    raise AssertionError(f"no table with the header {header}")


def cells(line: str) -> list[str]:
    return [cell.strip() for cell in CELL.split(line)[1:-1]]


def code(cell: str) -> str:
    """What is between the code marks of a cell."""
    match = re.fullmatch(r"`([^`]+)`", cell)
    assert match, f"{cell!r} is not code"
    return match[1]


def slug(heading: str) -> str:
    """The anchor of a heading, as GitHub makes it."""
    return re.sub(r"[^\w\- ]", "", heading.strip().lower()).replace(" ", "-")


@cache
def anchors(path: Path) -> set[str]:
    return {slug(heading) for heading in re.findall(r"^#+ (.+)$", read(path), re.MULTILINE)}


def test_the_table_of_tasks_is_that_of_the_code() -> None:
    """As ``python -m jobs.tasks --markdown`` prints it."""
    assert "\n".join(markdown(DEFAULT_TASKS)) in doc("manifest.md")


@pytest.mark.parametrize(("name", "schema"), [("manifest.md", MANIFEST), ("records.md", RECORD)])
def test_the_list_of_columns_is_that_of_the_code(name: str, schema: pa.Schema) -> None:
    found = table(doc(name), "column", "type", "meaning")
    assert [(code(column), kind) for column, kind, _ in found] == [(field.name, str(field.type)) for field in schema]
    assert all(meaning for *_, meaning in found)


def test_the_list_of_error_kinds_is_that_of_the_code() -> None:
    found = table(doc("records.md"), "kind", "stage", "cause", "remedy")
    assert [code(row[0]) for row in found] == [kind.value for kind in ErrorKind]
    assert all(row[2] and row[3] for row in found)
    assert {stage for row in found for stage in row[1].split(", ")} == {stage.value for stage in Stage}


def test_the_exit_codes_are_those_of_the_code() -> None:
    found = [int(row[0]) for row in table(doc("records.md"), "code", "meaning")]
    assert found == [
        exit_codes.OK,
        exit_codes.ROWS_FAILED,
        exit_codes.NOT_STARTED,
        exit_codes.CRASHED,
        exit_codes.BROKEN_OFF,
        exit_codes.INTERRUPTED,
        exit_codes.TERMINATED,
    ]


def test_the_settings_that_a_store_is_bound_to_are_those_of_the_code() -> None:
    found = [code(row[0]) for row in table(doc("records.md"), "value", "")]
    assert found == list(fingerprint(RunConfig(), "any"))


def test_the_keys_of_the_summary_are_those_of_the_code() -> None:
    summary = Summary(
        num_in=0,
        num_ok=0,
        num_failed=0,
        num_skipped=0,
        num_already_done=0,
        num_generated=0,
        errors=(),
        seconds=0.0,
        images_uri="",
        records_uri="",
        summary_uri="",
    )
    found = [code(row[0]) for row in table(doc("records.md"), "key", "meaning")]
    assert found == list(json.loads(summary.to_json()))


def test_the_keys_of_what_the_engines_took_are_those_of_the_code() -> None:
    found = [code(row[0]) for row in table(doc("records.md"), "key of `engine`", "meaning")]
    assert found == [entry.name for entry in fields(EngineUse)]


def test_the_fields_of_a_metrics_file_are_those_of_the_code() -> None:
    engine, now = FakeEngine(), datetime.now(UTC)
    list(engine.generate([Request(id="a", prompt="p", width=16, height=16, seed=1)]))
    written = json.loads(to_jsonl(engine.take_waves(), node="n", started_at=now, finished_at=now))
    assert [code(row[0]) for row in table(doc("records.md"), "field", "meaning")] == list(written)


def test_the_metrics_for_prometheus_are_those_of_the_code() -> None:
    found = [(code(name), kind) for name, kind, _ in table(doc("deployment.md"), "metric", "kind", "meaning")]
    counters = [(f"ray_{name}_total", "counter") for name in prometheus.COUNTERS]
    assert found == [*counters, (f"ray_{prometheus.OCCUPANCY}", "histogram")]


def test_the_table_of_engine_settings_is_that_of_the_code() -> None:
    found = table(doc("deployment.md"), "option", "default", "what it does")
    own = [(setting, setting.default) for setting in RUN.settings.values() if setting.section == "engine"]
    words = {"None": "none", "()": "none", "False": "no"}
    assert [(code(option), default) for option, default, _ in found] == [
        (option_name(setting), words.get(str(default), str(default))) for setting, default in own
    ]
    for option, _, text in found:
        is_approximation = (
            "approximation" in RUN.settings[f"engine.{code(option)[2:].replace('-', '_')}"].metadata["help"]
        )
        assert text.startswith("approximation: ") == is_approximation


def test_every_module_has_its_line_in_the_architecture() -> None:
    text = doc("architecture.md")
    for package in PACKAGES:
        found = [code(row[0]) for row in table(text.partition(f"### {package}\n")[2], "module", "for")]
        modules = {path.relative_to(ROOT / package).as_posix() for path in (ROOT / package).rglob("[!_]*.py")}
        assert sorted(found) == sorted(modules)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_option_that_is_named_exists(page: Path) -> None:
    jobs = (RUN, TRAINING, SCORING, EXPORTING)
    own = [setting for surface in jobs for setting in surface.settings.values()]
    known = OTHER_OPTIONS | {option_name(setting) for setting in own}
    named = set(re.findall(r"(?<![\w-])--[a-z][a-z0-9-]*", LINK.sub("", read(page))))
    assert named <= known


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_relative_link_leads_somewhere(page: Path) -> None:
    dead = []
    for link in LINK.findall(read(page)):
        target, _, anchor = link.partition("#")
        if "://" in link or target.startswith("mailto:"):
            continue
        path = (page.parent / target).resolve() if target else page
        if not path.exists() or (anchor and path.suffix == ".md" and anchor not in anchors(path)):
            dead.append(link)
    assert dead == []


@pytest.mark.parametrize("page", DOCS, ids=lambda page: page.name)
def test_every_file_that_is_named_exists(page: Path) -> None:
    folders = "|".join((*PACKAGES, "tests", "benchmarks", "examples"))
    named = set(re.findall(rf"`((?:{folders})/[\w./-]+)`", read(page)))
    assert [name for name in sorted(named) if not (ROOT / name).exists()] == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_python_examples_are_python_and_import_what_exists(page: Path) -> None:
    for example in re.findall(r"^```python\n(.*?)^```", read(page), re.DOTALL | re.MULTILINE):
        for node in ast.walk(ast.parse(example)):
            if isinstance(node, ast.ImportFrom) and (node.module or "").partition(".")[0] in PACKAGES:
                missing = {alias.name for alias in node.names} - names_of(str(node.module))
                assert not missing, f"{node.module} has no {missing}"


def names_of(module: str) -> set[str]:
    """What a module defines at its top, without importing it."""
    tree = ast.parse(read((ROOT / module.replace(".", "/")).with_suffix(".py")))
    named = {node.name for node in tree.body if isinstance(node, ast.FunctionDef | ast.ClassDef)}
    targets = [node.targets for node in tree.body if isinstance(node, ast.Assign)]
    targets += [[node.target] for node in tree.body if isinstance(node, ast.AnnAssign)]
    return named | {target.id for group in targets for target in group if isinstance(target, ast.Name)}


def test_a_wrong_table_is_found() -> None:
    text = "| code | meaning |\n|---|---|\n| `a` | one |\n\n| `b` | two |"
    assert table(text, "code", "meaning") == [["`a`", "one"]]
    with pytest.raises(AssertionError, match="no table"):
        table(text, "kind", "meaning")
