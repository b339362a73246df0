"""Every format through the reader that it is for: mixed tasks, 0 to 5 inputs, several shards."""

from __future__ import annotations

import gc
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
import yaml
from PIL import Image

from omnigen_actor import placeholders
from pipelines.export.config import FORMATS
from tests.export_store import (
    NUM_IMAGES,
    PHOTOS,
    ROWS,
    SECRET,
    files,
    here,
    make_in,
    of_format,
    opened,
    to_export,
    write_scores,
    write_selection,
)

SMALL = 24_000
"""Bytes of a shard that has a few of these images."""
Export = Callable[..., Path]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("made")
    make_in(folder)
    splits = {(one["id"], one["sample"]): "train" for one in ROWS} | {("blue", 0): "test", ("v1.2", 0): None}
    write_selection(folder / "store", "good", splits)
    write_scores(folder / "store", "clip", clip={("boat", 0): 0.25, ("red", 0): 0.75})
    write_scores(folder / "store", "phash", phash={("boat", 0): 2**63 + 1}, copy_through={("boat", 0): False})
    return folder / "store"


@pytest.fixture
def exported(made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Export:
    def make(image_format: str, shard_bytes: int = 2**20, **settings: Any) -> Path:
        with here(monkeypatch, shard_bytes=shard_bytes):
            to_export(made, tmp_path / "out", image_format, **settings)
        return tmp_path / "out"

    return make


@pytest.fixture
def load(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """``datasets.load_dataset``, offline, with its cache in the test's folder."""
    for name in ("HF_HUB_OFFLINE", "HF_DATASETS_OFFLINE"):
        monkeypatch.setenv(name, "1")
    import datasets

    datasets.disable_progress_bars()
    return lambda *args, **more: datasets.load_dataset(*args, cache_dir=str(tmp_path / "cache"), **more)


def record(made: Path, row_id: str, sample: int = 0) -> dict[str, Any]:
    rows = pq.read_table(made / "records").to_pylist()
    return next(one for one in rows if (one["id"], one["sample"]) == (row_id, sample))


def pixels(image: Image.Image) -> bytes:
    return image.convert("RGB").tobytes()


# --- hf ---


def test_hf_loads_with_its_images_decoded_and_all_of_its_splits(made: Path, exported: Export, load: Any) -> None:
    out = exported("hf", selection="good", scores="clip,phash", shard_bytes=SMALL)
    loaded = load(str(out))
    assert {split: len(rows) for split, rows in loaded.items()} == {"train": NUM_IMAGES - 2, "test": 1}
    rows = {(one["id"], one["sample"]): one for one in loaded["train"]}
    assert [len(rows[key, 0]["input_images"]) for key in ("boat", "red", "pair", "series", "crowd")] == [0, 1, 2, 3, 5]
    boat = rows["boat", 0]
    assert isinstance(boat["output_image"], Image.Image)
    assert pixels(boat["output_image"]) == pixels(Image.open(made / record(made, "boat")["output_key"]))
    assert (boat["clip"], boat["phash"], boat["copy_through"]) == (0.25, 2**63 + 1, False)
    assert rows["pair", 0]["clip"] is None
    assert (boat["seed"], boat["negative_prompt"], boat["adapters"]) == (7, None, [])
    assert rows["red", 0]["input_references"] == ["street.jpg"]


def test_hf_shards_say_how_many_there_are(exported: Export) -> None:
    names = sorted(path.name for path in (exported("hf", shard_bytes=SMALL) / "data").iterdir())
    assert len(names) > 2
    assert names == [f"train-{number:05d}-of-{len(names):05d}.parquet" for number in range(len(names))]


# --- webdataset ---


def test_webdataset_loads_with_datasets_without_losing_an_input(exported: Export, load: Any) -> None:
    out = exported("webdataset", selection="good", scores="clip", shard_bytes=SMALL)
    found = {}
    for folder in sorted(path.name for path in out.iterdir() if path.is_dir()):
        for rows in load(str(out), folder).values():
            for one in rows:
                names = sorted(name for name in one if name.startswith("input"))
                assert folder == f"{one['json']['task']}-{len(names)}"
                assert all(isinstance(one[name], Image.Image) for name in [*names, "output.png"])
                found[one["json"]["id"], one["json"]["sample"]] = one["json"]
    assert len(found) == NUM_IMAGES - 1
    assert len({tuple(one) for one in found.values()}) == 1
    assert not any(value is None for one in found.values() for value in one.values())
    assert json.loads(found["red", 0]["scores"]) == {"clip": 0.75}


@pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning")
def test_webdataset_loads_with_webdataset(exported: Export) -> None:
    """It leaves its files to the garbage collector."""
    import webdataset

    out = exported("webdataset", shard_bytes=SMALL)
    assert len(list((out / "text_to_image-0").iterdir())) > 1
    tars = sorted(map(str, out.rglob("*.tar")))
    found = {}
    for one in webdataset.WebDataset(tars, shardshuffle=False).decode("pil"):
        number = sum(name.startswith("input") for name in one)
        assert one["output.png"].size == (64, 48)
        found[one["json"]["id"], one["json"]["sample"]] = number
    assert found == {(one["id"], one["sample"]): len(one["images"]) for one in ROWS if one["id"] != "broken"}
    gc.collect()


# --- omnigen ---


def read_as_omnigen(load: Any, json_file: Path, image_root: Path) -> list[dict[str, Any]]:
    """What its training reader asks of each row."""
    rows = []
    for one in load("json", data_files=str(json_file))["train"]:
        inputs = one["input_images"]
        images = [Image.open(image_root / path).convert("RGB") for path in inputs] if inputs is not None else []
        numbers = sorted(set(placeholders.numbers(one["instruction"])))
        assert numbers == list(range(1, len(images) + 1)), one
        output = Image.open(image_root / one["output_image"]).convert("RGB")
        rows.append(one | {"images": images, "output": output})
    return rows


def test_omnigen_reads_every_row_and_opens_every_image(exported: Export, load: Any) -> None:
    out = exported("omnigen", shard_bytes=SMALL)
    rows = read_as_omnigen(load, out / "train.jsonl", out)
    assert len(rows) == NUM_IMAGES
    lines = [json.loads(line) for line in (out / "train.jsonl").read_text().splitlines()]
    assert {tuple(line) for line in lines} == {("task_type", "instruction", "input_images", "output_image")}
    assert lines[0]["input_images"]
    assert lines[-1]["input_images"] == []
    assert sorted(len(one["images"]) for one in rows) == [0, 0, 0, 0, 1, 1, 1, 1, 2, 3, 5]


def test_omnigen_has_the_rest_in_a_table_that_its_paths_join(made: Path, exported: Export) -> None:
    out = exported("omnigen", scores="clip")
    paths = {json.loads(line)["output_image"] for line in (out / "train.jsonl").read_text().splitlines()}
    table = pq.read_table(out / "provenance" / "train.parquet").to_pylist()
    assert {one["output_image"] for one in table} == paths
    red = next(one for one in table if one["id"] == "red")
    assert (red["model_sha256"], red["clip"]) == (record(made, "red")["model_sha256"], 0.75)


# --- omnigen2 ---


def read_as_omnigen2(load: Any, config: Path, folder: Path) -> list[dict[str, Any]]:
    """What its training reader asks: files of one kind that go together, paths as they are written."""
    from datasets import concatenate_datasets

    parts = []
    for entry in yaml.safe_load(config.read_text())["data"]:
        assert entry["ratio"] == 1
        rows = load("json", data_files=str(folder / entry["path"]))["train"]
        parts.append(rows.add_column("kind", [entry["type"]] * len(rows)))
    rows = []
    for one in concatenate_datasets(parts):
        inputs = [Image.open(folder / path).convert("RGB") for path in one["input_images"] or []]
        output = Image.open(folder / one["output_image"]).convert("RGB")
        assert not output.width % 16
        assert not output.height % 16
        rows.append(one | {"images": inputs})
    return rows


def test_omnigen2_reads_every_row_but_those_with_too_many_inputs(exported: Export, load: Any) -> None:
    out = exported("omnigen2", shard_bytes=SMALL)
    rows = read_as_omnigen2(load, out / "train.yml", out)
    assert sorted(one["kind"] for one in rows) == ["edit"] * 4 + ["ic"] * 2 + ["t2i"] * 4
    assert all("<" not in one["instruction"] for one in rows)
    assert all(1 <= len(one["images"]) <= 4 for one in rows if one["kind"] != "t2i")
    told = pq.read_table(out / "left_out.parquet").to_pylist()
    assert [(one["id"], one["reason"]) for one in told] == [("crowd", "too_many_inputs")]
    said = {one["instruction"] for one in rows}
    assert {"make it red", "Put together the first image and the second image."} <= said


def test_omnigen2_paths_begin_where_the_user_says(exported: Export) -> None:
    out = exported("omnigen2", path_prefix="/data/set/")
    config = yaml.safe_load((out / "train.yml").read_text())
    assert config["data"][0]["path"] == "/data/set/train-edit.jsonl"
    line = json.loads((out / "train-edit.jsonl").read_text().splitlines()[0])
    assert all(path.startswith("/data/set/images/") for path in [*line["input_images"], line["output_image"]])


# --- files ---


def test_files_load_as_an_image_folder(made: Path, exported: Export, load: Any) -> None:
    out = exported("files", selection="good", scores="phash", shard_bytes=SMALL)
    for split, number in (("train", NUM_IMAGES - 2), ("test", 1)):
        rows = load("imagefolder", data_dir=str(out / split), split="train")
        assert len(rows) == number
        for one in rows:
            assert isinstance(one["output_image"], Image.Image)
            assert len(one["input_images"]) == len(record(made, one["id"], one["sample"])["images"])
            assert one["phash"] == (str(2**63 + 1) if (one["id"], one["sample"]) == ("boat", 0) else None)
        lines = (out / split / "rows.jsonl").read_text().splitlines()
        assert [json.loads(line)["id"] for line in lines] == pq.read_table(out / split / "metadata.parquet")[
            "id"
        ].to_pylist()


# --- all ---


@pytest.mark.parametrize("image_format", FORMATS)
def test_no_file_tells_of_private_photographs_or_places(
    made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, image_format: str
) -> None:
    root, out = Path(shutil.copytree(made, tmp_path / "store")), tmp_path / "out"
    settings = of_format(image_format, root, str(made.parent / "photos"))
    with here(monkeypatch):
        to_export(root, out, image_format, **settings)
    told = [path for path, data in files(out).items() if SECRET.encode() in data or str(made.parent).encode() in data]
    assert told == []
    assert SECRET.encode() in (made.parent / "photos" / "street.jpg").read_bytes()


@pytest.mark.parametrize("image_format", ["hf", "webdataset", "omnigen", "omnigen2", "files"])
def test_the_card_and_the_marker_tell_what_is_there(exported: Export, image_format: str) -> None:
    out = exported(image_format, scores="clip")
    marker = json.loads((out / "export.json").read_text())
    there = files(out)
    listed = {one["path"] for one in marker["files"]}
    if marker["images"]:
        index = pq.read_table(out / marker["images"]["path"]).to_pylist()
        assert len(index) == marker["images"]["num_files"]
        listed |= {one["path"] for one in index}
    assert listed == set(there) - {"export.json"}
    header, text = (out / "README.md").read_text().removeprefix("---\n").split("---\n", 1)
    assert yaml.safe_load(header)["tags"] == ["synthetic"]
    assert {"## Samples", "## Loading", "## Made with", "## Scores", "## To fill in"} <= set(text.splitlines())
    assert "clip: 2 images" in text
    assert opened(there["samples.png"]).width > 200


def test_the_photos_are_of_every_kind() -> None:
    assert {one for row in ROWS for one in row["images"] if ":" not in one} == set(PHOTOS)


def test_store_is_left_as_it_was(made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = Path(shutil.copytree(made, tmp_path / "store"))
    before = files(root)
    with here(monkeypatch):
        to_export(root, tmp_path / "out")
    assert files(root) == before
