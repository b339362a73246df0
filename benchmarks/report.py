"""What every benchmark shares: rounds in turn, ratios pair by pair, and a result file that says how it was made."""

from __future__ import annotations

import datetime
import functools
import json
import os
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from importlib import metadata
from pathlib import Path
from typing import Any

Contender = Callable[[], float]
"""Runs once and returns its seconds."""


def timed(run: Callable[[], object]) -> Contender:
    """A contender whose seconds are those of the whole call."""

    def contender() -> float:
        started = time.perf_counter()
        run()
        return time.perf_counter() - started

    return contender


def rounds(contenders: dict[str, Contender], num_rounds: int) -> dict[str, list[float]]:
    """Seconds of each contender in each round. All run in turn, so that a drift of the machine hits all alike."""
    seconds: dict[str, list[float]] = {name: [] for name in contenders}
    for _ in range(num_rounds):
        for name, contender in contenders.items():
            seconds[name].append(contender())
    return seconds


def ratios(slow: list[float], fast: list[float]) -> dict[str, float]:
    """Minimum, median and maximum of slow / fast, pair by pair."""
    paired = [a / b for a, b in zip(slow, fast, strict=True)]
    return {"min": min(paired), "median": statistics.median(paired), "max": max(paired)}


@functools.cache
def provenance() -> dict[str, Any]:
    """Date, command, commit, machine and versions; the GPU where the caller has loaded torch and there is one."""
    names = ("torch", "diffusers", "transformers", "ray", "pillow", "pyarrow")
    return {
        "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
        "command": " ".join(["python", os.path.relpath(sys.argv[0]), *sys.argv[1:]]),
        "commit": _commit(),
        "cpu": _cpu(),
        "cores": os.cpu_count(),
        "python": platform.python_version(),
        "versions": {name: _version(name) for name in names},
    } | _gpu()


def save(path: Path | None, result: dict[str, Any]) -> None:
    """Write a result with its provenance, where a path is given, and say so."""
    write(path, result)
    if path is not None:
        print(f"saved {path}")


def write(path: Path | None, result: dict[str, Any]) -> None:
    """``save`` without a word, for results that grow."""
    if path is not None:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(provenance() | result, indent=2) + "\n", encoding="utf-8")


def _gpu() -> dict[str, Any]:
    torch = sys.modules.get("torch")
    if torch is None or not torch.cuda.is_available():
        return {}
    properties = torch.cuda.get_device_properties(0)
    return {
        "gpu": properties.name,
        "gpu_gib": round(properties.total_memory / 2**30, 1),
        "cuda": torch.version.cuda,
        "driver": _output("nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader", "--id=0"),
    }


def _version(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def _commit() -> str | None:
    return _output("git", "rev-parse", "--short", "HEAD")


def _output(*command: str) -> str | None:
    """What a command says; None where it is not there or fails."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return None
    return done.stdout.strip() or None


def _cpu() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor()
    return next(
        (line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), platform.processor()
    )
