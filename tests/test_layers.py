"""Who may import whom, read from the sources: jobs -> pipelines -> omnigen_actor; torch only where it computes."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent

MAY_IMPORT = {
    "jobs": {"jobs", "pipelines", "omnigen_actor"},
    "pipelines": {"pipelines", "omnigen_actor"},
    "omnigen_actor": {"omnigen_actor"},
}

HEAVY = ("torch", "diffusers", "transformers", "safetensors.torch")

COMPUTES = {
    "omnigen_actor.checkpoint.tiny",
    "omnigen_actor.engine",
    "omnigen_actor.engines",
    "omnigen_actor.gpus",
    "pipelines.scores.clip",
    "pipelines.scores.heads",
    "pipelines.scores.maps",
    "pipelines.scores.pretrained",
}
COMPUTES_BELOW = ("omnigen_actor.model", "omnigen_actor.training")
"""The modules, and the packages, that may import the libraries in HEAVY."""

LIGHT = [
    "jobs.expand",
    "jobs.generate",
    "jobs.export",
    "jobs.options",
    "jobs.reproduce",
    "jobs.score",
    "jobs.select",
    "jobs.verify",
    "jobs.world",
    "omnigen_actor.actor",
    "omnigen_actor.fake",
    "pipelines.check",
    "pipelines.manifest",
    "pipelines.plan",
    "pipelines.recipes.expand",
    "pipelines.selection.run",
    "jobs.evaluate",
    "jobs.finetune",
    "pipelines.world.scores",
    "pipelines.world.source",
]
"""Modules whose import must not cost seconds."""


def modules_of(root: Path) -> dict[str, Path]:
    """Every module of the three packages by its dotted name."""
    found = {}
    for package in MAY_IMPORT:
        for path in sorted((root / package).rglob("*.py")):
            parts = path.relative_to(root).with_suffix("").parts
            found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


def names_imported(module: str, path: Path) -> Iterator[str]:
    """Every dotted name that a file imports, at its top or inside a function; ``ray.data`` also where it is used."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    package = module if path.name == "__init__.py" else module.rpartition(".")[0]
    type_only = set(_type_checking(tree))
    for node in ast.walk(tree):
        if node in type_only:
            continue
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield from (f"{_source(node, package)}.{alias.name}" for alias in node.names)
        elif isinstance(node, ast.Attribute) and ast.unparse(node) == "ray.data":
            yield "ray.data"


def _source(node: ast.ImportFrom, package: str) -> str:
    above = package.split(".")[: len(package.split(".")) - node.level + 1] if node.level else []
    return ".".join([*above, *([node.module] if node.module else [])])


def _type_checking(tree: ast.Module) -> Iterator[ast.AST]:
    """Nodes that only a type checker reads. They cost no import, yet a type alone also couples two of our modules."""
    for node in ast.walk(tree):
        if isinstance(node, ast.If) and ast.unparse(node.test) in {"TYPE_CHECKING", "typing.TYPE_CHECKING"}:
            for statement in node.body:
                yield from ast.walk(statement)


def is_below(name: str, library: str) -> bool:
    return name == library or name.startswith(library + ".")


def violations(root: Path) -> list[str]:
    """Every broken rule, one line each."""
    modules = modules_of(root)
    imports = {module: sorted(set(names_imported(module, path))) for module, path in modules.items()}
    broken = [
        f"{module} imports {name}: {problem}"
        for module, names in imports.items()
        for name in names
        if (problem := _problem(module, name))
    ]
    return broken + _cycles(modules, imports)


def _problem(module: str, name: str) -> str | None:
    package, target = module.partition(".")[0], name.partition(".")[0]
    if target in MAY_IMPORT and target not in MAY_IMPORT[package]:
        return "wrong direction"
    if is_below(name, "ray") and package == "omnigen_actor":
        return "omnigen_actor knows nothing of Ray"
    if is_below(name, "ray.data") and package != "pipelines":
        return "Ray Data lives in pipelines"
    if any(is_below(name, library) for library in HEAVY) and not _computes(module):
        return "not a module that computes"
    return None


def _computes(module: str) -> bool:
    return module in COMPUTES or any(is_below(module, package) for package in COMPUTES_BELOW)


