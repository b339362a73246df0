"""Kills at random while runs go on: nothing may be lost, doubled or other than in a run that nobody disturbed.

A round is a manifest of hundreds of rows, some of which refer to others, and its run on a cluster of a head and two
nodes with a made-up GPU each. Every few seconds something dies by SIGKILL: an actor, a task that fetches or that writes
records, a node with its raylet, or the driver, which is then started again. Afterwards each row must have one current
record, with an image of that sha256, the image of an undisturbed run byte for byte; and no more images may have been
begun twice than the kills explain:

actor           the batch that it was at
node            the same, and the batches that it had done and whose records were not written yet
driver          this for every actor
reader, writer  nothing

A batch is found again by its diary and then run row by row, so a kill there repeats what the batch had begun anew.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from dataclasses import asdict, dataclass, field
from pathlib import Path
from random import Random

import pyarrow.parquet as pq

sys.path.insert(0, str(Path(__file__).parents[1]))

from benchmarks import chaos_audit, chaos_engine, report
from benchmarks.chaos_cluster import ACTOR, DRIVER, NODE, READER, WRITER, DoomedCluster

ROOT = Path(__file__).parents[1]
NUM_NODES = 2
BATCH_SIZE = 8
IN_FLIGHT = 4
"""Batches of an actor that may be done and not yet recorded, and the one that it is at."""

WEIGHTS = {ACTOR: 12, WRITER: 4, READER: 3, NODE: 1, DRIVER: 1}
PAUSE_S = (1.0, 4.0)
"""A driver takes ten seconds to its first row and an actor five: they have to live longer than that as a rule, or a run
goes on until there have been enough kills.
"""
MAX_DRIVERS = 40
DRIVER_S = 900.0
"""What one driver may take: far more than its rows do. One that takes longer hangs, which is a fault."""

EXPLAINED = {
    ACTOR: BATCH_SIZE,
    WRITER: 0,
    READER: 0,
    NODE: BATCH_SIZE * IN_FLIGHT,
    DRIVER: BATCH_SIZE * IN_FLIGHT * NUM_NODES,
}
"""How many images a kill of each kind may have begun again."""


@dataclass(slots=True, kw_only=True)
class Round:
    """What happened in one run. ``num_drivers`` counts the first; ``broken_off``: exit codes of those not killed;
    ``num_revived``: nodes that ended without a kill of ours.
    """

    model: str
    num_rows: int
    kills: Counter[str] = field(default_factory=Counter)
    num_drivers: int = 0
    num_revived: int = 0
    broken_off: list[int] = field(default_factory=list)
    num_started: int = 0
    num_repeated: int = 0
    num_explained: int = 0
    num_orphans: int = 0
    faults: list[str] = field(default_factory=list)
    seconds: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Half:
    """A driver that was killed at half of its rows, with one actor: what the next one began again."""

    num_rows: int
    num_recorded: int
    num_repeated: int
    num_explained: int
    faults: tuple[str, ...]


def main() -> None:
    """Run the campaign, print its table, and save it where asked. Exit code 1 where anything was not as it must be."""
    options = parse_options()
    rounds: list[Round] = []
    quiet: dict[str, chaos_audit.Found] = {}
    while sum(one.kills.total() for one in rounds) < options.kills:
        number = len(rounds)
        model = options.models[number % len(options.models)]
        num_left = options.kills - sum(one.kills.total() for one in rounds)
        scratch = Path(tempfile.mkdtemp(prefix="omnigen-batch-chaos-"))
        rounds.append(
            run_round(scratch, model, options.rows, Random(f"{options.seed} {number}"), max_kills=num_left, quiet=quiet)
        )
        print(line(number, rounds[-1]), flush=True)
        if rounds[-1].faults:
            print(f"    its stores and logs stay in {scratch}", flush=True)
        else:
            shutil.rmtree(scratch)
    total = sum((one.kills for one in rounds), Counter[str]())
    print(
        f"{total.total()} kills in {len(rounds)} rounds: {dict(total)}; {sum(len(one.faults) for one in rounds)} faults"
    )
    half = _half() if options.half else None
    save(options, rounds, total, half)
    is_half_good = half is None or not (half.faults or half.num_repeated > half.num_explained)
    sys.exit(not is_half_good or any(one.faults for one in rounds))


def _half() -> Half:
    with tempfile.TemporaryDirectory(prefix="omnigen-batch-chaos-") as scratch:
        half = kill_at_half(Path(scratch), 1000)
    print(
        f"killed after {half.num_recorded} of {half.num_rows}: {half.num_repeated} begun again of {half.num_explained}"
    )
    return half


def parse_options() -> argparse.Namespace:
    """The options of the command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--kills", type=int, default=200, help="rounds go on until there were so many")
    parser.add_argument("--rows", type=int, default=500, help="of a round")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--models", nargs="+", default=["fake:0.05", "tiny"], help="of the rounds, in turn")
    parser.add_argument("--no-half", dest="half", action="store_false", help="without the driver killed at half")
    parser.add_argument("--output", type=Path)
    return parser.parse_args()


