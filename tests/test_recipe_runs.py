"""Each built-in recipe from a source of real photographs to a finished store, on a local Ray."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from jobs import exit_codes, expand
from omnigen_actor.images import decode
from omnigen_actor.schema import TIMING_COLUMNS
from pipelines import generate as flow
from pipelines.config import GenerationConfig, InputConfig, RunConfig, WorkerConfig
from pipelines.recipes.loading import built_in
from pipelines.references import PREFIX, parse
from tests.test_chains import cut_before_level

pytestmark = [pytest.mark.ray, pytest.mark.slow, pytest.mark.usefixtures("local_ray")]

PHOTOS = Path(__file__).parent.parent / "examples" / "photos"
CAPTIONS = {
    "astronaut.jpg": "A smiling woman in an orange space suit in front of a flag.",
    "cat.jpg": "A tabby cat looks into the camera.",
    "coffee.jpg": "A cup of espresso on a wooden table.",
    "rocket.jpg": "A rocket stands on its launch pad at night.",
}
WORKERS = WorkerConfig(batch_size=4, num_actors=1)
INPUTS = InputConfig(allow=(str(PHOTOS),))
FAKE = RunConfig(
    model="fake",
    generation=GenerationConfig(width=48, height=32, steps=2, max_input_image_size=64),
    workers=WORKERS,
    inputs=INPUTS,
)


@pytest.fixture(scope="module")
def manifest(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The rows of all built-in recipes, of the same four photographs, in one manifest: its levels are made together."""
    folder = tmp_path_factory.mktemp("recipes")
    with (folder / "photos.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["id", "caption", "image"])
        writer.writerows([Path(name).stem, caption, str(PHOTOS / name)] for name, caption in CAPTIONS.items())
    path = folder / "all.jsonl"
    path.write_text("".join(_named(row) for name in built_in() for row in _rows(name, folder)))
    return path


def _rows(name: str, folder: Path) -> Iterator[dict[str, Any]]:
    written = folder / f"{name}.jsonl"
    assert expand.main([name, str(folder / "photos.csv"), str(written)]) == exit_codes.OK
    yield from map(json.loads, written.read_text().splitlines())


def _named(row: dict[str, Any]) -> str:
    """The row with its recipe in its id and in its references: recipes of one source share ids."""
    images = [
        f"{PREFIX}{row['recipe']}/{image.removeprefix(PREFIX)}" if parse(image) else image for image in row["images"]
    ]
    return json.dumps({**row, "id": f"{row['recipe']}/{row['id']}", "images": images}) + "\n"


def rows_of(manifest: Path) -> dict[str, dict[str, Any]]:
    return {row["id"]: row for row in map(json.loads, manifest.read_text().splitlines())}


def records(store: Path) -> dict[str, dict[str, Any]]:
    table = pq.read_table(store / "records").drop_columns(list(TIMING_COLUMNS))
    return {row["id"]: row for row in sorted(table.to_pylist(), key=lambda row: row["attempt"])}


def images(store: Path) -> dict[str, bytes]:
    return {path.relative_to(store).as_posix(): path.read_bytes() for path in (store / "images").rglob("*.png")}


def test_every_recipe_is_made_by_a_model_and_its_graph_can_be_read_from_the_records(
    manifest: Path, tmp_path: Path, tiny_model: Path
) -> None:
    store = tmp_path / "store"
    config = RunConfig(
        model=str(tiny_model),
        generation=GenerationConfig(width=64, height=64, steps=2, max_input_image_size=64),
        workers=WORKERS,
        inputs=INPUTS,
    )
    summary = flow.run(str(manifest), str(store), config)
    asked, found = rows_of(manifest), records(store)
    assert (summary.num_in, summary.num_ok, summary.adds_up) == (len(asked), len(asked), True)
    assert {row["recipe"] for row in found.values()} == set(built_in())
    for row_id, row in found.items():
        references = [parse(image) for image in asked[row_id]["images"]]
        assert row["parents"] == [str(reference) for reference in references if reference]
        parents = [found[parent.rpartition("#")[0]] for parent in row["parents"]]
        assert row["depth"] == max((parent["depth"] + 1 for parent in parents), default=0)
        made = [sha256 for sha256, reference in zip(row["image_sha256"], references, strict=True) if reference]
        assert made == [parent["sha256"] for parent in parents]
        image = decode((store / row["output_key"]).read_bytes(), max_pixels=10**6)
        assert max(image.size) == 64
    assert max(row["depth"] for row in found.values()) == 4


@pytest.fixture(scope="module")
def whole(manifest: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store of all rows that nothing disturbed."""
    store = tmp_path_factory.mktemp("whole") / "store"
    flow.run(str(manifest), str(store), FAKE)
    return store


@pytest.mark.parametrize("depth", [1, 3])
def test_a_run_that_is_cut_between_levels_goes_on_to_the_same_bytes(
    manifest: Path, whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, depth: int
) -> None:
    with monkeypatch.context() as patched:
        cut_before_level(patched, depth)
        with pytest.raises(KeyboardInterrupt):
            flow.run(str(manifest), str(tmp_path / "cut"), FAKE)
    num_before = len(records(tmp_path / "cut"))
    assert 0 < num_before < len(rows_of(manifest))
    again = flow.run(str(manifest), str(tmp_path / "cut"), FAKE)
    assert (again.num_generated, again.adds_up) == (len(rows_of(manifest)) - num_before, True)
    assert images(tmp_path / "cut") == images(whole)
    assert records(tmp_path / "cut") == records(whole)
