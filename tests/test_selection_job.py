from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from jobs.select import lines, main
from pipelines.selection.options import SelectionConfig
from pipelines.selection.run import Account
from pipelines.selection.splits import parse
from tests.test_selection_run import record, write_records, write_scores
from tests.test_verify import make_store


@pytest.fixture
def root(tmp_path: Path) -> Path:
    rows = [record(f"row {number}", sample) for number in range(5) for sample in (0, 1)]
    write_records(tmp_path / "store", rows)
    scores = [{"id": row["id"], "sample": row["sample"], "clip": index / 10} for index, row in enumerate(rows)]
    write_scores(tmp_path / "store", "clip", scores, clip=pa.float64())
    return tmp_path / "store"


def test_the_account_is_printed_and_the_selection_lies_in_the_store(
    root: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    options = ["--where", "clip >= 0.3", "--by", "-clip", "--best", "1", "--quota", "task=edit:3", "task:1"]
    assert main([str(root), "good", *options, "--split", "validation=0.5", "--pairs", "--seed", "3"]) == 0
    out = capsys.readouterr().out.splitlines()
    assert out[0] == "in 10 = kept 3 + rejected 7"
    assert out[1:4] == ["    clip >= 0.3: 3", "    not in the best 1 by -clip: 3", "    quota task=edit:3: 1"]
    assert out[4].startswith("    train: ")
    assert out[4].endswith(" % (asked 50.0 %)")
    assert out[6:] == ["families 5, the largest of 2 images", out[7], f"selection {root / 'selections/good'}"]
    assert out[7].startswith("preference pairs ")
    told = json.loads((root / "selections/good/selection.json").read_text())
    assert (told["by"], told["best"], told["quotas"], told["seed"]) == ("-clip", 1, ["task=edit:3", "task:1"], 3)
    assert pq.read_table(root / "selections/good/selection.parquet").num_rows == 10


def test_an_expression_that_is_wrong_is_shown_with_carets(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([str(root), "good", "--where", "clip > 0.28 and  clp < 1"]) == 2
    assert capsys.readouterr().err.splitlines() == [
        "error: where: unknown column 'clp'; the nearest known one is clip at character 18: clp",
        "    clip > 0.28 and  clp < 1",
        "                     ^^^",
    ]


def test_nothing_kept_is_exit_code_1(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([str(root), "good", "--where", "-clip > 0"]) == 1
    assert capsys.readouterr().out.startswith("in 10 = kept 0 + rejected 10\n    -clip > 0: 10\n")


@pytest.mark.parametrize(
    "options",
    [["--best", "x"], ["--best", "1"], ["--quota", "task"], ["--split", "a"], ["--seed", "-1"], ["--wher", "clip"],
     ["--quota-by", "score"], ["another"]],
)  # fmt: skip
def test_what_cannot_be_done_is_exit_code_2_and_one_line(
    root: Path, options: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([str(root), "good", *options]) == 2
    assert len(capsys.readouterr().err.splitlines()) == 1


def test_no_store_is_exit_code_2_and_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([str(tmp_path / "none"), "good"]) == 2
    assert "no run store" in capsys.readouterr().err


def test_a_selection_with_other_options_needs_replace(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([str(root), "good"]) == 0
    assert main([str(root), "good", "--seed", "1"]) == 2
    assert "take another name, or --replace" in capsys.readouterr().err
    assert main([str(root), "good", "--seed", "1", "--replace"]) == 0


def test_a_store_that_engines_wrote_is_selected(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    make_store(str(tmp_path / "store"))
    options = ["--where", 'width >= 32 and contains(label, "o")', "--split", "test=0.5"]
    assert main([str(tmp_path / "store"), "good", *options]) == 0
    assert capsys.readouterr().out.startswith("in 3 = kept 3 + rejected 0\n")


def test_reasons_beyond_the_first_are_summed_up() -> None:
    reasons = {f"n != {number}": 100 - number for number in range(25)}
    account = Account(
        num_in=3000, num_kept=3000 - sum(reasons.values()), num_rejected=sum(reasons.values()), reasons=reasons,
        splits={"train": 3000 - sum(reasons.values())}, num_families=None, largest_family=None, num_pairs=None,
        place="x",
    )  # fmt: skip
    shown = lines(account, SelectionConfig())
    assert shown[-2:] == ["    5 other reasons: 390", "selection x"]
    assert len(shown) == 23
    assert not any("asked" in line for line in shown)
    assert any("asked" in line for line in lines(account, SelectionConfig(split=parse("a=0.1"))))


def test_the_job_loads_no_heavy_library() -> None:
    code = (
        "import sys, jobs.select; heavy = {'torch', 'ray', 'diffusers', 'transformers', 'faiss'}; "
        "sys.exit(', '.join(heavy & set(sys.modules)) or 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