def save(options: argparse.Namespace, rounds: list[Round], total: Counter[str], half: Half | None) -> None:
    """The campaign as JSON."""
    if not options.output:
        return
    told = {"kills": dict(total), "num_faults": sum(len(one.faults) for one in rounds), "explained": EXPLAINED}
    told |= {"killed_at_half": half and asdict(half)}
    told["rounds"] = [asdict(one) | {"kills": dict(one.kills)} for one in rounds]  # asdict counts a Counter's items
    report.save(options.output, {"rows": options.rows, "seed": options.seed, **told})


def run_round(
    folder: Path, model: str, num_rows: int, rng: Random, *, max_kills: int, quiet: dict[str, chaos_audit.Found]
) -> Round:
    """One disturbed run, and how it differs from the undisturbed one of its model, which is made once, in ``quiet``."""
    manifest = write_manifest(folder, num_rows)
    if model == "tiny":
        from omnigen_actor.checkpoint.tiny import write_tiny_checkpoint

        write_tiny_checkpoint(folder / "tiny")
    use_engine(str(folder / "tiny") if model == "tiny" else model)
    found = Round(model=model, num_rows=num_rows)
    expected = expected_of(manifest)
    if model not in quiet:
        quiet[model] = _undisturbed(folder, manifest, expected)
    started = time.monotonic()
    diary = folder / "disturbed.txt"
    with _cluster(diary) as cluster:
        Disturbance(cluster, found, rng, max_kills).run(manifest, folder / "disturbed")
    _compare(found, folder / "disturbed", expected, quiet[model], diary)
    found.seconds = time.monotonic() - started
    return found


def _undisturbed(folder: Path, manifest: Path, expected: set[str]) -> chaos_audit.Found:
    with _cluster(folder / "quiet.txt") as cluster:
        code = _driver(manifest, folder / "quiet", cluster.address).wait(DRIVER_S)
    assert code == 0, f"the undisturbed run ended with {code}: {(folder / 'quiet.log').read_text()[-2000:]}"
    return chaos_audit.look(folder / "quiet", expected)


def use_engine(model: str) -> None:
    """Tell engines of this model, in processes that begin from now on, what they are and where this module is."""
    os.environ[chaos_engine.MODEL] = model
    os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, (str(ROOT), os.environ.get("PYTHONPATH"))))


def expected_of(manifest: Path) -> set[str]:
    """The ``id#sample`` of all images of a manifest."""
    return {f"{row['id']}#0" for row in map(json.loads, manifest.read_text().splitlines())}


def _cluster(diary: Path) -> DoomedCluster:
    """A fresh cluster, whose engines note what they begin in ``diary``."""
    os.environ[chaos_engine.DIARY] = str(diary)
    return DoomedCluster(NUM_NODES)


def write_manifest(folder: Path, num_rows: int) -> Path:
    """So many rows: text, and a tenth of them edits of the image that another row makes."""
    num_children = num_rows // 10
    num_roots = num_rows - num_children
    rows: list[dict[str, object]] = [
        {"id": f"row-{number:04d}", "task": "text_to_image", "instruction": f"picture {number}"}
        for number in range(num_roots)
    ]
    rows += [
        {
            "id": f"edit-{number:04d}",
            "task": "edit",
            "instruction": f"edit {number}",
            "images": [f"row:row-{number * 7 % num_roots:04d}"],
        }
        for number in range(num_children)
    ]
    path = folder / "manifest.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def _driver(manifest: Path, store: Path, address: str, num_gpus: int = 1) -> subprocess.Popen[bytes]:
    """``jobs.generate`` as a user starts it. A row that was blamed for two kills of ours is tried again."""
    sizes = ["--width", "48", "--height", "32", "--steps", "2", "--max-input-image-size", "48"]
    place = [
        "--ray-address",
        address,
        "--device",
        "cpu",
        "--gpus-per-actor",
        str(num_gpus),
        "--batch-size",
        str(BATCH_SIZE),
    ]
    command = [sys.executable, "-m", "jobs.generate", str(manifest), str(store), "--model", chaos_engine.NAME]
    with (store.parent / f"{store.name}.log").open("ab") as log:
        return subprocess.Popen(
            [*command, *sizes, *place, "--retry-failed", "poison"], cwd=ROOT, stdout=log, stderr=subprocess.STDOUT
        )


