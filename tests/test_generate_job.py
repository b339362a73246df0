"""The main job as a shell sees it: argv in, exit code and lines out. The pipeline itself is replaced."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import ModuleType

import pytest

from jobs.generate import main, verdict
from omnigen_actor.errors import ManifestError, ModelError
from omnigen_actor.metrics import EngineUse
from pipelines.config import RunConfig
from pipelines.summary import Summary, Tally

GOOD = Summary(
    num_in=100,
    num_ok=100,
    num_failed=0,
    num_skipped=0,
    num_already_done=0,
    num_generated=100,
    errors=[],
    seconds=5.0,
    images_uri="out/images",
    records_uri="out/records",
    summary_uri="out/summary.json",
)

HEAVY = {"torch", "ray", "diffusers", "transformers", "pyarrow.dataset", "pyarrow.parquet", "fsspec", "numpy"}

ROOT = Path(__file__).parent.parent

Run = Callable[..., Summary]


@pytest.fixture
def replace_run(monkeypatch: pytest.MonkeyPatch) -> Callable[[Run], None]:
    """Put a function in the place of ``pipelines.generate.run``, which needs a Ray cluster."""

    def put(run: Run) -> None:
        module = ModuleType("pipelines.generate")
        module.run = run  # type: ignore[attr-defined]
        monkeypatch.setitem(sys.modules, "pipelines.generate", module)

    return put


def raising(error: BaseException) -> Run:
    def run(*_: object, **__: object) -> Summary:
        raise error

    return run


def python(*argv: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, *argv], capture_output=True, text=True, timeout=60, check=False, cwd=ROOT)


def test_the_pipeline_gets_what_the_command_line_says(replace_run: Callable[[Run], None]) -> None:
    seen: list[object] = []

    def run(manifest: str, output: str, config: RunConfig, **_: object) -> Summary:
        seen.extend([manifest, output, config.model, config.generation.steps])
        return GOOD

    replace_run(run)
    assert main(["rows.jsonl", "s3://bucket/out", "--model", "fake", "--steps", "2"]) == 0
    assert seen == ["rows.jsonl", "s3://bucket/out", "fake", 2]


def test_the_summary_goes_to_stdout_and_progress_to_stderr(
    replace_run: Callable[[Run], None], capsys: pytest.CaptureFixture[str]
) -> None:
    def run(*_: object, on_progress: Callable[[Tally], None], on_start: Callable[[int], None], **__: object) -> Summary:
        on_start(100)
        on_progress(Tally(num_done=100, num_ok=100))
        return GOOD

    replace_run(run)
    main(["rows.jsonl", "out"])
    shown = capsys.readouterr()
    assert shown.out.splitlines()[0] == "in 100 = ok 100 + failed 0 + skipped 0"
    assert "records  out/records" in shown.out
    assert shown.err == "100/100 rows  ok 100  failed 0\n"


def test_the_account_has_one_line_of_what_the_engines_took_and_none_where_nothing_is_known(
    replace_run: Callable[[Run], None], capsys: pytest.CaptureFixture[str]
) -> None:
    use = EngineUse(
        num_waves=7,
        occupancy=0.88,
        encode_seconds=1.0,
        prefill_seconds=3.0,
        step_seconds=93.0,
        decode_seconds=3.0,
        token_steps_per_second=1.0,
    )
    for engine in (use, None):
        replace_run(lambda *_, engine=engine, **__: replace(GOOD, engine=engine))
        main(["rows.jsonl", "out"])
    told = [line for line in capsys.readouterr().out.splitlines() if line.startswith("engine")]
    assert told == ["engine: steps 93 %, prefill 3 %, decode 3 %, encode 1 %; waves 88 % full"]


@pytest.mark.parametrize(
    ("counts", "max_failed", "code"),
    [
        ({}, 0.0, 0),
        ({"num_ok": 99, "num_failed": 1}, 0.0, 1),
        ({"num_ok": 99, "num_skipped": 1}, 0.0, 1),
        ({"num_ok": 95, "num_failed": 5}, 5.0, 0),
        ({"num_ok": 95, "num_failed": 4, "num_skipped": 1}, 4.0, 1),
        ({"num_ok": 0, "num_failed": 100}, 100.0, 0),
        ({"num_ok": 99}, 100.0, 1),
        ({"num_ok": 101}, 100.0, 1),
        ({"num_ok": 10, "num_left_out": 90}, 0.0, 0),
        ({"num_ok": 9, "num_failed": 1, "num_left_out": 90}, 1.0, 1),
        ({"num_ok": 99, "num_failed": 1, "num_not_chosen": 50, "num_not_chosen_failed": 1}, 0.0, 0),
    ],
)
def test_the_exit_code_says_whether_too_many_rows_failed_or_one_is_lost(
    counts: dict[str, int], max_failed: float, code: int
) -> None:
    assert verdict(replace(GOOD, **counts), max_failed) == code  # type: ignore[arg-type]


def test_max_failed_reaches_the_exit_code(replace_run: Callable[[Run], None]) -> None:
    replace_run(lambda *_, **__: replace(GOOD, num_ok=95, num_failed=5))
    assert main(["rows.jsonl", "out"]) == 1
    assert main(["rows.jsonl", "out", "--max-failed", "5"]) == 0


@pytest.mark.parametrize("error", [ManifestError("row 'a' stands\ntwice"), ModelError("no such model")])
def test_a_run_that_cannot_start_says_one_line_and_leaves_with_2(
    replace_run: Callable[[Run], None], capsys: pytest.CaptureFixture[str], error: Exception
) -> None:
    replace_run(raising(error))
    assert main(["rows.jsonl", "out"]) == 2
    shown = capsys.readouterr()
    assert shown.err == "error: " + str(error).replace("\n", " ") + "\n"
    assert shown.out == ""


def test_a_crash_leaves_with_70_and_its_traceback(
    replace_run: Callable[[Run], None], capsys: pytest.CaptureFixture[str]
) -> None:
    replace_run(raising(ZeroDivisionError("a bug")))
    assert main(["rows.jsonl", "out"]) == 70
    shown = capsys.readouterr().err
    assert shown.startswith("Traceback")
    assert "ZeroDivisionError: a bug" in shown


def test_an_interrupt_leaves_with_130_and_ends_the_progress_line(
    replace_run: Callable[[Run], None], capsys: pytest.CaptureFixture[str]
) -> None:
    def run(*_: object, on_progress: Callable[[Tally], None], **__: object) -> Summary:
        on_progress(Tally(num_done=1, num_ok=1))
        raise KeyboardInterrupt

    replace_run(run)
    assert main(["rows.jsonl", "out"]) == 130
    lines = capsys.readouterr().err.splitlines()
    assert lines[0].startswith("1/")
    assert lines[1].startswith("interrupted")
    assert len(lines) == 2


def terminated(counts: dict[str, int]) -> Run:
    """A run that gets SIGTERM and then comes to this end."""

    def run(*_: object, stop: threading.Event, **__: object) -> Summary:
        assert not stop.is_set()
        os.kill(os.getpid(), signal.SIGTERM)
        assert stop.is_set()
        assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL  # a second one ends the process
        return replace(GOOD, **counts)  # type: ignore[arg-type]

    return run


def test_sigterm_winds_the_run_down_and_leaves_with_143(
    replace_run: Callable[[Run], None], capsys: pytest.CaptureFixture[str]
) -> None:
    before = signal.getsignal(signal.SIGTERM)
    replace_run(terminated({"num_ok": 40, "num_generated": 30}))
    assert main(["rows.jsonl", "out"]) == 143
    shown = capsys.readouterr()
    assert shown.err == "stopped by SIGTERM: 30 rows done, run the same command to go on\n"
    assert shown.out == ""
    assert signal.getsignal(signal.SIGTERM) is before


def test_sigterm_to_a_run_that_gets_done_all_the_same_changes_nothing(replace_run: Callable[[Run], None]) -> None:
    replace_run(terminated({}))
    assert main(["rows.jsonl", "out"]) == 0
    replace_run(terminated({"num_ok": 99, "num_failed": 1}))
    assert main(["rows.jsonl", "out"]) == 1


def test_sigterm_while_ray_starts_leaves_with_143_too(
    replace_run: Callable[[Run], None], capsys: pytest.CaptureFixture[str]
) -> None:
    replace_run(raising(SystemExit(signal.SIGTERM)))
    assert main(["rows.jsonl", "out"]) == 143
    assert capsys.readouterr().err.startswith("stopped by SIGTERM")
    replace_run(raising(SystemExit(3)))
    with pytest.raises(SystemExit):
        main(["rows.jsonl", "out"])


def test_a_job_outside_of_the_main_thread_takes_no_signal(replace_run: Callable[[Run], None]) -> None:
    replace_run(lambda *_, **__: GOOD)
    codes: list[int] = []
    thread = threading.Thread(target=lambda: codes.append(main(["rows.jsonl", "out"])))
    thread.start()
    thread.join()
    assert codes == [0]


def test_a_message_that_the_terminal_cannot_encode_does_not_crash_a_finished_run() -> None:
    code = "import sys; sys.stdout.reconfigure(encoding='ascii'); from jobs.exit_codes import show"
    done = python("-c", f"{code}; show('caf\\xe9 \\ud800')")
    assert done.returncode == 0, done.stderr
    assert done.stdout == "caf\\xe9 \\ud800\n"


def test_an_unknown_option_from_the_shell_is_one_line_and_2() -> None:
    done = python("-m", "jobs.generate", "rows.jsonl", "out", "--stepz", "5")
    assert done.returncode == 2
    assert done.stderr == "error: unknown option --stepz; the nearest known one is --steps\n"
    assert done.stdout == ""


def test_help_loads_no_heavy_library() -> None:
    code = (
        "import sys\n"
        "from jobs.generate import main\n"
        "try:\n    main(['--help'])\n"
        "except SystemExit as left:\n    assert left.code == 0\n"
        f"sys.exit(', '.join({HEAVY} & set(sys.modules)) or 0)\n"
    )
    done = python("-c", code)
    assert done.returncode == 0, done.stderr
    assert "--max-failed" in done.stdout


def test_tiny_model_refuses_an_unknown_option_in_one_line() -> None:
    done = python("-m", "jobs.tiny_model", "folder", "--sed", "1")
    assert done.returncode == 2
    assert done.stderr == "error: unknown option --sed; the nearest known one is --seed\n"


def test_tiny_model_says_where_it_wrote(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    from jobs import tiny_model

    written: list[object] = []
    module = ModuleType("omnigen_actor.checkpoint.tiny")
    module.write_tiny_checkpoint = lambda folder, seed: written.append((str(folder), seed))  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "omnigen_actor.checkpoint.tiny", module)
    assert tiny_model.main(["some/folder", "--seed", "3"]) == 0
    assert written == [("some/folder", 3)]
    assert "some/folder" in capsys.readouterr().out
