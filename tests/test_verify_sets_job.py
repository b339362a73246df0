"""The job on data sets: table, verdict, exit codes, report, the line while it works, and the documentation."""

from __future__ import annotations

import io
import json
from pathlib import Path

import pytest

from jobs.check_line import CheckLine, format_report
from jobs.verify import main
from pipelines.verify.findings import STORE_KINDS, Finding, FindingKind
from pipelines.verify.report import Report
from tests.export_store import picture
from tests.test_docs import code, doc, table
from tests.test_verify import make_store
from tests.verify_sets import write_lines


@pytest.fixture
def root(tmp_path: Path) -> Path:
    folder = tmp_path / "set"
    folder.mkdir()
    picture(1).save(folder / "a.png")
    picture(2).save(folder / "b.png")
    rows = [{"instruction": "x", "input_images": ["a.png"], "output_image": "b.png"}]
    write_lines(folder / "rows.jsonl", rows)
    return folder


def test_a_whole_set_is_exit_code_0(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([str(root)]) == 0
    out = capsys.readouterr().out
    assert out.startswith("JSON lines: 1 rows, 2 good images, ")
    assert out.endswith("nothing is wrong\n")


def test_findings_are_exit_code_1_and_a_warning_is_not(
    root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (root / "b.png").write_bytes((root / "a.png").read_bytes())
    assert main([str(root)]) == 0
    out = capsys.readouterr().out
    assert "warning copy_through: 1\n" in out
    assert out.endswith("nothing is wrong; what is a warning may be meant so\n")
    (root / "b.png").unlink()
    file = tmp_path / "report.json"
    assert main([str(root), "--report", str(file)]) == 1
    assert capsys.readouterr().out.endswith("one thing is wrong\n")
    told = json.loads(file.read_text())
    assert (told["kind"], told["num_rows"], told["counts"]) == ("JSON lines", 1, {"image_missing": 1})
    assert told["findings"][0]["key"] == "rows.jsonl:1"


def test_leftovers_are_mended(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (root / ".0123456789abcdef.tmp").write_bytes(b"")
    assert main([str(root)]) == 1
    assert capsys.readouterr().out.endswith("one thing is wrong; --fix mends 1\n")
    assert main([str(root), "--fix"]) == 0
    assert capsys.readouterr().out.endswith("all is mended\n")


@pytest.mark.parametrize("option", [["--take-over"], ["--near-duplicates", "64"], ["--near-duplicates", "--quick"]])
def test_what_a_set_cannot_have_is_exit_code_2(
    root: Path, option: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([str(root), *option]) == 2
    assert len(capsys.readouterr().err.splitlines()) == 1


@pytest.mark.parametrize("option", [["--near-duplicates"], ["--load"], ["--image-root", "x"]])
def test_what_a_store_cannot_have_is_exit_code_2(
    tmp_path: Path, option: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    make_store(str(tmp_path / "store"))
    assert main([str(tmp_path / "store"), *option]) == 2
    assert "is for data sets" in capsys.readouterr().err


def test_a_line_shows_how_far_the_check_is() -> None:
    now = [0.0]
    stream = io.StringIO()
    report = Report(store="s", num_to_do=40)
    with CheckLine(stream, clock=lambda: now[0]) as line:
        for number in range(1, 5):
            now[0] += 10
            report.num_done = number
            line.update(report)
    assert stream.getvalue() == "3/40 rows  findings 0  0.1 rows/s  ETA 6:10\n"


def test_the_line_names_what_is_found_most() -> None:
    report = Report(store="s", num_done=5)
    report.add(Finding(kind=FindingKind.COUNT, key="a", message=""))
    assert format_report(report, 0.0) == "5 rows  findings 1  most are count (1)"


def test_a_store_tells_how_far_its_check_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make_store(str(tmp_path / "store"))
    told: list[tuple[int, int | None]] = []
    monkeypatch.setattr(CheckLine, "update", lambda _, report: told.append((report.num_done, report.num_to_do)))
    assert main([str(tmp_path / "store")]) == 0
    assert told[-1] == (4, 4)


def test_the_documentation_has_every_kind_of_finding() -> None:
    of_sets = [code(row[0]) for row in table(doc("verify.md"), "kind", "found")]
    of_stores = {kind.value for kind in STORE_KINDS}
    assert [kind for kind in of_sets if kind not in of_stores] == [
        kind.value for kind in FindingKind if kind not in STORE_KINDS
    ]
    assert len(of_sets) == len(set(of_sets))
    assert set(of_sets) <= {kind.value for kind in FindingKind}
