"""What a scoring has to do: images of the store that scorers have not seen. Knows no pixels and no Ray.

The driver keeps 16 bytes for each image and one more for each scorer; rows go to Parquet parts in the store.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from omnigen_actor import uri
from pipelines.input_places import InputPlaces
from pipelines.ledger import Ledger
from pipelines.plan_parts import PlanWriter
from pipelines.scores.pictures import PLANNED
from pipelines.scores.prepared import Prepared
from pipelines.scores.stored import PLAN, Keys, Scored, keys_of, scores_folder
from pipelines.stored import current_images

_Flags = npt.NDArray[np.bool_]

_KEPT = ("id", "sample", "sha256", "task", "prompt", "instruction", "depth", "output_key", "image_sha256")


@dataclass(frozen=True, slots=True, kw_only=True)
class Account:
    """What became of the images of a store with one scorer.

    ``num_scored`` and ``num_errors`` are of this run; ``num_already`` were there, ``num_already_errors`` of them as
    errors; ``num_missing`` were to be scored and are not in the store. ``note``: why one image has no score, or what
    else there is to say.
    """

    name: str
    num_images: int
    num_scored: int = 0
    num_errors: int = 0
    num_already: int = 0
    num_already_errors: int = 0
    num_missing: int = 0
    note: str | None = None

    @property
    def adds_up(self) -> bool:
        """Whether each image has a score or says why not."""
        return not self.num_missing

    @property
    def percent_failed(self) -> float:
        """Images without a score, of all: 0 to 100."""
        num_failed = self.num_errors + self.num_already_errors + self.num_missing
        return 100 * num_failed / self.num_images if self.num_images else 0.0


@dataclass(frozen=True, slots=True)
class ScorePlan:
    """The parts to score, and for each scorer which of the images are in them."""

    parts: tuple[str, ...]
    keys: Keys
    to_do: dict[str, _Flags]
    errors_before: dict[str, int]

    @property
    def num_to_do(self) -> int:
        """Scores to make, over all scorers."""
        return sum(int(flags.sum()) for flags in self.to_do.values())

    def account(self, root: str, name: str, note: str | None) -> Account:
        """Compare with what the store has now. Raises OutputError."""
        is_fine, has_error = Scored(root, name).look_up(self.keys)
        wanted = self.to_do[name]
        return Account(
            name=name,
            num_images=len(self.keys),
            num_scored=int((wanted & is_fine).sum()),
            num_errors=int((wanted & has_error).sum()),
            num_already=int((~wanted).sum()),
            num_already_errors=self.errors_before[name],
            num_missing=int((wanted & ~is_fine & ~has_error).sum()),
            note=note,
        )


def plan_scores(
    root: str, scorers: Sequence[Prepared], places: InputPlaces, ledger: Ledger, *, retry_errors: bool = False
) -> ScorePlan:
    """Stage the images that at least one of these scorers has not scored. ``retry_errors``: errors are no scores.

    Raises OutputError where the store can't be read or written, ConfigError for inputs that nobody can find.
    """
    folder = uri.join(scores_folder(root, scorers[0].name), PLAN)
    uri.remove_folder(folder)  # of a run that was cut off
    writer = PlanWriter(folder, PLANNED)
    scored = {one.name: Scored(root, one.name) for one in scorers}
    keys, flags = [np.empty(0, "S16")], {one.name: [np.empty(0, np.bool_)] for one in scorers}
    errors_before = dict.fromkeys(scored, 0)
    for images in current_images(root, ledger):
        own = keys_of(images)
        keys.append(own)
        for name, found in scored.items():
            is_fine, has_error = found.look_up(own)
            flags[name].append(~is_fine if retry_errors else ~(is_fine | has_error))
            errors_before[name] += 0 if retry_errors else int(has_error.sum())
        wanted = {name: parts[-1] for name, parts in flags.items()}
        is_wanted = np.logical_or.reduce(list(wanted.values()))
        if is_wanted.any():
            writer.add(_planned(images, wanted, np.flatnonzero(is_wanted), scorers, places))
    return ScorePlan(
        parts=tuple(part for level in writer.finish() for part in level.parts),
        keys=np.concatenate(keys),
        to_do={name: np.concatenate(parts) for name, parts in flags.items()},
        errors_before=errors_before,
    )


def _planned(
    images: pa.Table,
    wanted: dict[str, _Flags],
    rows: npt.NDArray[np.intp],
    scorers: Sequence[Prepared],
    places: InputPlaces,
) -> pa.Table:
    """PLANNED rows of these rows of a table of records."""
    looking = {one.name for one in scorers if one.needs_inputs}
    found = []
    for index, record in zip(rows.tolist(), images.take(pa.array(rows)).to_pylist(), strict=True):
        names = [name for name, flags in wanted.items() if flags[index]]
        needs_inputs = bool(looking.intersection(names))
        kept = {name: record[name] for name in _KEPT}
        found.append(
            kept
            | {
                "scorers": names,
                "image_uris": places.uris(record) if needs_inputs else [],
                "max_side": places.max_side(record["run_id"]),
            }
        )
    return pa.Table.from_pylist(found, schema=PLANNED)
