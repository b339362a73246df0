"""A manifest: a table with the columns that rows need. Knows no rules for a row: that is the check's task."""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from dataclasses import replace

from omnigen_actor import schema, uri
from omnigen_actor.errors import ManifestError
from omnigen_actor.tasks import DEFAULT_TASKS, TaskTable
from pipelines import x2i
from pipelines.locations import locate
from pipelines.table import Table, open_table

Manifest = Table
"""A table that has every required column."""


def open_manifest(manifest_uri: str, tasks: TaskTable = DEFAULT_TASKS) -> Manifest:
    """Open a Parquet file or folder, JSONL or CSV, or a .gz of the latter two; a path or a URI.

    A training file of OmniGen or OmniGen2 gets the columns that it lacks, with tasks of ``tasks``. Raises ManifestError
    for what makes the whole manifest unusable: missing, unreadable, of unknown extension, without rows, or without the
    required columns.
    """
    manifest = open_table(locate(manifest_uri, ManifestError, "manifest "))
    found = manifest.schema.names
    if x2i.is_x2i(manifest.schema):
        table_schema, read = x2i.adopt(manifest.schema, manifest.read, tasks)
        manifest = replace(manifest, schema=table_schema, read=read)
    _check_columns(manifest, found)
    return manifest


def _check_columns(manifest: Manifest, written: Sequence[str]) -> None:
    """``written``: the columns that the file itself has, which the message shows."""
    found = [name for name in written if name != schema.LINE_ERROR.name]
    missing = [name for name in schema.MANIFEST_REQUIRED if name not in manifest.schema.names]
    if not missing:
        return
    near = [match for name in missing for match in difflib.get_close_matches(name, found, n=1)]
    hint = f"; rename {', '.join(map(repr, near))}?" if near else ""
    raise ManifestError(
        f"{uri.redact(manifest.uri)}: lacks the required column{'s' * (len(missing) > 1)} "
        f"{', '.join(missing)}; found: {', '.join(found[:30]) or 'none'}{hint}"
    )
