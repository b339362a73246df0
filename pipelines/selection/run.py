"""Select images of a run store: what is asked for is checked, the store read in a stream, the outcome written.

Knows the steps and no step's rules. Needs no cluster and loads no engine.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from omnigen_actor import store, uri
from omnigen_actor.errors import ConfigError, OutputError
from omnigen_actor.schema import RECORD
from pipelines.selection import pairs, written
from pipelines.selection.columns import RECORD_SOURCE, Column, Columns, UnknownColumn
from pipelines.selection.decide import Verdict, decide
from pipelines.selection.expression import compile_number
from pipelines.selection.gather import Gatherer, Images, Wanted
from pipelines.selection.options import SelectionConfig, check_name
from pipelines.selection.scored import ScoreFiles, list_scores, schemas
from pipelines.selection.terms import Kind
from pipelines.selection.where import Where
from pipelines.stopping import store_failures
from pipelines.stored import current_images, open_store

DUPLICATE_GROUP = "duplicate_group"


@dataclass(frozen=True, slots=True, kw_only=True)
class Account:
    """What became of the images. ``reasons`` most frequent first; ``splits`` of the kept ones, by name."""

    num_in: int
    num_kept: int
    num_rejected: int
    reasons: Mapping[str, int]
    splits: Mapping[str, int]
    num_families: int | None
    largest_family: int | None
    num_pairs: int | None
    place: str

    @property
    def adds_up(self) -> bool:
        """Whether every image is kept or has a reason, and every kept one a split."""
        return (
            self.num_in == self.num_kept + self.num_rejected
            and sum(self.reasons.values()) == self.num_rejected
            and sum(self.splits.values()) == self.num_kept
        )


def select(
    location: str, name: str, config: SelectionConfig, *, has_pairs: bool = False, replace: bool = False
) -> Account:
    """Write the selection ``name`` of a store. Raises ConfigError, and OutputError for a store that can't be read."""
    check_name(name)
    with store_failures(OutputError):
        return _select(open_store(location), name, config, has_pairs=has_pairs, replace=replace)


def _select(root: str, name: str, config: SelectionConfig, *, has_pairs: bool, replace: bool) -> Account:
    written.check_settings(root, name, config.to_dict(), replace=replace)
    scores = list_scores(root)
    if RECORD_SOURCE in scores:
        raise ConfigError(f"a score is called {RECORD_SOURCE!r}, as the records are: give it another name")
    columns = Columns({RECORD_SOURCE: _record_schemas(root)} | {one.name: one.own_schemas for one in scores.values()})
    wanted = _wanted(config, columns)
    gatherer = Gatherer(wanted, columns, scores)
    for table in current_images(root):
        gatherer.add(table)
    images = gatherer.finish()
    verdict = decide(images, config)
    chosen = pairs.find(images, verdict)[0] if has_pairs else None
    account = _account(images, verdict, config, None if chosen is None else len(chosen), written.folder(root, name))
    assert account.adds_up, account
    tables = {written.TABLE_KEY: written.selection_tables(images, verdict, config.split)}
    if has_pairs:
        tables[written.PAIRS_KEY] = pairs.tables(current_images(root), images, verdict, config.split.names)
    written.write(root, name, tables, _marker(config, wanted, scores, account))
    return account


def _record_schemas(root: str) -> list[pa.Schema]:
    """Of RECORD, and of every records file without RECORD's columns."""
    files = uri.list_files(uri.join(root, store.RECORDS), suffix=".parquet")
    users = [pa.schema([field for field in one if field.name not in RECORD.names]) for one in schemas(files)]
    return [RECORD, *users]


def _wanted(config: SelectionConfig, columns: Columns) -> Wanted:
    return Wanted(
        where=Where(config.where, columns) if config.where is not None else None,
        by=compile_number(config.by, "by", columns) if config.by is not None else None,
        quotas=tuple(_quota_column(name, columns) for name in dict.fromkeys(one.column for one in config.quotas)),
        groups=_group_column(config, columns),
        has_families=bool(config.split.shares),
    )


def _quota_column(name: str, columns: Columns) -> Column:
    found = _find(name, f"quota {name!r}", columns)
    if found.kind not in (Kind.TEXT, Kind.NUMBER, Kind.TRUTH):
        raise ConfigError(f"quota {name!r}: the column is {found.kind}; it must be text, a number or true and false")
    return found


def _group_column(config: SelectionConfig, columns: Columns) -> Column | None:
    """The column of near-duplicate groups: that which is named, else the only one of its name, if there is one."""
    if config.duplicates is None and not columns.named(DUPLICATE_GROUP):
        if config.drop_duplicates:
            raise ConfigError(
                f"drop_duplicates: no score has a column {DUPLICATE_GROUP!r}; score phash and near_duplicates first"
            )
        return None
    found = _find(config.duplicates or DUPLICATE_GROUP, "duplicates", columns)
    if found.kind is not Kind.TEXT:
        raise ConfigError(f"duplicates: {found.key} is {found.kind}; it must be text")
    return found


def _find(name: str, option: str, columns: Columns) -> Column:
    try:
        return columns.find(name)
    except UnknownColumn as error:
        raise ConfigError(f"{option}: {error.args[0]}") from None


def _account(images: Images, verdict: Verdict, config: SelectionConfig, num_pairs: int | None, place: str) -> Account:
    reasons = sorted(verdict.count().items(), key=lambda one: (-one[1], one[0]))
    per_split = np.bincount(verdict.split[verdict.is_kept], minlength=len(config.split.names)).tolist()
    sizes = None if images.family is None else np.unique(images.family, return_counts=True)[1]
    return Account(
        num_in=len(images.sample),
        num_kept=int(verdict.is_kept.sum()),
        num_rejected=int((~verdict.is_kept).sum()),
        reasons=dict(reasons),
        splits=dict(zip(config.split.names, per_split, strict=True)),
        num_families=None if sizes is None else len(sizes),
        largest_family=None if sizes is None else int(sizes.max(initial=0)),
        num_pairs=num_pairs,
        place=uri.redact(place),
    )


def _marker(
    config: SelectionConfig, wanted: Wanted, scores: Mapping[str, ScoreFiles], account: Account
) -> dict[str, Any]:
    counts = {key: value for key, value in asdict(account).items() if key != "place"}
    used = dict.fromkeys(key.partition(".")[0] for key in wanted.columns)
    return {
        **config.to_dict(),
        "scores": {name: scores[name].scorer for name in sorted(used) if name in scores},
        "counts": counts,
    }
