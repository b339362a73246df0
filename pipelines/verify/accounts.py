"""run.json and summary.json against the records. Knows no images."""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Iterator
from typing import Any, NamedTuple, TypeVar

from omnigen_actor import store, uri
from omnigen_actor.errors import first_line
from pipelines.verify.findings import Finding, FindingKind

Found = TypeVar("Found")

_MAX_BYTES = 64 * 2**20


class _Sum(NamedTuple):
    num_in: int
    num_recorded: int
    num_left_out: int


class Accounts:
    """What the two files say. Either may be missing: a run that is cut off writes no summary."""

    def __init__(self, store_root: str) -> None:
        self._unreadable: list[Finding] = []
        self._runs = self._read(store_root, store.RUN_KEY, FindingKind.RUN_INFO, _runs)
        self._sum = self._read(store_root, store.SUMMARY_KEY, FindingKind.SUMMARY, _sum)

    @property
    def last_run(self) -> str | None:
        """The run that was begun last."""
        return self._runs[-1] if self._runs else None

    def check(self, run_ids: Collection[str], num_rows: int, *, is_sure: bool) -> Iterator[Finding]:
        """``run_ids`` of the records, and how many (id, sample) have one.

        Not ``is_sure``: there are records that can't be read.
        """
        yield from self._unreadable
        if self._runs is not None:
            for run_id in sorted(set(run_ids) - set(self._runs)):
                message = f"records are of run {run_id}, and {store.RUN_KEY} does not have it"
                yield Finding(kind=FindingKind.UNKNOWN_RUN, key=store.RUN_KEY, message=message)
        elif run_ids and not self._unreadable:
            message = "it is missing: nothing says what the images were made with"
            yield Finding(kind=FindingKind.RUN_INFO, key=store.RUN_KEY, message=message)
        if self._sum:
            yield from _check_sum(self._sum, num_rows, is_sure=is_sure)

    def _read(self, store_root: str, key: str, kind: FindingKind, parse: Callable[[Any], Found]) -> Found | None:
        try:
            return parse(json.loads(uri.read_bytes(uri.join(store_root, key), max_bytes=_MAX_BYTES)))
        except uri.UriNotFound:
            return None
        except (OSError, ValueError, LookupError, TypeError) as error:
            message = f"it can't be read: {type(error).__name__}: {first_line(error)}"
            self._unreadable.append(Finding(kind=kind, key=key, message=message))
            return None


def _runs(content: Any) -> list[str]:
    return [str(run["run_id"]) for run in content["runs"]]


def _sum(content: Any) -> _Sum:
    recorded = sum(int(content[f"num_{status}"]) for status in ("ok", "failed", "skipped"))
    return _Sum(int(content["num_in"]), recorded, int(content.get("num_left_out", 0)))


def _check_sum(account: _Sum, num_rows: int, *, is_sure: bool) -> Iterator[Finding]:
    """Rows get records and never lose them, so there are at least as many as the last summary has counted."""
    if account.num_in != account.num_recorded + account.num_left_out:
        message = f"of {account.num_in} rows {account.num_recorded} had a record after the last run: run it again"
        yield Finding(kind=FindingKind.SUMMARY, key=store.SUMMARY_KEY, message=message)
    if is_sure and account.num_recorded > num_rows:
        message = f"it counts {account.num_recorded} rows with a record, and there are {num_rows}: run it again"
        yield Finding(kind=FindingKind.SUMMARY, key=store.SUMMARY_KEY, message=message)
