"""Near-duplicates of a store: what is found, what is written, and what an older image does not change."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from omnigen_actor.errors import ConfigError, OutputError
from pipelines.records import WriteRecords
from pipelines.scores.near import NO_HASH, label, near_duplicates, spec
from pipelines.scores.phash import PerceptualHash, perceptual_hash
from pipelines.scores.scorer import score_schema
from pipelines.scores.stored import check_description, read_scores
from tests.score_pictures import NAMES, as_jpeg, photo
from tests.test_records import records

Image = tuple[str, int, str, int | None]
"""id, sample, what stands for its file, phash."""

IMAGES: list[Image] = [
    ("boat", 10, "a", 0b1),
    ("boat", 9, "b", 0b11),
    ("cat", 0, "c", 0xFF00),
    ("dog", 0, "d", 0b0),
    ("dog", 1, "e", 0xFF00FF00FF00FF00),
    ("eel", 0, "f", 0xFF00),
]


def table(images: list[Image]) -> pa.Table:
    columns = [[one[place] for one in images] for place in range(4)]
    types = (pa.string(), pa.int32(), pa.string(), pa.uint64())
    names = ("id", "sample", "sha256", "phash")
    return pa.table({name: pa.array(*pair) for name, *pair in zip(names, columns, types, strict=True)})


def write_store(root: Path, images: list[Image], scored: list[Image] | None = None, attempt: int = 1) -> None:
    rows = [{"id": one[0], "sample": one[1], "sha256": one[2], "attempt": attempt} for one in images]
    WriteRecords(str(root), f"r{attempt}")(records(*rows))
    write_hashes(root, images if scored is None else scored, f"part-{attempt}.parquet")


def write_hashes(root: Path, images: list[Image], name: str) -> None:
    folder = root / "scores" / "phash"
    folder.mkdir(parents=True, exist_ok=True)
    errors = pa.array([None if one[3] is not None else "broken" for one in images], pa.string())
    scores = table(images).append_column("score_error", errors).cast(score_schema(PerceptualHash.columns))
    pq.write_table(scores, folder / name)


def found(root: Path) -> dict[str, tuple[str | None, int | None, str | None]]:
    files = sorted((root / "scores" / "near_duplicates").glob("*.parquet"))
    rows = pq.read_table(files).to_pylist()
    assert [(row["id"], row["sample"]) for row in rows] == sorted((row["id"], row["sample"]) for row in rows)
    return {
        f"{row['id']}#{row['sample']}": (row["duplicate_group"], row["duplicate_distance"], row["score_error"])
        for row in rows
    }


GROUPS = {
    "boat#9": ("boat#9", 1, None),
    "boat#10": ("boat#9", 1, None),
    "cat#0": ("cat#0", 0, None),
    "dog#0": ("boat#9", 1, None),
    "dog#1": (None, None, None),
    "eel#0": ("cat#0", 0, None),
}
"""At the default radius: the smallest image by id, then by sample as a number."""


def test_every_current_image_has_its_group_or_none(tmp_path: Path) -> None:
    write_store(tmp_path, IMAGES)
    counts = near_duplicates(str(tmp_path))
    assert found(tmp_path) == GROUPS
    assert (counts.num_images, counts.num_groups, counts.num_in_groups, counts.num_without_hash) == (6, 2, 5, 0)
    assert counts.line() == "6 images: 5 of them in 2 groups of near-duplicates"
    assert read_scores(str(tmp_path), ["near_duplicates", "phash"]).num_rows == 6


def test_the_order_of_images_and_files_does_not_change_a_byte(tmp_path: Path) -> None:
    write_store(tmp_path / "one", IMAGES)
    write_store(tmp_path / "two", IMAGES[::-1])
    contents = []
    for name in ("one", "two"):
        near_duplicates(str(tmp_path / name))
        contents.append(
            {file.name: file.read_bytes() for file in (tmp_path / name / "scores/near_duplicates").iterdir()}
        )
    assert contents[0] == contents[1]
    assert set(contents[0]) == {"part-all.parquet", "scorer.json"}


def test_an_image_that_was_made_again_is_judged_by_its_new_hash_alone(tmp_path: Path) -> None:
    write_store(tmp_path, IMAGES)
    write_store(tmp_path, [("eel", 0, "9", 0xAAAAAAAA)], attempt=2)
    near_duplicates(str(tmp_path))
    assert found(tmp_path) == GROUPS | {"cat#0": (None, None, None), "eel#0": (None, None, None)}


def test_an_image_without_a_hash_is_told_and_joined_to_nothing(tmp_path: Path) -> None:
    broken: list[Image] = [("cat", 0, "c", None)]
    write_store(tmp_path, IMAGES, scored=[*IMAGES[:2], *broken, *IMAGES[3:5]])
    counts = near_duplicates(str(tmp_path))
    assert found(tmp_path) == GROUPS | {"cat#0": (None, None, NO_HASH), "eel#0": (None, None, NO_HASH)}
    assert counts.line().endswith("in 1 groups of near-duplicates, 2 without a hash")


def test_a_hash_that_failed_once_and_then_worked_counts(tmp_path: Path) -> None:
    write_store(tmp_path, IMAGES)
    write_hashes(tmp_path, [("cat", 0, "c", None), ("eel", 0, "f", None)], "part-zzz.parquet")
    near_duplicates(str(tmp_path))
    assert found(tmp_path) == GROUPS


def test_a_second_time_takes_the_place_of_the_first(tmp_path: Path) -> None:
    write_store(tmp_path, IMAGES)
    near_duplicates(str(tmp_path))
    (tmp_path / "scores/near_duplicates/part-old.parquet").write_bytes(b"of another version")
    write_store(tmp_path, [("fox", 0, "7", 0xFF00FF00FF00FF01)], attempt=2)
    near_duplicates(str(tmp_path))
    assert found(tmp_path) == GROUPS | {"dog#1": ("dog#1", 1, None), "fox#0": ("dog#1", 1, None)}


def test_another_radius_is_refused_unless_it_replaces_or_has_another_name(tmp_path: Path) -> None:
    write_store(tmp_path, IMAGES)
    near_duplicates(str(tmp_path))
    with pytest.raises(OutputError, match="radius=4"):
        near_duplicates(str(tmp_path), 0)
    assert found(tmp_path) == GROUPS
    near_duplicates(str(tmp_path), 0, name="same")
    assert json.loads((tmp_path / "scores/same/scorer.json").read_text())["settings"]["radius"] == 0
    near_duplicates(str(tmp_path), 0, replace=True)
    assert found(tmp_path)["boat#9"] == (None, None, None)
    assert found(tmp_path)["cat#0"] == ("cat#0", 0, None)


def test_a_store_without_hashes_and_a_wrong_radius_are_told(tmp_path: Path) -> None:
    WriteRecords(str(tmp_path), "r1")(records({"sha256": "a"}))
    with pytest.raises(OutputError, match="--scorers phash,near_duplicates"):
        near_duplicates(str(tmp_path))
    with pytest.raises(ConfigError, match="radius=11"):
        near_duplicates(str(tmp_path), 11)
    assert not (tmp_path / "scores").exists()


def test_a_store_without_images_has_an_empty_table(tmp_path: Path) -> None:
    write_store(tmp_path, [])
    assert near_duplicates(str(tmp_path)).num_images == 0
    assert found(tmp_path) == {}


def test_what_is_written_is_what_the_registry_describes(tmp_path: Path) -> None:
    write_store(tmp_path, IMAGES)
    near_duplicates(str(tmp_path), 3)
    described: dict[str, Any] = json.loads((tmp_path / "scores/near_duplicates/scorer.json").read_text())
    assert described["settings"] == spec(3).settings
    assert described["columns"] == {"duplicate_group": "string", "duplicate_distance": "int32"}
    check_description(str(tmp_path), described)


def test_encoded_and_resized_photographs_are_joined_and_different_ones_are_not() -> None:
    images: list[Image] = []
    for name in NAMES:
        given = photo(name)
        copies = [given, as_jpeg(given, 30), given.resize((given.width // 2, given.height // 2))]
        images += [(name, sample, name, perceptual_hash(copy)) for sample, copy in enumerate(copies)]
    order = np.random.default_rng(0).permutation(len(images)).tolist()
    rows = label(table([images[place] for place in order]), 4).to_pylist()
    assert {(row["id"], row["duplicate_group"]) for row in rows} == {(name, f"{name}#0") for name in NAMES}
    assert [(row["id"], row["sample"]) for row in rows] == [(name, sample) for name in NAMES for sample in range(3)]
