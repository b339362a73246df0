"""One group with its source rows filled in -> the rows of a manifest. Knows no files, no shares, no rules for a row."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import product

from omnigen_actor import schema, uri
from pipelines.recipes import templates
from pipelines.recipes.draws import draw
from pipelines.recipes.recipe import PLACEHOLDERS, Choice, Group, RowTemplate
from pipelines.references import PREFIX
from pipelines.sweeps import Cells

MAX_ROWS = 10_000
"""At most so many rows come from one set of source rows."""


class Unfillable(ValueError):  # noqa: N818
    """These source rows can't be filled in; the message says what they lack."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SourceRow:
    """A row of the source: its number, counted from 1, its id and its cells, those that are blank left out.

    ``fault``: why it is no row at all.
    """

    number: int
    id: str
    cells: Mapping[str, object] = field(default_factory=dict)
    fault: str = ""

    def __str__(self) -> str:
        return f"source row {self.number} ({self.id!r})"


@dataclass(frozen=True, slots=True, kw_only=True)
class Places:
    """Where relative references of the source start, and where the manifest will lie."""

    source_folder: str
    manifest_folder: str

    def rebase(self, reference: object) -> object:
        """The reference as it must stand in the manifest: relative where it lies below its folder, else absolute."""
        if not isinstance(reference, str) or reference.startswith(PREFIX):
            return reference
        try:
            absolute = uri.resolve(reference, self.source_folder)
        except ValueError:  # the check of the row will say so
            return reference
        below = absolute.removeprefix(uri.join(self.manifest_folder, " ").rstrip())
        return below if below != absolute and ":" not in below else absolute


def fill_group(group: Group, sources: Sequence[SourceRow], places: Places, seed: int = 0) -> list[Cells]:
    """The rows that ``group`` makes of its source rows, with the source's own columns. Raises Unfillable."""
    try:
        names = _names(group, sources, seed)
        rows = [row for template in group.rows for row in _fill_template(template, names, places)]
    except templates.Missing as missing:
        raise Unfillable(f"has no {missing}") from None
    carried = _carried(group, sources)
    return [{**row, **{name: value for name, value in carried.items() if name not in row}} for row in rows]


def _names(group: Group, sources: Sequence[SourceRow], seed: int) -> dict[str, object]:
    first = sources[0]
    names: dict[str, object] = {**group.parameters, **first.cells, **PLACEHOLDERS, "id": first.id}
    names |= {str(place): {**source.cells, "id": source.id} for place, source in enumerate(sources, 1)}
    ids = [source.id for source in sources]
    for name, choice in group.choices.items():
        if name not in first.cells:
            names[name] = _draw(choice, names, [seed, group.name, name, *ids])
    return names


def _draw(choice: Choice, names: templates.Names, key: list[object]) -> object:
    options = templates.fill(choice.options, names)
    count = templates.fill(choice.count, names)
    if not isinstance(options, list):
        raise Unfillable(f"chooses from {options!r}, which is no list")
    if not isinstance(count, int | None) or isinstance(count, bool):
        raise Unfillable(f"chooses {count!r} of a list: must be a whole number")
    try:
        drawn = draw(options, 1 if count is None else count, *key)
    except ValueError as error:
        raise Unfillable(str(error)) from None
    return drawn[0] if count is None else drawn


def _fill_template(template: RowTemplate, names: templates.Names, places: Places) -> Iterator[Cells]:
    before: object = None
    for number, turn in enumerate(_turns(template, names), 1):
        if number > MAX_ROWS:
            raise Unfillable(f"makes more than {MAX_ROWS} rows")
        own = {**names, **turn, "number": number}
        if template.previous is not None:
            own["previous"] = before or templates.fill(template.previous, own)
        cells = {name: templates.fill(cell, own) for name, cell in template.cells.items() if cell is not None}
        cells["id"] = row_id = templates.fill_text(template.cells["id"], own)
        before = PREFIX + row_id
        # Every row has these, in this order: readers that guess types need them, and so does a manifest.
        row = {"id": row_id, "task": cells["task"], "instruction": "", "images": [], **cells}
        yield {**row, "images": _images(row["images"], places)}


def _turns(template: RowTemplate, names: templates.Names) -> Iterator[dict[str, object]]:
    lists = {}
    for name, given in template.loops.items():
        values = templates.fill(given, names)
        if not isinstance(values, list):
            raise Unfillable(f"loops over {values!r}, which is no list")
        lists[name] = values
    for turn in product(*lists.values()):
        yield dict(zip(lists, turn, strict=True))


def _images(images: object, places: Places) -> object:
    return [places.rebase(item) for item in images] if isinstance(images, list) else places.rebase(images)


def _carried(group: Group, sources: Sequence[SourceRow]) -> dict[str, object]:
    """What every row says of where it comes from, and the first source row's own columns.

    A column that a manifest means something by, as a photograph's own width, becomes ``source_<column>``.
    """
    carried: dict[str, object] = {"group": group.name, "source_id": sources[0].id}
    carried |= {f"source_id_{place}": source.id for place, source in enumerate(sources[1:], 2)}
    for name, value in sources[0].cells.items():
        own = f"source_{name}" if name in schema.OWNED_COLUMNS or name in carried else name
        carried.setdefault(own, value)
    return carried
