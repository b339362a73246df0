"""Preference pairs: what their consumer loads, and which are left out or refused."""

from __future__ import annotations

import io
import json
import shutil
from collections import Counter
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from jobs import exit_codes
from jobs.export import main
from omnigen_actor import uri
from omnigen_actor.errors import ConfigError, OutputError
from omnigen_actor.placeholders import placeholder
from tests.export_store import (
    NUM_PAIRS,
    add_pairs,
    files,
    here,
    make_in,
    opened,
    picture,
    to_export,
    write_selection,
)

SMALL = 24_000


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("made")
    make_in(folder)
    add_pairs(folder / "store", str(folder / "photos"))
    return folder / "store"


@pytest.fixture
def root(made: Path, tmp_path: Path) -> Path:
    """A store that a test may spoil."""
    return Path(shutil.copytree(made, tmp_path / "store"))


def images_of(root: Path) -> dict[tuple[str, int], bytes]:
    rows = pq.read_table(root / "records").to_pylist()
    return {(one["id"], one["sample"]): (root / one["output_key"]).read_bytes() for one in rows if one["sha256"]}


def left_out(out: Path) -> dict[tuple[str, int], str]:
    rows = pq.read_table(out / "left_out.parquet").to_pylist()
    assert all(one["message"] for one in rows)
    return {(one["id"], one["sample"]): one["reason"] for one in rows}


def change_record(root: Path, row_id: str, sample: int, **values: Any) -> None:
    for file in sorted((root / "records").iterdir()):
        table = pq.read_table(file)
        mine = [(one, (one["id"], one["sample"]) == (row_id, sample)) for one in table.to_pylist()]
        rows = [one | (values if is_mine else {}) for one, is_mine in mine]
        pq.write_table(pa.Table.from_pylist(rows, schema=table.schema), file)


