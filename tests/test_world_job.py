"""``python -m jobs.world``: its options, what it prints, and its exit codes."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from jobs import exit_codes, world
from pipelines.world.samples import TASKS_OF_THE_WORLD

ROOT = Path(__file__).parent.parent


def test_rows_of_all_tasks_are_written_by_default(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    num_tasks = len(TASKS_OF_THE_WORLD)
    assert world.main([str(tmp_path), "--rows", str(num_tasks)]) == exit_codes.OK
    rows = [json.loads(line) for line in (tmp_path / "manifest.jsonl").read_text().splitlines()]
    assert [row["task"] for row in rows] == list(TASKS_OF_THE_WORLD)
    assert f"{num_tasks} rows of {num_tasks} tasks, 64 px, seed 0" in capsys.readouterr().out


def test_options_choose_the_world_its_size_its_tasks_and_the_seed(tmp_path: Path) -> None:
    options = ["--rows", "4", "--seed", "9", "--size", "128", "--preset", "full", "--tasks", "canny,edit"]
    assert world.main([str(tmp_path), *options, "--image-format", "webp"]) == exit_codes.OK
    rows = [json.loads(line) for line in (tmp_path / "manifest.jsonl").read_text().splitlines()]
    assert [row["id"] for row in rows] == ["canny-000000", "edit-000000", "canny-000001", "edit-000001"]
    assert (tmp_path / "images/canny/000001-output.webp").is_file()


def test_a_task_may_have_several_turns_with_samples_of_their_own(tmp_path: Path) -> None:
    assert world.main([str(tmp_path), "--rows", "6", "--tasks", "edit=2,depth"]) == exit_codes.OK
    rows = [json.loads(line) for line in (tmp_path / "manifest.jsonl").read_text().splitlines()]
    assert [row["id"] for row in rows] == [
        "edit-000000", "edit-000001", "depth-000000", "edit-000002", "edit-000003", "depth-000001",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--tasks", "edit=0"], "edit=0"),
        (["--tasks", "edit=x"], "edit=x"),
        (["--preset", "huge"], "--preset huge: must be one of small, full"),
        (["--size", "96"], "size=96"),
        (["--rows", "0"], "rows=0"),
        (["--rows", "many"], "--rows"),
        (["--tasks", "canny,dept"], "'dept'"),
        (["--sizes", "64"], "nearest known one is --size"),
        (["--image-format", "gif"], "'gif'"),
    ],
)
def test_a_wrong_option_is_one_line_and_exit_code_2(
    options: list[str], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert world.main([str(tmp_path / "out"), *options]) == exit_codes.NOT_STARTED
    printed = capsys.readouterr().err
    assert printed.startswith("error: ")
    assert message in printed
    assert printed.count("\n") == 1
    assert not (tmp_path / "out").exists()


def test_the_job_loads_neither_torch_nor_ray(tmp_path: Path) -> None:
    code = (
        "import sys; from jobs import world\n"
        f"assert world.main([{str(tmp_path)!r}, '--rows', '2']) == 0\n"
        "sys.exit(', '.join({'torch', 'ray', 'diffusers', 'transformers'} & set(sys.modules)) or 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, cwd=ROOT)
    assert done.returncode == 0, done.stderr
