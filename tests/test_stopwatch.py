"""Laps measure what ran, each once, and nothing that failed."""

from __future__ import annotations

import time

import pytest
import torch

from omnigen_actor.model.stopwatch import Lap, Stopwatch

CPU = torch.device("cpu")


@pytest.fixture
def stopwatch() -> Stopwatch:
    return Stopwatch(CPU)


def test_laps_add_up_to_what_they_took_and_no_more(stopwatch: Stopwatch):
    started = time.perf_counter()
    for _ in range(3):
        with stopwatch.lap("encode"):
            time.sleep(0.005)
    elapsed = time.perf_counter() - started
    laps = stopwatch.take("encode")
    assert len(laps) == 3
    assert all(lap.seconds() >= 0.005 for lap in laps)
    assert sum(lap.seconds() for lap in laps) <= elapsed


def test_what_is_taken_is_forgotten(stopwatch: Stopwatch):
    with stopwatch.lap("encode"):
        pass
    assert len(stopwatch.take("encode")) == 1
    assert stopwatch.take("encode") == []
    with stopwatch.lap("encode"):
        pass
    assert len(stopwatch.take("encode")) == 1


def test_phases_are_apart_also_where_one_is_inside_the_other(stopwatch: Stopwatch):
    with stopwatch.lap("prefill"):
        time.sleep(0.002)
        with stopwatch.lap("encode"):
            time.sleep(0.002)
    (outer,), (inner,) = stopwatch.take("prefill"), stopwatch.take("encode")
    assert outer.seconds() >= inner.seconds() + 0.002
    assert stopwatch.take("decode") == []


def test_a_lap_that_raises_is_not_counted_and_the_error_goes_on(stopwatch: Stopwatch):
    with pytest.raises(RuntimeError, match="out of memory"), stopwatch.lap("encode"):
        raise RuntimeError("out of memory")
    assert stopwatch.take("encode") == []


def test_a_lap_takes_nothing_before_it_ran_and_says_the_same_whenever_it_is_asked():
    lap = Lap(CPU)
    assert lap.seconds() == 0
    with lap.running():
        time.sleep(0.002)
    assert lap.seconds() == lap.seconds() >= 0.002


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_on_a_gpu_the_devices_time_counts_and_not_the_hosts():
    lap, x = Lap(torch.device("cuda")), torch.randn(4096, 4096, device="cuda")
    torch.cuda.synchronize()
    started = time.perf_counter()
    with lap.running():
        for _ in range(50):
            x = torch.mm(x, x).tanh_()
    launched = time.perf_counter() - started
    assert lap.seconds() > launched
