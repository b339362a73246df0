from __future__ import annotations

import io
from dataclasses import replace

import pytest

from jobs.progress import Progress, format_rate, format_seconds, format_summary
from pipelines.summary import Summary, Tally

SUMMARY = Summary(
    num_in=26,
    num_ok=24,
    num_failed=2,
    num_skipped=0,
    num_already_done=10,
    num_generated=16,
    errors=[("not_found", 2, "no such file:\n  a.png")],
    seconds=8.0,
    images_uri="s3://bucket/out/images",
    records_uri="s3://bucket/out/records",
    summary_uri="s3://bucket/out/summary.json",
)


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def tally(num_ok: int, **errors: int) -> Tally:
    num_failed = sum(errors.values())
    return Tally(num_done=num_ok + num_failed, num_ok=num_ok, num_failed=num_failed, errors=errors)


@pytest.fixture
def clock() -> Clock:
    return Clock()


def test_a_terminal_shows_one_line_redrawn_at_most_every_period(clock: Clock) -> None:
    stream = Terminal()
    progress = Progress(stream, 1.0, clock)
    progress.start(100)
    for num_ok in range(1, 31):
        progress.update(tally(num_ok))
        clock.now += 0.125
    progress.close()
    drawn = stream.getvalue().split("\r")[1:]
    assert [line.split("/")[0] for line in drawn] == ["1", "9", "17", "25", "30"]
    assert stream.getvalue().count("\n") == 1


def test_a_shorter_line_leaves_nothing_of_the_longer_one_before(clock: Clock) -> None:
    stream = Terminal()
    progress = Progress(stream, 0.0, clock)
    progress.start(9)
    progress.update(tally(0, not_an_image=1))
    progress.update(Tally(num_done=1))
    first, second = stream.getvalue().split("\r")[1:]
    assert len(second) == len(first)
    assert "not_an_image" not in second


def test_a_line_is_never_as_wide_as_the_terminal(clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "20")
    stream = Terminal()
    progress = Progress(stream, 0.0, clock)
    progress.start(9)
    progress.update(tally(0, not_an_image=1))
    assert stream.getvalue() == "\r1/9 rows  ok 0  fai"


def test_a_log_file_gets_a_plain_line_every_thirty_periods_and_one_at_the_end(clock: Clock) -> None:
    stream = io.StringIO()
    with Progress(stream, 1.0, clock) as progress:
        progress.start(100)
        for num_ok in range(1, 76):
            clock.now += 1.0
            progress.update(tally(num_ok))
    lines = stream.getvalue().splitlines()
    assert [line.split("/")[0] for line in lines] == ["30", "60", "75"]
    assert "\r" not in stream.getvalue()


def test_the_last_line_is_not_said_twice(clock: Clock) -> None:
    stream = io.StringIO()
    progress = Progress(stream, 0.0, clock)
    progress.start(1)
    progress.update(tally(1))
    progress.close()
    progress.close()
    assert stream.getvalue().splitlines() == ["1/1 rows  ok 1  failed 0"]


def test_a_run_with_nothing_to_do_shows_no_line(clock: Clock) -> None:
    stream = Terminal()
    with Progress(stream, 1.0, clock) as progress:
        progress.start(0)
    assert stream.getvalue() == ""


def test_speed_and_time_left_leave_out_the_loading_before_the_first_row(clock: Clock) -> None:
    stream = io.StringIO()
    with Progress(stream, 10.0, clock) as progress:
        progress.start(26)
        clock.now += 90
        progress.update(tally(2))
        clock.now += 2
        progress.update(tally(10))
    assert stream.getvalue().splitlines()[-1] == "10/26 rows  ok 10  failed 0  4 rows/s  ETA 0:04"


def test_the_most_frequent_error_is_named_with_its_count(clock: Clock) -> None:
    stream = io.StringIO()
    with Progress(stream, 1.0, clock) as progress:
        progress.start(9)
        progress.update(tally(3, not_found=1, bad_size=2))
    assert stream.getvalue() == "6/9 rows  ok 3  failed 3  top error bad_size (2)\n"


def test_skipped_rows_are_shown_once_there_are_any(clock: Clock) -> None:
    stream = io.StringIO()
    with Progress(stream, 1.0, clock) as progress:
        progress.start(9)
        progress.update(Tally(num_done=2, num_ok=1, num_skipped=1))
    assert stream.getvalue() == "2/9 rows  ok 1  failed 0  skipped 1\n"


@pytest.mark.parametrize(("seconds", "shown"), [(0.2, "0:00"), (59.6, "1:00"), (3599, "59:59"), (3725, "1:02:05")])
def test_time_left_reads_as_a_clock(seconds: float, shown: str) -> None:
    assert format_seconds(seconds) == shown


@pytest.mark.parametrize(("rate", "shown"), [(0.001234, "0.00123"), (12.345, "12.3"), (12345.6, "12,346")])
def test_speed_has_three_digits(rate: float, shown: str) -> None:
    assert format_rate(rate) == shown


def test_the_summary_adds_up_and_says_where_everything_is() -> None:
    assert format_summary(SUMMARY).splitlines() == [
        "in 26 = ok 24 + failed 2 + skipped 0",
        "this run: 16 rows in 8.0 s (2 rows/s); already done: 10",
        "error not_found: 2 x, for example: no such file: a.png",
        "images   s3://bucket/out/images",
        "records  s3://bucket/out/records",
        "summary  s3://bucket/out/summary.json",
    ]


def test_a_summary_that_does_not_add_up_says_so() -> None:
    first = format_summary(replace(SUMMARY, num_ok=22)).splitlines()[0]
    assert first == "in 26 != ok 22 + failed 2 + skipped 0: IT DOES NOT ADD UP, 24 of 26 rows have a record"


def test_rows_that_were_left_out_are_a_part_of_the_sum() -> None:
    first = format_summary(replace(SUMMARY, num_in=30, num_left_out=4)).splitlines()[0]
    assert first == "in 30 = ok 24 + failed 2 + skipped 0 + left out 4"
    assert "IT DOES NOT ADD UP" in format_summary(replace(SUMMARY, num_in=30, num_left_out=3))


def test_a_long_example_is_cut_to_one_readable_line() -> None:
    line = format_summary(replace(SUMMARY, errors=[("bad_uri", 1, "x" * 5000)])).splitlines()[2]
    assert line.endswith("...")
    assert len(line) < 220
