"""Rows that refer to rows: ``row:<id>`` or ``row:<id>#<sample>`` in a row's images. Knows no graph and no Ray."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import pyarrow as pa

from omnigen_actor import store, uri
from omnigen_actor.errors import ErrorKind, Stage

PREFIX = "row:"
_SAMPLE = re.compile(r"#(\d{1,9})$")


class Reference(NamedTuple):
    """One sample of a row."""

    id: str
    sample: int

    def __str__(self) -> str:
        return f"{self.id}#{self.sample}"


def parse(text: str) -> Reference | None:
    """The reference in an image's place, or None where it is no reference. Raises ValueError for one without an id."""
    if not text.startswith(PREFIX):
        return None
    named = text.removeprefix(PREFIX)
    sample = _SAMPLE.search(named)
    row_id = named[: sample.start()] if sample else named
    if not row_id:
        raise ValueError("a reference needs the id of a row: row:<id>, or row:<id>#<sample>")
    return Reference(row_id, int(sample[1]) if sample else 0)


def to_store(table: pa.Table, store_root: str, extension: str) -> pa.Table:
    """Planned rows whose references are URIs of the images that the store has for them."""

    def place(text: str) -> str:
        found = parse(text)
        return uri.join(store_root, store.image_key(*found, extension)) if found else text

    if not any(table["depth"].to_pylist()):
        return table
    return replace_columns(
        table, {"image_uris": [list(map(place, texts)) for texts in table["image_uris"].to_pylist()]}
    )


def skip_children(table: pa.Table, causes: dict[str, str]) -> pa.Table:
    """Planned rows with those skipped whose parents have no image, and ``causes`` with these rows added.

    ``causes``: ``id#sample`` of each row without an image -> that of the row whose failure began it.
    """
    errors: dict[int, str] = {}
    columns = (table[name].to_pylist() for name in ("id", "sample", "parents", "error_kind"))
    for index, (row_id, sample, parents, error_kind) in enumerate(zip(*columns, strict=True)):
        lost = next((parent for parent in parents if parent in causes), None)
        if lost is None or error_kind is not None:
            continue
        cause = causes[str(Reference(row_id, sample))] = causes[lost]
        errors[index] = orphan_message(lost, cause)
    return mark_skipped(table, errors)


def orphan_message(parent: str, cause: str) -> str:
    """What a skipped row's record says."""
    root = "" if parent == cause else f", because row {cause!r} has none"
    return f"row {parent!r} has no image{root}"


def mark_skipped(table: pa.Table, messages: Mapping[int, str]) -> pa.Table:
    """The table with an error for each of these rows, which makes skipped records of them."""
    return with_errors(table, messages, ErrorKind.PARENT_FAILED, Stage.FETCH)


def refuse(table: pa.Table) -> pa.Table:
    """Planned rows with those that refer to others failed: only a whole manifest knows its rows."""
    message = "row references need a manifest and its store: python -m jobs.generate"
    found = {index: message for index, parents in enumerate(table["parents"].to_pylist()) if parents}
    return with_errors(table, found, ErrorKind.BAD_URI, Stage.CHECK)


def with_errors(table: pa.Table, messages: Mapping[int, str], kind: ErrorKind, stage: Stage) -> pa.Table:
    """The table with this error for the rows of ``messages`` that have none yet."""
    if not messages:
        return table
    columns = {name: table[name].to_pylist() for name in ("error_kind", "error_stage", "error", "image_uris")}
    for index, message in messages.items():
        if columns["error_kind"][index] is None:
            columns["error_kind"][index], columns["error_stage"][index] = kind.value, stage.value
            columns["error"][index], columns["image_uris"][index] = message, []
    return replace_columns(table, columns)


def replace_columns(table: pa.Table, columns: Mapping[str, Sequence[object]]) -> pa.Table:
    """The table with other values in these columns, of the same types."""
    for name, values in columns.items():
        position = table.schema.get_field_index(name)
        field = table.schema.field(position)
        table = table.set_column(position, field, pa.array(values, field.type))
    return table
