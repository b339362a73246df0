"""Near-duplicate groups over a million hashes: time and memory, and whether what was planted is found.

Hashes as `pipelines.scores.hamming` gets them: nine of ten drawn evenly, the others planted: copies in clusters of two
to nine, each with up to RADIUS bits changed of the first; 100 000 equal ones, as blank pictures are. Each round is a
process of its own with `--threads`, which tells its seconds and its peak. Two kinds: `even` bits, and `uneven` ones, of
which a half is 1 in one of eight: hashes then crowd together.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import time
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

sys.path.insert(0, str(Path(__file__).parents[1]))

from benchmarks import report
from pipelines.scores import hamming

Hashes = npt.NDArray[np.uint64]
RUNS = ["even:4", "uneven:4", "even:8"]
EQUAL_SHARE = 0.1
PLANTED_SHARE = 0.1
LARGEST_CLUSTER = 9


def main() -> None:
    """Print one line for each kind and radius, and save the figures where asked."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--hashes", type=int, default=1_000_000)
    parser.add_argument("--runs", nargs="+", default=RUNS, metavar="KIND:RADIUS", help=" ".join(RUNS))
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--output", type=Path, metavar="FILE", help="write the figures as JSON")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--in-child", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.in_child:
        kind, radius = options.runs[0].split(":")
        print(json.dumps(measure(options.hashes, int(radius), kind)))
        return
    found = [run_child(options.hashes, run, options.threads) for _ in range(options.rounds) for run in options.runs]
    result: dict[str, Any] = {
        "hashes": options.hashes,
        "threads": options.threads,
        "faiss": version("faiss-cpu"),
        "load": list(os.getloadavg()),
        "runs": found,
    }
    for run in options.runs:
        same = [one for one in found if one["run"] == run]
        seconds, cpu_s = (statistics.median(one[key] for one in same) for key in ("seconds", "cpu_s"))
        peak_mib = max(one["peak_mib"] for one in same)
        print(f"{run:10} {seconds:8.1f} s {cpu_s:8.1f} s of a core {peak_mib:6.0f} MiB")
    report.save(options.output, result)


def run_child(num_hashes: int, run: str, num_threads: int) -> dict[str, Any]:
    """What a process of its own measures."""
    command = [sys.executable, __file__, "--in-child", "--hashes", str(num_hashes), "--runs", run]
    threads = {name: str(num_threads) for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS")}
    done = subprocess.run(command, check=True, capture_output=True, text=True, env=os.environ | threads)
    return {"run": run} | json.loads(done.stdout)


def measure(num_hashes: int, radius: int, kind: str) -> dict[str, Any]:
    """Seconds, those of the processor, the process's peak, and what was found. Raises SystemExit where it is wrong."""
    hashes, clusters = planted(num_hashes, radius, kind)
    before_kib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    started, started_cpu = time.perf_counter(), time.process_time()
    groups = hamming.group(hashes, radius)
    seconds, cpu_s = time.perf_counter() - started, time.process_time() - started_cpu
    check(hashes, groups, clusters, radius)
    _, sizes = np.unique(groups.number, return_counts=True)
    return {
        "seconds": seconds,
        "cpu_s": cpu_s,
        "peak_mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
        "mib_before": before_kib / 1024,
        "num_planted_clusters": int(clusters.max()),
        "num_groups": int((sizes > 1).sum()),
        "num_in_groups": int(sizes[sizes > 1].sum()),
        "largest_group": int(sizes.max()),
    }


def planted(num_hashes: int, radius: int, kind: str) -> tuple[Hashes, npt.NDArray[np.int64]]:
    """The hashes, mixed, and of each the number of its planted cluster: 0 for those that are drawn, 1 for the equal."""
    rng = np.random.default_rng(0)
    num_equal, num_copies = round(num_hashes * EQUAL_SHARE), round(num_hashes * PLANTED_SHARE)
    firsts = draw(rng, num_hashes - num_equal - num_copies, kind)
    sizes = rng.integers(1, LARGEST_CLUSTER, num_copies)
    of_first = np.repeat(np.arange(num_copies), sizes)[:num_copies]  # the copies of each first
    copies = firsts[of_first]
    for _ in range(radius):
        bit = rng.integers(0, 64, num_copies, dtype=np.uint64)
        copies = np.where(rng.random(num_copies) < 0.7, copies ^ (np.uint64(1) << bit), copies)
    cluster = np.zeros(len(firsts), np.int64)
    cluster[: of_first.max() + 1] = np.arange(of_first.max() + 1) + 2
    clusters = np.concatenate([np.ones(num_equal, np.int64), cluster, of_first + 2])
    order = rng.permutation(num_hashes)
    return np.concatenate([np.zeros(num_equal, np.uint64), firsts, copies])[order], clusters[order]


def draw(rng: np.random.Generator, size: int, kind: str) -> Hashes:
    """Hashes whose bits are even, or of which every second one is 1 in one of eight."""
    drawn = rng.integers(0, 2**64, size, dtype=np.uint64)
    if kind == "even":
        return drawn
    seldom = rng.integers(0, 2**64, size, dtype=np.uint64) & rng.integers(0, 2**64, size, dtype=np.uint64)
    return np.asarray(drawn & (seldom | np.uint64(0xAAAAAAAAAAAAAAAA)), np.uint64)


def check(hashes: Hashes, groups: hamming.Groups, clusters: npt.NDArray[np.int64], radius: int) -> None:
    """Every cluster lies in one group; and of 300 hashes, the nearest other one is what a look at all of them says."""
    is_planted = clusters > 0
    pairs = np.unique(np.stack([clusters[is_planted], groups.number[is_planted]]), axis=1)
    if pairs.shape[1] != len(np.unique(pairs[0])):
        raise SystemExit("a planted cluster is in two groups")
    for place in np.random.default_rng(1).integers(0, len(hashes), 300).tolist():
        distance = np.bitwise_count(hashes ^ hashes[place]).astype(np.int64)
        distance[place] = 99
        if (groups.number[distance <= radius] != groups.number[place]).any():
            raise SystemExit(f"hash {place} is not in the group of one within the radius")
        nearest = int(distance.min())
        if groups.distance[place] != (nearest if nearest <= radius else hamming.NONE):
            raise SystemExit(f"hash {place} has the distance {groups.distance[place]}; {nearest} is right")


if __name__ == "__main__":
    main()
