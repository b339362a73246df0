from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from jobs.verify import main
from omnigen_actor import store
from pipelines import lease
from pipelines.verify.findings import STORE_KINDS
from tests.test_docs import code, doc, table
from tests.test_verify import RUN, image, make_store


@pytest.fixture
def root(tmp_path: Path) -> Path:
    make_store(str(tmp_path / "store"))
    return tmp_path / "store"


def test_a_whole_store_is_exit_code_0(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([str(root)]) == 0
    out = capsys.readouterr().out
    assert out.startswith("4 records, 3 good images, ")
    assert out.endswith("nothing is wrong\n")


def test_findings_are_counted_with_an_example_until_they_are_mended(
    root: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    image(root).unlink()
    orphan = root / store.image_key("gone", 0, ".png")
    orphan.parent.mkdir(exist_ok=True)
    orphan.write_bytes(b"x")
    assert main([str(root), "--quick"]) == 1
    out = capsys.readouterr().out
    assert "image_missing: 1\n" in out
    assert store.image_key("boat", 0, ".png") in out
    assert out.endswith("2 things are wrong; --fix mends 2\n")
    assert main([str(root), "--fix"]) == 0
    out = capsys.readouterr().out
    assert "orphan_image: 1, 1 mended\n" in out
    assert main([str(root), "--fix"]) == 0


def test_what_is_not_safe_to_mend_stays_exit_code_1(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (root / "run.json").write_text("{")
    (root / "plan" / RUN / "part-00000.parquet").unlink()
    for options in ([], ["--fix"]):
        assert main([str(root), *options]) == 1
        assert capsys.readouterr().out.endswith("one thing is wrong\n")


def test_a_report_is_written_for_machines(root: Path, tmp_path: Path) -> None:
    image(root).unlink()
    file = tmp_path / "reports" / "report.json"
    assert main([str(root), "--no-hash", "--no-decode", "--threads", "1", "--report", str(file)]) == 1
    told = json.loads(file.read_text())
    assert told["counts"] == {"image_missing": 1}
    (finding,) = told["findings"]
    assert finding["key"] == store.image_key("boat", 0, ".png")
    assert finding["is_safe"]
    assert (told["num_records"], told["num_images"], told["mended"]) == (4, 2, {})


def test_a_store_with_a_lease_is_checked_and_the_lease_is_told(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (root / store.LEASE_KEY).write_text("{}")
    assert main([str(root)]) == 0
    assert "a run is writing to this store, or was killed" in capsys.readouterr().out


@pytest.mark.parametrize(
    "options", [["--threads", "0"], ["--thread", "1"], ["--report", "/dev/null/report.json"], ["--fix", "another"]]
)
def test_what_cannot_be_done_is_exit_code_2_and_one_line(
    root: Path, options: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([str(root), *options]) == 2
    assert len(capsys.readouterr().err.splitlines()) == 1


def test_a_store_that_is_written_to_is_mended_only_when_it_is_taken_over(
    root: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    image(root).unlink()
    with lease.hold(str(root), RUN, beat_s=60):
        assert main([str(root), "--fix"]) == 2
        assert RUN in capsys.readouterr().err
        assert main([str(root), "--fix", "--take-over"]) == 0


def test_the_documentation_has_every_kind_of_finding() -> None:
    found = table(doc("records.md"), "kind", "found", "with `--fix`")
    assert [code(row[0]) for row in found] == [kind.value for kind in STORE_KINDS]


def test_no_store_is_exit_code_2_and_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([str(tmp_path / "none")]) == 2
    assert "no run store" in capsys.readouterr().err


def test_the_job_loads_no_heavy_library() -> None:
    code = "import sys, jobs.verify; sys.exit(', '.join({'torch', 'ray', 'diffusers'} & set(sys.modules)) or 0)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
