"""The example manifest: what a newcomer runs first has to be right, complete, small and free to use."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.json
import pytest
from PIL import Image

from examples import degrade, draw_demo
from omnigen_actor import images
from pipelines import references
from pipelines.check import check_table
from pipelines.config import GenerationConfig, InputConfig

EXAMPLES = Path(__file__).parent.parent / "examples"
MANIFEST = EXAMPLES / "manifest.jsonl"
DEMO = EXAMPLES / "demo"
PHOTOS = sorted((EXAMPLES / "photos").iterdir())


@pytest.fixture(scope="module")
def planned() -> list[dict[str, Any]]:
    table = check_table(pyarrow.json.read_json(MANIFEST), GenerationConfig(), str(EXAMPLES))
    rows: list[dict[str, Any]] = table.to_pylist()
    return rows


def manifest() -> list[dict[str, Any]]:
    return [json.loads(line) for line in MANIFEST.read_text(encoding="utf-8").splitlines()]


def test_every_row_passes_the_check(planned: list[dict[str, Any]]) -> None:
    assert len(planned) == len(manifest())
    assert [(row["id"], row["error"]) for row in planned if row["error"]] == []


def test_the_manifest_has_enough_rows_tasks_and_shapes() -> None:
    rows = manifest()
    assert len(rows) >= 24
    assert len({row["task"] for row in rows}) >= 8
    assert {len(row["images"]) for row in rows} == {0, 1, 2, 3}
    assert len({row["id"] for row in rows}) == len(rows)


def test_the_readme_states_the_true_counts() -> None:
    rows = manifest()
    assert f"{len(rows)} rows, {len({row['task'] for row in rows})} tasks" in readme()


def test_every_row_has_every_key_and_the_first_has_an_input() -> None:
    keys = ["id", "task", "instruction", "images", "width", "height", "steps", "source"]
    assert [row["id"] for row in manifest() if list(row) != keys] == []
    assert manifest()[0]["images"]


def test_paths_are_relative_and_every_image_that_is_named_exists(planned: list[dict[str, Any]]) -> None:
    named = {name for row in manifest() for name in row["images"]}
    assert {name for name in named if not references.parse(name)} == {f"photos/{photo.name}" for photo in PHOTOS}
    files = [uri for row in planned for uri in row["image_uris"] if not references.parse(uri)]
    assert files
    assert all(Path(uri).is_file() for uri in files)


def test_the_chain_has_these_links() -> None:
    chain = {row["id"]: row for row in manifest() if row["id"].startswith("chain-")}
    links = {name: [image for image in row["images"] if references.parse(image)] for name, row in chain.items()}
    assert links == {
        "chain-1-photo": [],
        "chain-2-edited": ["row:chain-1-photo"],
        "chain-3-pose": ["row:chain-2-edited"],
        "chain-4-dancer": ["row:chain-3-pose"],
        "chain-5-depth": ["row:chain-4-dancer"],
        "chain-6-merged": ["row:chain-4-dancer"],
    }


def test_the_whole_example_is_small_enough_for_a_laptop() -> None:
    assert all(row["steps"] <= 8 for row in manifest())
    assert all((row["width"] or 0) <= 256 and (row["height"] or 0) <= 256 for row in manifest())
    assert sum(path.stat().st_size for path in EXAMPLES.rglob("*") if path.is_file()) < 600_000


@pytest.mark.parametrize("photo", PHOTOS, ids=lambda photo: photo.name)
def test_every_photograph_decodes_and_has_its_licence_in_the_readme(photo: Path) -> None:
    image = images.decode(photo.read_bytes(), max_pixels=InputConfig().max_image_pixels)
    assert 128 <= min(image.size) <= max(image.size) <= 512
    line = next(line for line in readme().splitlines() if line.startswith(f"| `{photo.name}` |"))
    _, _, author, licence, source, _, _ = (cell.strip() for cell in line.split("|"))
    assert author
    assert source
    assert licence in {"CC0", "CC BY 2.0", "public domain"}


def test_a_turned_and_a_transparent_photograph_are_among_them() -> None:
    with Image.open(EXAMPLES / "photos" / "coffee.jpg") as coffee:
        assert coffee.getexif()[0x0112] == 6
        assert coffee.width < coffee.height
    upright = images.decode((EXAMPLES / "photos" / "coffee.jpg").read_bytes(), max_pixels=10**6)
    assert upright.width > upright.height
    with Image.open(EXAMPLES / "photos" / "cup.png") as cup:
        assert cup.mode == "RGBA"
        assert cup.getchannel("A").getextrema() == (0, 255)


@pytest.mark.parametrize("name", degrade.COPIES)
def test_a_degraded_photograph_is_what_its_script_makes(name: str) -> None:
    """Nearly: other versions of numpy, Pillow and its JPEG library may round differently."""
    made, kept = (
        np.asarray(images.decode(data, max_pixels=10**6), dtype=np.float64)
        for data in (degrade.encoded(name), (EXAMPLES / "photos" / name).read_bytes())
    )
    assert np.abs(made - kept).mean() < 0.5


def readme() -> str:
    return (EXAMPLES / "README.md").read_text(encoding="utf-8")


# --- the demo ---


def demo_rows() -> list[dict[str, Any]]:
    return [json.loads(line) for line in (DEMO / "manifest.jsonl").read_text(encoding="utf-8").splitlines()]


def test_the_demo_is_what_its_script_makes() -> None:
    made = draw_demo.demo()
    assert sorted(made) == sorted(path.name for path in DEMO.iterdir())
    assert made["manifest.jsonl"] == (DEMO / "manifest.jsonl").read_bytes()
    for name in sorted(set(made) - {"manifest.jsonl"}):  # other versions of Pillow and zlib pack them otherwise
        ours, theirs = (np.asarray(images.decode(data, max_pixels=2**20)) for data in (made[name], read(name)))
        assert np.abs(ours.astype(int) - theirs).max() <= 1, name


def read(name: str) -> bytes:
    return (DEMO / name).read_bytes()


def test_the_demo_has_scenes_photographs_and_a_chain() -> None:
    rows = demo_rows()
    assert len({row["task"] for row in rows}) >= 8
    assert sum(row["source"].startswith("photos/") for row in rows) >= 4
    chain = [row for row in rows if row["id"].startswith("chain-")]
    assert [row["task"] for row in chain] == ["text_to_image", "canny", "condition", "edit"]
    assert [row["images"] for row in chain[1:]] == [[f"row:{row['id']}"] for row in chain[:-1]]


def test_every_row_of_the_demo_passes_the_check_and_is_small() -> None:
    table = check_table(pyarrow.json.read_json(DEMO / "manifest.jsonl"), GenerationConfig(), str(DEMO))
    assert table["error"].null_count == table.num_rows == len(demo_rows())
    for path in DEMO.glob("*.png"):
        with Image.open(path) as picture:
            assert picture.size == (draw_demo.SIDE, draw_demo.SIDE)