def kill_at_half(folder: Path, num_rows: int) -> Half:
    """SIGKILL to a driver once half of its rows are recorded, and the same command again, on one local Ray each."""
    manifest, diary = write_manifest(folder, num_rows), folder / "half.txt"
    use_engine("fake:0.01")
    os.environ[chaos_engine.DIARY] = str(diary)
    store = folder / "half"
    driver = _driver(manifest, store, "local", num_gpus=0)
    while driver.poll() is None and _num_recorded(store) < num_rows / 2:
        time.sleep(0.05)
    driver.kill()
    assert driver.wait() == -9, "the run was over before it could be killed"
    num_recorded = _num_recorded(store)
    assert _driver(manifest, store, "local", num_gpus=0).wait() == 0, (folder / "half.log").read_text()[-2000:]
    return Half(
        num_rows=num_rows,
        num_recorded=num_recorded,
        num_repeated=chaos_audit.num_repeated(chaos_engine.counted(diary)),
        num_explained=BATCH_SIZE * IN_FLIGHT,
        faults=chaos_audit.look(store, expected_of(manifest)).faults,
    )


def _num_recorded(store: Path) -> int:
    """Rows with a record. Files appear whole."""
    return sum(pq.read_metadata(file).num_rows for file in store.glob("records/*.parquet"))


class Disturbance:
    """A run in which things die, until it is done all the same."""

    def __init__(self, cluster: DoomedCluster, found: Round, rng: Random, max_kills: int) -> None:
        self._cluster, self._found, self._rng, self._max_kills = cluster, found, rng, max_kills
        self._driver: subprocess.Popen[bytes] | None = None
        self._is_over = threading.Event()

    def run(self, manifest: Path, store: Path) -> None:
        """Start drivers until one ends with 0. This thread kills: Ray starts nodes in the main one alone."""
        drivers = threading.Thread(target=self._drive, args=(manifest, store), daemon=True)
        drivers.start()
        self._kill()
        drivers.join()

    def _drive(self, manifest: Path, store: Path) -> None:
        try:
            while not self._is_done(manifest, store):
                if self._found.num_drivers == MAX_DRIVERS:
                    self._found.faults.append(f"not done after {MAX_DRIVERS} drivers")
                    return
        finally:
            self._is_over.set()

    def _is_done(self, manifest: Path, store: Path) -> bool:
        """Run one driver to its end; whether none is needed after it."""
        self._found.num_drivers += 1
        self._driver = _driver(manifest, store, self._cluster.address)
        try:
            code = self._driver.wait(DRIVER_S)
        except subprocess.TimeoutExpired:
            self._found.faults.append(f"driver {self._found.num_drivers} was not done after {DRIVER_S:.0f} s")
            self._driver.kill()
            return True
        if code not in (0, -9):
            self._found.broken_off.append(code)
        return code == 0

    def _kill(self) -> None:
        kinds, weights = list(WEIGHTS), list(WEIGHTS.values())
        while not self._is_over.wait(self._rng.uniform(*PAUSE_S)):
            self._found.num_revived += self._cluster.revive()
            if self._found.kills.total() >= self._max_kills:
                continue
            kind = self._rng.choices(kinds, weights)[0]
            if self._kill_driver() if kind == DRIVER else self._cluster.kill(kind, self._rng):
                self._found.kills[kind] += 1

    def _kill_driver(self) -> bool:
        if self._driver is None or self._driver.poll() is not None:
            return False
        self._driver.kill()
        return True


def _compare(found: Round, store: Path, expected: set[str], quiet: chaos_audit.Found, diary: Path) -> None:
    after, started = chaos_audit.look(store, expected), chaos_engine.counted(diary)
    found.faults += [f"undisturbed: {fault}" for fault in quiet.faults]
    found.faults += after.faults
    found.faults += [
        f"the image of {name} is another one" for name in chaos_audit.differing(after.images, quiet.images)
    ]
    found.num_orphans = after.num_orphans
    found.num_started = started.total()
    found.num_repeated = chaos_audit.num_repeated(started)
    ended = found.kills + Counter({NODE: found.num_revived})
    found.num_explained = sum(EXPLAINED[kind] * number for kind, number in ended.items())
    if found.num_repeated > found.num_explained:
        found.faults.append(f"{found.num_repeated} images were begun again, {found.num_explained} can be explained")


def line(number: int, one: Round) -> str:
    """A round for a person."""
    kills = ", ".join(f"{kind} {one.kills[kind]}" for kind in WEIGHTS)
    told = f"{number:>3} {one.model:<10}{one.num_rows:>5} rows  {one.kills.total():>3} kills ({kills})  "
    told += f"{one.num_drivers:>2} drivers, {one.num_repeated:>4} begun again of at most {one.num_explained}, "
    told += f"{one.seconds:.0f} s: " + ("ok" if not one.faults else f"{len(one.faults)} FAULTS")
    return "\n    ".join([told, *one.faults[:10]])


if __name__ == "__main__":
    main()
