"""What a run amounts to: Tally while it goes on, Audit and Summary at its end. Knows not where they are shown."""

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
class Audit:
    """What became of the distinct (id, sample) of a manifest, by the records in the store.

    ``num_in`` counts them all; ``num_ok``, ``num_failed`` and ``num_skipped`` those whose current record says so;
    ``num_left_out`` those without a record of their content that this run was not to make (--only, --limit), and
    ``num_missing`` those that it was: a lost row. ``num_doubled`` counts rows with two records of the same, last
    attempt that the run made or that contradict each other: only a fault of the pipeline or a second run makes those.
    ``num_not_chosen`` of the recorded rows are none that the run was asked for, and ``num_not_chosen_failed`` of these
    have no image. ``errors``: (kind, count, one example message) of failed and skipped rows, most frequent first.
    """

    num_in: int = 0
    num_ok: int = 0
    num_failed: int = 0
    num_skipped: int = 0
    num_left_out: int = 0
    num_missing: int = 0
    num_doubled: int = 0
    num_not_chosen: int = 0
    num_not_chosen_failed: int = 0
    errors: Sequence[tuple[str, int, str]] = ()

    @property
    def num_recorded(self) -> int:
        """Rows that have a record."""
        return self.num_ok + self.num_failed + self.num_skipped

    @property
    def adds_up(self) -> bool:
        """Whether in = ok + failed + skipped + left out, each row recorded once."""
        return self.num_in == self.num_recorded + self.num_left_out and not self.num_doubled

    @property
    def percent_without_image(self) -> float:
        """Share of the chosen rows that failed or were skipped because a row they need failed: 0 to 100."""
        num_chosen = self.num_in - self.num_left_out - self.num_not_chosen
        num_lost = self.num_failed + self.num_skipped - self.num_not_chosen_failed
        return 100 * num_lost / num_chosen if num_chosen else 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Summary(Audit):
    """The account of a whole output: every row of the manifest, whichever run finished it.

    ``num_generated`` rows were finished by this run and ``num_already_done`` by earlier ones. ``seconds`` is this run's
    wall time, and ``engine`` what its engines took; None where nothing ran, or they gave no account.
    """

    num_already_done: int
    num_generated: int
    seconds: float
    images_uri: str
    records_uri: str
    summary_uri: str
    engine: EngineUse | None = None

    def to_json(self) -> str:
        """The text of ``summary.json``."""
        errors = [{"kind": kind, "count": count, "example": example} for kind, count, example in self.errors]
        return json.dumps({**asdict(self), "adds_up": self.adds_up, "errors": errors}, indent=2) + "\n"
