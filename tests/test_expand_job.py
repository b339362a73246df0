"""``python -m jobs.expand`` and ``python -m jobs.recipes``, as a user runs them."""

from __future__ import annotations

import gzip
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from jobs import exit_codes, expand, recipes
from pipelines.manifest import open_manifest
from pipelines.recipes.loading import built_in, read_recipe
from tests.conftest import Bucket

ROWS: list[dict[str, Any]] = [
    {"id": f"p{n}", "caption": f"Photograph {n}.", "image": f"photos/{n}.jpg", "license": "CC0"} for n in range(40)
]


@pytest.fixture
def source(tmp_path: Path) -> Path:
    path = tmp_path / "photos.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    return path


def read(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


@pytest.mark.parametrize("name", built_in())
def test_each_built_in_recipe_makes_a_manifest_that_opens(source: Path, name: str, capsys: Any) -> None:
    manifest = source.parent / f"{name}.jsonl"
    assert expand.main([name, str(source), str(manifest)]) == exit_codes.OK, capsys.readouterr().err
    rows = read(manifest)
    assert rows
    assert open_manifest(str(manifest)).schema.names
    printed = capsys.readouterr().out
    assert "in 40 = used 40 + rejected 0" in printed
    assert f"out {len(rows)} rows, {len(rows)} images" in printed
    assert str(manifest) in printed
    assert {row["license"] for row in rows} == {"CC0"}
    assert all(image.startswith(("photos/", "row:", "data:")) for row in rows for image in row.get("images", []))


def test_the_same_command_gives_the_same_bytes_and_a_packed_name_packs_them(source: Path) -> None:
    one, two, packed = (source.parent / name for name in ("one.jsonl", "two.jsonl", "packed.jsonl.gz"))
    for path in (one, two, packed):
        assert expand.main(["x2i-mix", str(source), str(path), "--seed", "3"]) == exit_codes.OK
    assert one.read_bytes() == two.read_bytes()
    assert gzip.decompress(packed.read_bytes()) == one.read_bytes()
    before = packed.read_bytes()
    expand.main(["x2i-mix", str(source), str(packed), "--seed", "3"])
    assert packed.read_bytes() == before


def test_parameters_are_set_as_yaml(source: Path) -> None:
    manifest = source.parent / "m.jsonl"
    argv = ["controlnet", str(source), str(manifest), "--set", "maps=[depth]", "--set", "subject=the cat"]
    assert expand.main(argv) == exit_codes.OK
    assert {row["task"] for row in read(manifest)} == {"depth", "segmentation", "condition"}
    assert {row["instruction"] for row in read(manifest) if row["task"] == "segmentation"} == {"the cat"}


def test_a_source_row_that_makes_nothing_is_told_and_the_exit_code_says_so(source: Path, capsys: Any) -> None:
    source.write_text(source.read_text() + '{"id": "bare", "image": "photos/x.jpg"}\n{"id":\n')
    manifest = source.parent / "m.jsonl"
    assert expand.main(["controlnet", str(source), str(manifest)]) == exit_codes.ROWS_FAILED
    printed = capsys.readouterr()
    assert "in 42 = used 40 + rejected 2" in printed.out
    assert "rejected: source row 41 ('bare'): lacks what its recipe needs: controlnet needs caption" in printed.err
    assert "rejected: source row 42 ('line-42'): line 42: not JSON" in printed.err
    assert len(read(manifest)) == 40 * 8


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["controlnot"], "did you mean controlnet"),
        (["controlnet", "--set", "map=[depth]"], "unknown parameter 'map'; did you mean maps"),
        (["controlnet", "--set", "maps"], "--set 'maps': must be NAME=VALUE"),
        (["controlnet", "--set", "maps=["], "--set 'maps=['"),
        (["controlnet", "--seed", "-1"], "--seed '-1'"),
        (["controlnet", "--tasks", "nowhere.yaml"], "tasks nowhere.yaml"),
        (["controlnet", "--sed", "1"], "unknown option --sed"),
    ],
)
def test_what_can_not_work_is_one_line_and_no_file(source: Path, more: list[str], message: str, capsys: Any) -> None:
    manifest = source.parent / "m.jsonl"
    assert expand.main([more[0], str(source), str(manifest), *more[1:]]) == exit_codes.NOT_STARTED
    error = capsys.readouterr().err
    assert error.startswith("error: ")
    assert message in error
    assert error.count("\n") == 1
    assert not manifest.exists()


def test_a_source_that_ends_in_an_error_leaves_the_old_manifest_as_it_was(source: Path, capsys: Any) -> None:
    manifest = source.parent / "m.jsonl"
    manifest.write_text("old")
    photos = source.parent / "photos"
    photos.mkdir()
    (photos / "a.jpg").write_bytes(b"")
    (photos / "a.txt").write_bytes(b"\xff")
    assert expand.main(["stepwise", str(photos), str(manifest)]) == exit_codes.NOT_STARTED
    assert manifest.read_text() == "old"


@pytest.mark.parametrize("name", ["m.parquet", "m.csv", "m"])
def test_only_json_lines_are_written(source: Path, name: str, capsys: Any) -> None:
    assert expand.main(["controlnet", str(source), str(source.parent / name)]) == exit_codes.NOT_STARTED
    assert "must end in .jsonl or .jsonl.gz" in capsys.readouterr().err


def test_a_source_of_which_nothing_comes_writes_no_manifest(source: Path, capsys: Any) -> None:
    source.write_text('{"caption": "x", "image": null}\n{"image": "a.jpg"}\n')
    manifest = source.parent / "m.jsonl"
    assert expand.main(["controlnet", str(source), str(manifest)]) == exit_codes.NOT_STARTED
    assert "no source row makes a row of the manifest" in capsys.readouterr().err
    assert not manifest.exists()


def test_recipes_are_listed_and_printed(capsys: Any, tmp_path: Path) -> None:
    assert recipes.main([]) == exit_codes.OK
    printed = capsys.readouterr().out
    assert all(name in printed for name in built_in())
    assert recipes.main(["edit-pairs"]) == exit_codes.OK
    assert capsys.readouterr().out == read_recipe("edit-pairs")
    assert recipes.main(["edit-pear"]) == exit_codes.NOT_STARTED


@pytest.mark.parametrize("job", ["jobs.expand", "jobs.recipes"])
def test_help_loads_neither_torch_nor_ray(job: str) -> None:
    code = f"import sys, {job}; print([name for name in ('torch', 'ray', 'diffusers') if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


@pytest.mark.s3
def test_source_and_manifest_can_lie_on_s3(s3: Bucket) -> None:
    lines = "".join(json.dumps(row) + "\n" for row in ROWS)
    source = s3.put("in/photos.jsonl", lines.encode())
    assert expand.main(["edit-pairs", source, f"{s3.uri}/in/m.jsonl"]) == exit_codes.OK
    rows = [json.loads(line) for line in s3.get("in/m.jsonl").splitlines()]
    assert len(rows) == 160
    assert rows[0]["images"] == ["photos/0.jpg"]
    assert expand.main(["edit-pairs", source, f"{s3.uri}/out/m.jsonl"]) == exit_codes.OK
    first = json.loads(s3.get("out/m.jsonl").splitlines()[0])
    assert first["images"] == [f"{s3.uri}/in/photos/0.jpg"]