def _cycles(modules: dict[str, Path], imports: dict[str, list[str]]) -> list[str]:
    graph = {module: {own for name in names if (own := _own(name, modules))} for module, names in imports.items()}
    try:
        TopologicalSorter({module: targets - {module} for module, targets in graph.items()}).prepare()
    except CycleError as error:
        return [f"cycle: {' -> '.join(error.args[1])}"]
    return []


def _own(name: str, modules: dict[str, Path]) -> str | None:
    """The module that an imported name is, or lies in."""
    return name if name in modules else parent if (parent := name.rpartition(".")[0]) in modules else None


def test_diffusers_lends_the_autoencoder_and_nothing_of_the_transformer() -> None:
    """Its transformer is the tests' reference. The tiny checkpoint is written with its own classes."""
    users = {
        module
        for module, path in modules_of(ROOT).items()
        if any(is_below(name, "diffusers") for name in names_imported(module, path))
    }
    assert users == {"omnigen_actor.model.vae", "omnigen_actor.checkpoint.tiny", "omnigen_actor.training.mini"}


def test_every_import_keeps_to_the_layers() -> None:
    assert violations(ROOT) == []


def test_the_list_of_modules_that_compute_has_no_dead_entry() -> None:
    assert set(modules_of(ROOT)) >= COMPUTES


@pytest.mark.parametrize("module", LIGHT)
def test_a_light_module_loads_no_heavy_library(module: str) -> None:
    heavy = {"torch", "ray", "diffusers", "transformers"}
    code = f"import sys, {module}; sys.exit(', '.join({heavy} & set(sys.modules)) or 0)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, cwd=ROOT)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    ("files", "problem"),
    [
        ({"omnigen_actor/a.py": "import pipelines.b"}, "omnigen_actor.a imports pipelines.b: wrong direction"),
        ({"pipelines/a.py": "from jobs import b"}, "pipelines.a imports jobs.b: wrong direction"),
        ({"pipelines/a.py": "def f():\n    import jobs"}, "pipelines.a imports jobs: wrong direction"),
        ({"pipelines/a.py": "from ..jobs import b"}, "pipelines.a imports jobs.b: wrong direction"),
        ({"omnigen_actor/a.py": "import ray"}, "omnigen_actor.a imports ray: omnigen_actor knows nothing of Ray"),
        ({"jobs/a.py": "import ray.data"}, "jobs.a imports ray.data: Ray Data lives in pipelines"),
        ({"jobs/a.py": "from ray import data"}, "jobs.a imports ray.data: Ray Data lives in pipelines"),
        ({"jobs/a.py": "import ray\nray.data.range(1)"}, "jobs.a imports ray.data: Ray Data lives in pipelines"),
        ({"pipelines/a.py": "import torch.nn"}, "pipelines.a imports torch.nn: not a module that computes"),
        ({"omnigen_actor/actor.py": "def f():\n    from torch import nn"}, "not a module that computes"),
        ({"omnigen_actor/fake.py": "from safetensors.torch import load_file"}, "not a module that computes"),
        ({"jobs/a.py": "from jobs import b", "jobs/b.py": "def f():\n    from jobs.a import g"}, "cycle: "),
        ({"jobs/a.py": "from . import b", "jobs/b.py": "from .a import g"}, "cycle: "),
    ],
)
def test_a_violation_is_caught(tmp_path: Path, files: dict[str, str], problem: str) -> None:
    plant(tmp_path, files)
    found = violations(tmp_path)
    assert len(found) == 1
    assert problem in found[0]


def test_what_the_layers_allow_is_not_reported(tmp_path: Path) -> None:
    plant(
        tmp_path,
        {
            "jobs/a.py": "import ray\nfrom pipelines import b\nfrom omnigen_actor.c import d",
            "pipelines/b.py": "import ray.data\nfrom omnigen_actor import c",
            "omnigen_actor/c.py": "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    import torch",
            "omnigen_actor/engine.py": "import torch\nfrom omnigen_actor.c import d",
        },
    )
    assert violations(tmp_path) == []


def plant(root: Path, files: dict[str, str]) -> None:
    for package in MAY_IMPORT:
        (root / package).mkdir()
        (root / package / "__init__.py").touch()
    for name, source in files.items():
        (root / name).write_text(source, encoding="utf-8")
