"""Everything that is checked of a run store, in its order, and mended on request. Each check is a module of its own."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from dataclasses import dataclass

from omnigen_actor import store, uri
from omnigen_actor.errors import ConfigError, OutputError
from pipelines import lease
from pipelines.locations import locate
from pipelines.run_info import new_run_id
from pipelines.verify import leftovers
from pipelines.verify.accounts import Accounts
from pipelines.verify.findings import Finding
from pipelines.verify.image_check import ImageCheck
from pipelines.verify.listing import Inventory, list_images
from pipelines.verify.mending import Mender
from pipelines.verify.recorded import Records
from pipelines.verify.report import Report

OnProgress = Callable[[Report], None]
"""Hears of a report as far as it is."""


@dataclass(frozen=True, slots=True, kw_only=True)
class VerifyConfig:
    """``has_hash``: compare each image's sha256; ``has_decode``: decode each. With neither no image is read."""

    has_hash: bool = True
    has_decode: bool = True
    num_threads: int = 8

    def __post_init__(self) -> None:
        if self.num_threads < 1:
            raise ConfigError(f"threads={self.num_threads}: must be at least 1")


def verify(
    location: str,
    config: VerifyConfig,
    *,
    fix: bool = False,
    take_over: bool = False,
    on_progress: OnProgress = lambda _: None,
) -> Report:
    """Check a store, and with ``fix`` mend what can be mended safely. ``take_over``: whoever writes to it.

    Raises OutputError where there is no store, where it can't be listed, and with ``fix`` where a run is writing to it.
    """
    started = time.monotonic()
    store_root = locate(location, OutputError, "store ")
    try:
        report = _verify(store_root, config, on_progress, fix=fix, take_over=take_over)
    except OSError as error:  # of one file it would be a finding
        raise OutputError(f"store {uri.redact(store_root)!r} can't be read: {error}") from None
    report.seconds = time.monotonic() - started
    return report


def _verify(store_root: str, config: VerifyConfig, on_progress: OnProgress, *, fix: bool, take_over: bool) -> Report:
    _check_is_store(store_root)
    report = Report(store=uri.redact(store_root), has_lease=uri.exists(uri.join(store_root, store.LEASE_KEY)))
    run_id = new_run_id()
    with lease.hold(store_root, run_id, take_over=take_over) if fix else nullcontext() as held:
        mender = Mender(store_root, run_id, held) if held else None
        for finding in _findings(store_root, config, mender, report, on_progress):
            report.add(finding)
            if mender:
                mender.add(finding)
    if mender:
        report.mended, report.failures = mender.mended, mender.failures
    return report


def _check_is_store(store_root: str) -> None:
    """What has neither a run nor records may be a folder of anything, and its images are nobody's orphans."""
    if not is_store(store_root):
        raise OutputError(
            f"{uri.redact(store_root)!r} is no run store: it has neither {store.RUN_KEY} nor {store.RECORDS}/; "
            "give the OUTPUT of a run"
        )


def is_store(root: str) -> bool:
    """Whether a place has a run or records. Raises UriFailed."""
    has_run = uri.exists(uri.join(root, store.RUN_KEY))
    return has_run or bool(uri.list_files(uri.join(root, store.RECORDS), suffix=".parquet"))


def _findings(
    store_root: str, config: VerifyConfig, mender: Mender | None, report: Report, on_progress: OnProgress
) -> Iterator[Finding]:
    # The images first: a run that is at work writes an image before its record.
    inventory = Inventory(list_images(store_root))
    records, accounts = Records(store_root), Accounts(store_root)
    check = ImageCheck(store_root=store_root, has_hash=config.has_hash, has_decode=config.has_decode)
    report.num_to_do = records.ledger.num_records

    def count(num_more: int) -> None:
        # Older attempts have records too, and are not counted in what is to do.
        report.num_done = min(report.num_done + num_more, records.ledger.num_records)
        on_progress(report)

    yield from records.check(inventory, check, config.num_threads, count)
    if mender:  # damaged images are removed then, and are no orphans
        mender.finish()
    is_sure = not records.broken
    yield from leftovers.unnamed_images(store_root, inventory, is_sure=is_sure)
    yield from leftovers.temporary_files(store_root)
    yield from leftovers.ended_runs(store_root, accounts.last_run)
    yield from accounts.check(records.run_ids, records.ledger.num_records, is_sure=is_sure)
    report.num_records, report.num_images = records.num_records, records.num_images
    report.num_bytes = records.num_bytes
