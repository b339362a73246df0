"""What a run amounts to: Tally while it goes on, Summary once it is over. Knows nothing of where they are shown."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field

from omnigen_actor.metrics import EngineUse


@dataclass(frozen=True, slots=True, kw_only=True)
class Tally:
    """The rows that this run has finished so far; ``errors`` counts the failed ones by kind."""

    num_done: int = 0
    num_ok: int = 0
    num_failed: int = 0
    num_skipped: int = 0
    errors: Mapping[str, int] = field(default_factory=dict)

    def to_json(self) -> str:
        """One line of JSON."""
        return json.dumps({**asdict(self), "errors": dict(self.errors)})


@dataclass(frozen=True, slots=True, kw_only=True)
class Summary:
    """The account of a whole output: every row of the manifest, whichever run finished it.

    ``num_in`` counts the distinct (id, sample) of the manifest; ``num_ok``, ``num_failed`` and ``num_skipped`` count
    those among them whose current record says so, each once: a lost row makes the sum too small, and a row recorded
    twice can't hide it, as ``num_doubled`` counts those. ``num_generated`` were finished by this run and
    ``num_already_done`` by earlier ones.
    ``errors`` holds (kind, count, one example message), most frequent first. ``seconds`` is this run's wall time, and
    ``engine`` what its engines took; None where nothing ran, or they gave no account.
    """

    num_in: int
    num_ok: int
    num_failed: int
    num_skipped: int
    num_already_done: int
    num_generated: int
    errors: Sequence[tuple[str, int, str]]
    seconds: float
    images_uri: str
    records_uri: str
    summary_uri: str
    num_doubled: int = 0
    engine: EngineUse | None = None

    @property
    def num_recorded(self) -> int:
        """Rows that have a record."""
        return self.num_ok + self.num_failed + self.num_skipped

    @property
    def adds_up(self) -> bool:
        """Whether in = ok + failed + skipped, each row recorded once."""
        return self.num_in == self.num_recorded and not self.num_doubled

    @property
    def percent_without_image(self) -> float:
        """Share of the rows that failed or were skipped because a row they need failed: 0 to 100."""
        return 100 * (self.num_failed + self.num_skipped) / self.num_in if self.num_in else 0.0

    def to_json(self) -> str:
        """The text of ``summary.json``."""
        errors = [{"kind": kind, "count": count, "example": example} for kind, count, example in self.errors]
        return json.dumps({**asdict(self), "adds_up": self.adds_up, "errors": errors}, indent=2) + "\n"
