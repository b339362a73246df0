"""A training's folder: states to go on from, what was measured on the way, the result. Knows no torch and no Ray.

state/step-00000500.pt    all that a training goes on from; the newest that is whole counts
log.jsonl                 a line for each look at the held-out examples
samples/step-00000500.png what the model draws by then, a line of pictures for each of some examples
samples/rows.json         which examples these are, in the order of the lines
result/                   a checkpoint, or a LoRA adapter; its marker result/finetune.json is written last
"""

from __future__ import annotations

import json
import re
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from omnigen_actor import uri
from omnigen_actor.errors import OutputError

STATE, RESULT, LOG, PREPARED, SAMPLES = "state", "result", "log.jsonl", "prepared", "samples"
ROWS = "rows.json"
MARKER = "finetune.json"
RUN = "finetune-run.json"
NUM_KEPT = 2
_STATE_NAME = re.compile(r"step-(\d{8})\.pt")


@dataclass(frozen=True, slots=True)
class TrainingFolder:
    """The places below a training's root, a folder or URI."""

    root: str

    @property
    def prepared(self) -> str:
        """Where the prepared examples are."""
        return uri.join(self.root, PREPARED)

    @property
    def result(self) -> str:
        """Where the result will be."""
        return uri.join(self.root, RESULT)

    def states(self) -> list[tuple[int, str]]:
        """(step, URI) of each state, oldest first."""
        named = ((uri_, _STATE_NAME.fullmatch(uri_.rpartition("/")[2])) for uri_ in uri.list_files(self._state_folder))
        return sorted((int(match[1]), location) for location, match in named if match)

    def latest(self) -> bytes | None:
        """The newest state, or None where there is none."""
        states = self.states()
        if not states:
            return None
        with uri.open_read(states[-1][1]) as stream:
            return stream.read()

    def save(self, step: int, state: bytes) -> None:
        """Keep a state, whole or not at all, and remove all but the newest."""
        with tempfile.TemporaryDirectory(prefix="omnigen-batch-state-") as folder:
            path = Path(folder) / "state"
            path.write_bytes(state)
            uri.write_file(uri.join(self._state_folder, f"step-{step:08d}.pt"), path)
        for _, location in self.states()[:-NUM_KEPT]:
            uri.remove(location)

    def log(self) -> list[dict[str, Any]]:
        """What was measured so far, one entry for each look."""
        location = uri.join(self.root, LOG)
        if not uri.exists(location):
            return []
        return [json.loads(line) for line in uri.read_bytes(location, max_bytes=2**30).splitlines()]

    def add_to_log(self, entry: dict[str, Any]) -> None:
        """Add an entry; those of later steps, of a training that was cut off after its last state, are replaced."""
        kept = [one for one in self.log() if one["step"] < entry["step"]]
        lines = "".join(json.dumps(one) + "\n" for one in [*kept, entry])
        uri.write_bytes(uri.join(self.root, LOG), lines.encode())

    def name_samples(self, rows: list[dict[str, Any]]) -> None:
        """Say which examples are drawn, in the order of their lines."""
        text = json.dumps(rows, indent=1, ensure_ascii=False) + "\n"
        uri.write_bytes(uri.join(self.root, SAMPLES, ROWS), text.encode())

    def add_samples(self, step: int, png: bytes) -> None:
        """Keep what is drawn at this step."""
        uri.write_bytes(uri.join(self.root, SAMPLES, f"step-{step:08d}.png"), png)

    def write_result(self, write: Callable[[Path], None], told: dict[str, Any]) -> None:
        """Let ``write`` fill a folder, copy it to the result, and mark it as whole."""
        with tempfile.TemporaryDirectory(prefix="omnigen-batch-result-") as name:
            folder = Path(name)
            write(folder)
            for path in sorted(path for path in folder.rglob("*") if path.is_file()):
                uri.write_file(uri.join(self.result, path.relative_to(folder).as_posix()), path)
        uri.write_bytes(uri.join(self.result, MARKER), (json.dumps(told, indent=2) + "\n").encode())

    def is_finished(self) -> bool:
        """Whether the result is there and whole."""
        return uri.exists(uri.join(self.result, MARKER))

    def bind(self, made_with: dict[str, Any]) -> None:
        """Say what is trained here with what. Raises OutputError where the folder belongs to another training."""
        location = uri.join(self.root, RUN)
        if not uri.exists(location):
            uri.write_bytes(location, (json.dumps(made_with, indent=2) + "\n").encode())
            return
        found = json.loads(uri.read_bytes(location, max_bytes=2**24))
        differing = [name for name in made_with if found.get(name) != made_with[name]]
        if differing:
            told = "; ".join(f"{name}: {found.get(name)!r}, now {made_with[name]!r}" for name in differing[:5])
            raise OutputError(
                f"output {uri.redact(self.root)!r} holds another training ({told}): choose another output"
            )

    @property
    def _state_folder(self) -> str:
        return uri.join(self.root, STATE)
