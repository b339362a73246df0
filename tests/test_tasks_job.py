"""``python -m jobs.tasks`` lists what a manifest may name."""

from __future__ import annotations

from pathlib import Path

from jobs import exit_codes, tasks
from omnigen_actor.tasks import TASKS


def test_every_task_is_listed_with_its_wording(capsys):
    assert tasks.main([]) == exit_codes.OK
    printed = capsys.readouterr().out
    for spec in TASKS.values():
        assert f"\n{spec.name}" in f"\n{printed}"
        assert spec.wording.replace("\n", "\\n") in printed


def test_tasks_of_a_file_are_listed_too(tmp_path: Path, capsys):
    path = tmp_path / "mine.yaml"
    path.write_text("tasks: [{name: sketch, wording: 'Sketch {img1}.', min_images: 1}]")
    assert tasks.main(["--tasks", str(path), "--markdown"]) == exit_codes.OK
    assert "| `sketch` | `Sketch {img1}.` | 1 | not needed | 2.5, 1.6 | run |" in capsys.readouterr().out


def test_a_file_that_can_not_be_read_is_one_line_and_exit_code_2(capsys):
    assert tasks.main(["--tasks", "nowhere.yaml"]) == exit_codes.NOT_STARTED
    assert capsys.readouterr().err.startswith("error: tasks nowhere.yaml")
