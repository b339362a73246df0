"""What is trained on: a run store, or a manifest whose rows name their output -> rows to fetch. Knows no Ray.

A row comes out as the check of a manifest makes it, with the target as its last image.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import pyarrow as pa

from omnigen_actor import schema, store, uri
from omnigen_actor.allowed import Allowed
from omnigen_actor.errors import ConfigError, ErrorKind, ManifestError, RowError, Stage
from omnigen_actor.images import EXTENSIONS
from omnigen_actor.tasks import DEFAULT_TASKS, TaskTable
from pipelines import references, values
from pipelines.check import check_table
from pipelines.config import GenerationConfig, InputConfig
from pipelines.locations import locate
from pipelines.manifest import open_manifest
from pipelines.places import allowed_of_run
from pipelines.rows import resolve_uris
from pipelines.stored import current_images

TARGETS = ("output_image", "output_images")


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainingSet:
    """Where examples come from; ``image_root`` is where relative references of a store's records start."""

    uri: str
    image_root: str | None = None
    tasks: TaskTable = DEFAULT_TASKS

    def allowed(self, inputs: InputConfig) -> Allowed:
        """What its rows may read: below the manifest, or the store, and what the settings name. Raises ConfigError."""
        location = locate(self.uri, ManifestError)
        is_store = uri.exists(uri.join(location, store.RUN_KEY))
        return allowed_of_run(inputs, location if is_store else uri.parent(location), location)

    def batches(self) -> Iterator[pa.Table]:
        """Tables of the schema PLAN; a row that can't be an example carries its error. Raises ManifestError."""
        location = locate(self.uri, ManifestError)
        if uri.exists(uri.join(location, store.RUN_KEY)):
            yield from _of_store(location, self._root(location))
        else:
            yield from self._of_manifest(location)

    def _of_manifest(self, location: str) -> Iterator[pa.Table]:
        manifest = open_manifest(location, self.tasks)
        target = next((name for name in TARGETS if name in manifest.schema.names), None)
        if target is None:
            raise ManifestError(
                f"{uri.redact(location)}: has no column {TARGETS[0]}: what is to be learnt of its rows?"
            )
        root = self._root(manifest.base_folder)
        for batch in manifest.batches():
            planned = references.refuse(check_table(batch, GenerationConfig(num_samples=1), root, self.tasks))
            yield _with_targets(planned, target, root)

    def _root(self, default: str) -> str:
        return default if self.image_root is None else locate(self.image_root, ConfigError, "image_root=")


def _with_targets(planned: pa.Table, target: str, root: str) -> pa.Table:
    """Each row's own target at the end of its images; samples and sweeps of one row have one target."""
    uris: list[list[str]] = []
    errors: dict[int, RowError] = {}
    cells = values.read_column(planned, planned.schema.get_field_index(target))
    for index, (inputs, cell) in enumerate(zip(planned["image_uris"].to_pylist(), cells, strict=True)):
        try:
            uris.append([*inputs, *_target(target, cell, root)])
        except RowError as error:
            uris.append([])
            errors[index] = error
    table = references.replace_columns(planned.select(schema.PLAN.names), {"image_uris": uris})
    for index, fault in errors.items():
        table = references.with_errors(table, {index: fault.message}, fault.kind, fault.stage)
    return table


def _target(name: str, cell: object, root: str) -> list[str]:
    named = values.uri_list(name, cell)
    if len(named) != 1:
        raise RowError(ErrorKind.BAD_IMAGE_COUNT, Stage.CHECK, f"{name}: must name one image")
    return resolve_uris(named, root)


def _of_store(root: str, image_root: str) -> Iterator[pa.Table]:
    """The current records that have an image, each with its image as the target."""
    for done in current_images(root):
        yield _planned(done, root, image_root)


def _planned(records: pa.Table, root: str, image_root: str) -> pa.Table:
    uris, errors = [], {}
    rows = zip(records["images"].to_pylist(), records["output_key"].to_pylist(), strict=True)
    for index, (images, key) in enumerate(rows):
        try:
            placed = [_in_store(image, root, records["format"][index].as_py()) for image in images]
            uris.append([*resolve_uris(placed, image_root), uri.join(root, key)])
        except RowError as error:
            uris.append([])
            errors[index] = error.message
    columns = {name: records[name] for name in schema.PLAN.names if name in records.column_names}
    columns["image_uris"] = pa.chunked_array([pa.array(uris, schema.PLAN.field("image_uris").type)])
    table = pa.table([columns[name] for name in schema.PLAN.names], schema=schema.PLAN)
    return references.with_errors(table, errors, ErrorKind.BAD_URI, Stage.CHECK)


def _in_store(image: str, root: str, image_format: str) -> str:
    """A reference to another row as the URI of its image, whose format is that of the store."""
    found = references.parse(image)
    return uri.join(root, store.image_key(*found, EXTENSIONS[image_format])) if found else image
