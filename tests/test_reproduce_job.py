from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from jobs import generate
from jobs.reproduce import main
from pipelines.reproduce_compare import Verdict
from tests.test_docs import code, doc, table
from tests.test_reproduce import CONFIG, ROWS, change_record, image, make, picture


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return make(tmp_path, ROWS[:3], CONFIG)


def test_rows_that_are_reproduced_are_exit_code_0(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([str(root)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[:3] == [f"text-{number}#0: identical" for number in range(3)]
    assert lines[3].startswith("3 rows in ")
    assert lines[3].endswith(" s: identical 3")
    assert lines[4] == "all reproduced"


def test_one_that_is_not_is_exit_code_1_and_a_report_is_for_machines(
    root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    change_record(root, "text-1", seed=1)
    image(root, "text-2").unlink()
    file = tmp_path / "reports" / "report.json"
    assert main([str(root), "--num", "3", "--report", str(file)]) == 1
    out = capsys.readouterr().out
    assert "text-1#0: record tampered (the image was made with other values of seed" in out
    assert out.endswith("2 not reproduced\n")
    told = json.loads(file.read_text())
    assert told["counts"] == {"identical": 1, "record tampered": 1, "image missing": 1}
    assert [row["is_good"] for row in told["rows"]] == [True, False, False]


def test_ids_choose_the_rows_and_what_is_made_is_kept(root: Path, tmp_path: Path) -> None:
    kept = tmp_path / "kept"
    assert main([str(root), "text-2", "text-0#0", "--output", str(kept)]) == 0
    assert sorted(file.name for file in kept.iterdir()) == ["text-0-0.png", "text-2-0.png"]
    assert (kept / "text-2-0.png").read_bytes() == image(root, "text-2").read_bytes()


@pytest.mark.parametrize(
    "options",
    [
        ["nobody"],
        ["--num", "0"],
        ["--numm", "1"],
        ["--device", "tpu"],
        ["--model", "/no/such/model"],
        ["--report", "/dev/null/report.json"],
        ["--output", "/dev/null/images"],
    ],
)
def test_what_cannot_be_done_is_exit_code_2_and_one_line(
    root: Path, options: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([str(root), *options]) == 2
    assert len(capsys.readouterr().err.splitlines()) == 1


def test_the_documentation_has_every_verdict() -> None:
    found = table(doc("records.md"), "verdict", "meaning", "what to do")
    assert [code(row[0]) for row in found] == [one.value for one in Verdict]


def test_the_job_loads_no_heavy_library_before_there_is_a_row_to_make() -> None:
    code = "import sys, jobs.reproduce; sys.exit(', '.join({'torch', 'ray', 'diffusers'} & set(sys.modules)) or 0)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


@pytest.mark.ray
@pytest.mark.slow
def test_what_the_main_job_makes_is_reproduced_and_a_store_begun_without_provenance_goes_on_with_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    picture(tmp_path / "in.png")
    manifest, out = tmp_path / "rows.jsonl", tmp_path / "out"
    manifest.write_text("".join(json.dumps(row) + "\n" for row in ROWS[:4]))
    options = [str(manifest), str(out), "--model", "fake", "--width", "32", "--height", "32", "--steps", "2"]
    assert generate.main([*options, "--no-embed-provenance"]) == 0
    before = {file.name: file.read_bytes() for file in (out / "images").rglob("*.png")}
    manifest.write_text("".join(json.dumps(row) + "\n" for row in [*ROWS[:4], *ROWS[17:]]))
    assert generate.main(options) == 0
    after = {file.name: file.read_bytes() for file in (out / "images").rglob("*.png")}
    assert (len(before), len(after)) == (4, 7)
    assert before.items() < after.items()
    run = json.loads((out / "run.json").read_text())["runs"][1]
    assert (run["manifest"], run["image_base"]) == (str(manifest), str(tmp_path))
    capsys.readouterr()
    assert main([str(out)]) == 0
    assert "7 rows" in capsys.readouterr().out