def test_datasets_loads_the_chosen_and_the_rejected_image_of_each_pair(
    made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("HF_HUB_OFFLINE", "HF_DATASETS_OFFLINE"):
        monkeypatch.setenv(name, "1")
    import datasets

    datasets.disable_progress_bars()
    with here(monkeypatch, shard_bytes=SMALL):
        to_export(made, tmp_path / "out", "pairs", selection="liked")
    assert len(list((tmp_path / "out" / "data").iterdir())) > 3
    loaded = datasets.load_dataset(str(tmp_path / "out"), cache_dir=str(tmp_path / "cache"))
    assert set(loaded) == {"train", "test"}
    rows = {(one["id"], one["rejected_sample"]): one for split in loaded.values() for one in split}
    assert len(rows) == NUM_PAIRS
    stored = {key: Image.open(io.BytesIO(data)).tobytes() for key, data in images_of(made).items()}
    chosen = {"red": 2, **dict.fromkeys(("boat", "blue", "edges", "pair", "a cat!"), 1)}
    num_inputs = {"boat": 0, "a cat!": 0, "pair": 2}
    for (row_id, sample), one in rows.items():
        assert one["chosen_sample"] == chosen[row_id] != sample
        assert one["chosen_image"].tobytes() == stored[row_id, chosen[row_id]]
        assert one["rejected_image"].tobytes() == stored[row_id, sample]
        assert one["reason"] == "not in the best 1 by taste"
        assert one["margin"] == (chosen[row_id] - sample) / 4
        assert [isinstance(image, Image.Image) for image in one["input_images"]] == [True] * num_inputs.get(row_id, 1)
    assert rows["pair", 0]["prompt"] == f"Put together {placeholder(1)} and {placeholder(2)}."
    assert rows["red", 1]["input_references"] == ["street.jpg"]
    assert [len({one[name] for one in rows.values()}) for name in ("width", "height", "steps")] == [1, 1, 1]


def test_a_chosen_image_is_read_once_for_the_pairs_that_share_it(
    made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read, counted = uri.read_bytes, Counter[str]()

    def count(place: str, **more: Any) -> bytes:
        counted[place.rpartition("/")[2]] += 1
        return read(place, **more)

    with here(monkeypatch):
        monkeypatch.setattr("pipelines.export.finishing.Finishing.finish", lambda _: None)
        monkeypatch.setattr(uri, "read_bytes", count)
        to_export(made, tmp_path / "out", "pairs", selection="liked")
    assert [counted[f"red-{sample}.png"] for sample in (0, 1, 2)] == [1, 1, 1]


# --- what is left out ---


def test_a_pair_with_a_missing_or_changed_image_is_left_out(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def image(name: str) -> Path:
        return next((root / "images").rglob(name))

    image("red-2.png").unlink()
    picture(1).save(image("blue-1.png"))
    image("boat-0.png").unlink()
    with here(monkeypatch):
        done = to_export(root, tmp_path / "out", "pairs", selection="liked")
    reasons = {
        ("red", 0): "image_missing", ("red", 1): "image_missing", ("blue", 0): "image_changed",
        ("boat", 0): "image_missing",
    }  # fmt: skip
    assert left_out(tmp_path / "out") == reasons
    counts = done.marker["counts"]
    assert (counts["num_chosen"], counts["num_images"], counts["num_left_out"]) == (NUM_PAIRS, NUM_PAIRS - 4, 4)


@pytest.mark.parametrize("sample", [0, 1])
def test_a_pair_of_which_one_image_is_another_now_is_left_out(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, sample: int
) -> None:
    """Even where the old file is still there, as beside one of another image format."""
    change_record(root, "blue", sample, sha256="0" * 64)
    with here(monkeypatch):
        to_export(root, tmp_path / "out", "pairs", selection="liked")
    assert left_out(tmp_path / "out") == {("blue", 0): "changed_since_selection"}


@pytest.mark.parametrize(
    ("values", "sample"), [({"prompt": "make it green"}, 1), ({"steps": 9}, 0), ({"image_sha256": ["0" * 64]}, 1)]
)
def test_images_that_were_not_made_of_the_same_are_no_pair(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, values: dict[str, Any], sample: int
) -> None:
    change_record(root, "blue", sample, **values)
    with here(monkeypatch):
        to_export(root, tmp_path / "out", "pairs", selection="liked")
    assert left_out(tmp_path / "out") == {("blue", 0): "pair_differs"}


def test_a_chosen_image_at_the_place_of_another_is_left_out(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    table = root / "selections" / "liked" / "pairs.parquet"
    rows = pq.read_table(table).to_pylist()
    next(one for one in rows if one["id"] == "blue")["chosen_key"] = "../photos/street.jpg"
    pq.write_table(pa.Table.from_pylist(rows, schema=pq.read_schema(table)), table)
    with here(monkeypatch):
        to_export(root, tmp_path / "out", "pairs", selection="liked")
    assert left_out(tmp_path / "out") == {("blue", 0): "bad_key"}


# --- what is refused ---


def test_a_selection_without_pairs_is_refused_with_the_option(root: Path, tmp_path: Path) -> None:
    write_selection(root, "good", {("blue", 0): "train"})
    with pytest.raises(ConfigError, match=r"'good': it has no pairs.*--pairs"):
        to_export(root, tmp_path / "out", "pairs", selection="good")
    with pytest.raises(ConfigError, match="it has: good, liked"):
        to_export(root, tmp_path / "out", "pairs", selection="goood")
    assert not (tmp_path / "out").exists()


def test_a_selection_whose_pairs_are_none_is_nothing_to_export(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    table = root / "selections" / "liked" / "pairs.parquet"
    pq.write_table(pq.read_table(table).slice(0, 0), table)
    with here(monkeypatch), pytest.raises(OutputError, match="has no pair"):
        to_export(root, tmp_path / "out", "pairs", selection="liked")


def test_other_pairs_of_the_same_selection_are_another_export(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    table = root / "selections" / "liked" / "pairs.parquet"
    with here(monkeypatch):
        to_export(root, tmp_path / "out", "pairs", selection="liked")
        assert not to_export(root, tmp_path / "out", "pairs", selection="liked").is_new
        rows = [one | {"margin": 0.125} for one in pq.read_table(table).to_pylist()]
        pq.write_table(pa.Table.from_pylist(rows, schema=pq.read_schema(table)), table)
        with pytest.raises(OutputError, match="--replace"):
            to_export(root, tmp_path / "out", "pairs", selection="liked")


# --- what is told ---


def test_the_card_the_samples_and_the_account_are_of_pairs(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    with here(monkeypatch):
        assert main([str(root), str(out), "--format", "pairs", "--selection", "liked"]) == exit_codes.OK
    shown = capsys.readouterr().out.splitlines()
    assert shown[0] == f"pairs {NUM_PAIRS} = exported {NUM_PAIRS} + left out 0"
    assert [line.split()[2] for line in shown[1:3]] == ["pairs:", "pairs:"]
    text = (out / "README.md").read_text()
    assert (
        f"{NUM_PAIRS} preference pairs of a chosen and a rejected image, made by a model, with 6 input images." in text
    )
    assert "Inputs, the chosen image and the rejected one, a line each: canny, compose, edit, text_to_image." in text
    assert '["chosen_image"]' in text
    assert "--format pairs --selection liked" in text
    marker = json.loads((out / "export.json").read_text())
    assert {one["path"] for one in marker["files"]} == set(files(out)) - {"export.json"}
    sheet, chosen = opened((out / "samples.png").read_bytes()), opened(images_of(root)["edges", 1])
    left = sheet.width - 2 * (chosen.width + 8)
    assert sheet.crop((left, 8, left + chosen.width, 8 + chosen.height)).tobytes() == chosen.tobytes()
