"""What stays behind in a store: images that no record names, half-written files, plans and diaries of ended runs."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path

from omnigen_actor import store, uri
from omnigen_actor.images import EXTENSIONS
from omnigen_actor.uri_names import local_path
from pipelines.run_info import RUN_ID
from pipelines.verify.findings import Finding, FindingKind, Remove
from pipelines.verify.listing import Inventory, list_images

_HALF_WRITTEN = re.compile(rf"{uri.TEMPORARY.pattern}|\.probe-[0-9a-f]{{32}}")
_FOLDERS = (store.RECORDS, store.METRICS, store.PLAN, store.ATTEMPTS, store.SCORES, store.SELECTIONS)
_IMAGE = re.compile(rf"{store.IMAGES}/[0-9a-f]{{2}}/[^/]+-\d+({'|'.join(map(re.escape, EXTENSIONS.values()))})")


def unnamed_images(store_root: str, inventory: Inventory, *, is_sure: bool) -> Iterator[Finding]:
    """Files below ``images/`` that no current record of status ok names. Lists a second time where there are any.

    Not ``is_sure``: there are records that nobody can read, and they may name them.
    """
    if not inventory.num_unnamed:
        return
    for entries in list_images(store_root):
        for key in sorted(inventory.unnamed([entry.key for entry in entries])):
            yield _unnamed(key, is_sure=is_sure)


def _unnamed(key: str, *, is_sure: bool) -> Finding:
    if _HALF_WRITTEN.fullmatch(key.rpartition("/")[2]):
        return _temporary(key)
    if not _IMAGE.fullmatch(key):
        return Finding(kind=FindingKind.FOREIGN_FILE, key=key, message="no run writes such a name: it is left alone")
    message = "no current record of status ok names it"
    if not is_sure:
        message += ", but one of those that can't be read may"
    return Finding(kind=FindingKind.ORPHAN_IMAGE, key=key, message=message, mend=Remove() if is_sure else None)


def temporary_files(store_root: str) -> Iterator[Finding]:
    """Half-written files outside ``images/``. An object store has none: its writes are whole or not there."""
    if not uri.is_local(store_root):
        return
    root = local_path(store_root)
    yield from (_temporary(path.name) for path in sorted(root.iterdir()) if _HALF_WRITTEN.fullmatch(path.name))
    for folder in _FOLDERS:
        for place, _, names in os.walk(root / folder):
            shown = Path(place).relative_to(root).as_posix()
            yield from (_temporary(f"{shown}/{name}") for name in sorted(names) if _HALF_WRITTEN.fullmatch(name))


def _temporary(key: str) -> Finding:
    return Finding(kind=FindingKind.TEMPORARY, key=key, message="a write that was cut off", mend=Remove())


def ended_runs(store_root: str, last_run_id: str | None) -> Iterator[Finding]:
    """Plans of runs before the last, and diaries of any: no run needs them when none is at work."""
    for run_id in _runs_below(store_root, store.PLAN):
        if run_id != last_run_id:
            yield _leftover(f"{store.PLAN}/{run_id}/", "the plan of a run that is over")
    for run_id in _runs_below(store_root, store.ATTEMPTS):
        yield _leftover(f"{store.ATTEMPTS}/{run_id}/", "batches that were begun by a run that was cut off")


def _leftover(key: str, message: str) -> Finding:
    return Finding(kind=FindingKind.LEFTOVER, key=key, message=message, mend=Remove())


def _runs_below(store_root: str, folder: str) -> list[str]:
    """The runs with something in a folder. What has another name may be anybody's."""
    place = uri.join(store_root, folder)
    names = {file.removeprefix(place).lstrip("/").partition("/")[0] for file in uri.list_files(place)}
    return sorted(name for name in names if RUN_ID.fullmatch(name))
