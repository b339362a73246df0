from __future__ import annotations

import hashlib
import json
import shutil
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from omnigen_actor import store
from omnigen_actor.errors import ConfigError, OutputError
from omnigen_actor.schema import RECORD
from pipelines.records import WriteRecords
from pipelines.selection import run, written
from pipelines.selection.options import SelectionConfig
from pipelines.selection.pairs import PAIRS
from pipelines.selection.quotas import parse as quota
from pipelines.selection.run import Account, select
from pipelines.selection.splits import parse as splits
from pipelines.selection.syntax import ExpressionError
from pipelines.selection.written import SELECTION
from tests.conftest import Bucket
from tests.test_docs import code, doc, table

RUN = "20260101T120000Z-0a0b0c"
Row = dict[str, Any]


def sha256(*of: object) -> str:
    return hashlib.sha256(repr(of).encode()).hexdigest()


def record(row_id: str, sample: int = 0, **more: Any) -> Row:
    digest = sha256(row_id, sample, more.get("attempt", 1))
    return {
        "id": row_id, "sample": sample, "attempt": 1, "row_hash": sha256(row_id), "status": "ok", "task": "edit",
        "instruction": f"make {row_id}", "prompt": f"make {row_id}", "images": [], "width": 32, "height": 48,
        "seed": 5, "parents": [], "depth": 0, "image_sha256": [], "output_key": store.image_key(row_id, sample, ".png"),
        "format": "png", "num_bytes": 3, "sha256": digest, "model": "fake", "model_sha256": "00", "approximations": [],
        "adapters": [], "fetch_seconds": 0.0, "generate_seconds": 0.0, "write_seconds": 0.0,
        "finished_at": datetime(2026, 1, 1, tzinfo=UTC), "run_id": RUN,
    } | more  # fmt: skip


def write_records(root: Path | str, *batches: list[Row], **user_columns: pa.DataType) -> None:
    for rows in batches:
        schema = RECORD
        for name, one in user_columns.items():
            schema = schema.append(pa.field(name, one))
        WriteRecords(str(root), RUN)(pa.Table.from_pylist(rows, schema=schema))
    if isinstance(root, Path):
        (root / "run.json").write_text("{}")


def write_scores(root: Path, name: str, rows: list[Row], part: str = "0", **columns: pa.DataType) -> None:
    """``rows``: id, sample and scores; the image is that of the first attempt unless it says its sha256."""
    key = {"id": pa.string(), "sample": pa.int32(), "sha256": pa.string()}
    schema = pa.schema([*key.items(), *columns.items(), ("score_error", pa.string())])
    whole = [{"sample": 0, "sha256": sha256(row["id"], row.get("sample", 0), 1)} | row for row in rows]
    folder = root / "scores" / name
    folder.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.Table.from_pylist(whole, schema=schema), folder / f"part-{part}.parquet")
    (folder / "scorer.json").write_text(json.dumps({"name": name, "settings": {}, "version": 1}))


def chosen(root: Path, name: str = "good") -> dict[str, str | None]:
    """The reason by id#sample."""
    rows = pq.read_table(root / "selections" / name / "selection.parquet").to_pylist()
    assert all(row["is_kept"] == (row["reason"] is None) == (row["split"] is not None) for row in rows)
    return {f"{row['id']}#{row['sample']}": row["reason"] for row in rows}


def run_select(
    root: Path, *, name: str = "good", has_pairs: bool = False, replace: bool = True, **config: Any
) -> Account:
    return select(str(root), name, SelectionConfig(**config), has_pairs=has_pairs, replace=replace)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Three rows of two samples with a clip score, but for one; c#1 is a near-duplicate of a#1."""
    root = tmp_path / "store"
    write_records(
        root,
        [record("c", 0, task="canny"), record("a", 1), record("c", 1, task="canny")],
        [record("a", 0), record("b", 1, label="x"), record("b", 0), record("bad", status="failed", sha256=None)],
        label=pa.string(),
    )
    clip = [("a", 0, 0.1), ("a", 1, 0.3), ("b", 0, 0.4), ("c", 0, 0.2), ("c", 1, 0.5)]
    write_scores(root, "clip", [{"id": one, "sample": n, "clip": v} for one, n, v in clip[:3]], clip=pa.float32())
    write_scores(
        root, "clip", [{"id": one, "sample": n, "clip": v} for one, n, v in clip[3:]], part="1", clip=pa.float32()
    )
    groups = [{"id": "a", "sample": 1, "duplicate_group": "a#1"}, {"id": "c", "sample": 1, "duplicate_group": "a#1"}]
    write_scores(root, "near_duplicates", groups, duplicate_group=pa.string())
    return root


def test_every_current_image_is_kept_or_has_its_reason(root: Path) -> None:
    account = run_select(root, where="clip > 0.15 and task == 'edit'")
    assert chosen(root) == {
        "a#0": "clip > 0.15",
        "a#1": None,
        "b#0": None,
        "b#1": "clip is missing",
        "c#0": "task == 'edit'",
        "c#1": "task == 'edit'",
    }
    assert (account.num_in, account.num_kept, account.num_rejected) == (6, 2, 4)
    assert dict(account.reasons) == {"task == 'edit'": 2, "clip > 0.15": 1, "clip is missing": 1}
    assert account.adds_up


def test_the_table_has_the_documented_schema_and_order(root: Path) -> None:
    run_select(root, drop_duplicates=True)
    found = pq.read_table(root / "selections/good/selection.parquet")
    assert found.schema.equals(SELECTION)
    keys = list(zip(found["id"].to_pylist(), found["sample"].to_pylist(), strict=True))
    assert keys == sorted(keys)
    assert found["sha256"].to_pylist() == [sha256(*key, 1) for key in keys]
    assert set(found["split"].to_pylist()) == {"train", None}


def test_of_near_duplicates_the_first_stays_or_the_best(root: Path) -> None:
    run_select(root, drop_duplicates=True)
    assert {one: why for one, why in chosen(root).items() if why} == {"c#1": "duplicate of a#1"}
    account = run_select(root, by="clip", drop_duplicates=True)
    assert {one: why for one, why in chosen(root).items() if why} == {"a#1": "duplicate of c#1"}
    assert dict(account.reasons) == {"duplicate of another": 1}
    run_select(root, where="clip < 0.5 or is_null(clip)", by="clip", drop_duplicates=True)
    assert chosen(root)["a#1"] is None
    run_select(root)
    assert not any(chosen(root).values())


def test_the_best_of_each_row_stays_and_ranks_are_written(root: Path) -> None:
    run_select(root, by="-clip", best=1)
    found = pq.read_table(root / "selections/good/selection.parquet").to_pylist()
    assert [(row["rank"], row["reason"]) for row in found] == [
        (1, None), (2, "not in the best 1 by -clip"), (1, None), (None, "-clip is missing"), (1, None),
        (2, "not in the best 1 by -clip"),
    ]  # fmt: skip
    run_select(root, by="clip")
    assert pq.read_table(root / "selections/good/selection.parquet")["is_kept"].to_pylist() == [True] * 6


def test_quotas_count_what_earlier_steps_left(root: Path) -> None:
    run_select(root, quotas=(quota("task=edit:2"), quota("task:1")))
    found = chosen(root)
    assert sum(found[one] is None for one in ("a#0", "a#1", "b#0", "b#1")) == 2
    assert sorted(why or "" for one, why in found.items() if one[0] == "c") == ["", "quota task:1"]
    assert found["a#0"] == found["a#1"], "samples of a row are taken together"
    run_select(root, quotas=(quota("task=edit:1"),), by="clip", quota_by="score")
    assert [one for one, why in chosen(root).items() if why is None] == ["b#0", "c#0", "c#1"]
    run_select(root, where="task == 'canny'", quotas=(quota("task=edit:0"),))
    assert chosen(root)["c#0"] is None


def test_scores_of_another_image_say_nothing(root: Path) -> None:
    write_records(root, [record("a", 1, attempt=2)])
    run_select(root, where="clip > 0")
    assert chosen(root)["a#1"] == "clip is missing"
    write_scores(root, "clip", [{"id": "a", "sample": 1, "sha256": sha256("a", 1, 2), "clip": 1}], "2", clip=pa.int64())
    run_select(root, where="clip > 0")
    assert chosen(root)["a#1"] is None


def test_a_score_that_failed_once_counts_as_what_it_is_now(root: Path) -> None:
    write_scores(root, "clip", [{"id": "a", "clip": None, "score_error": "no memory"}], "z", clip=pa.float32())
    write_scores(root, "clip", [{"id": "b", "clip": 9.0}], "y", clip=pa.float32())
    plan = root / "scores/clip/_plan/part-1.parquet"
    plan.parent.mkdir()
    plan.write_bytes(b"of a scoring that goes on")
    run_select(root, where="clip > 0 and (is_null(clip.score_error))", by="clip")
    found = pq.read_table(root / "selections/good/selection.parquet").to_pylist()
    assert {f"{row['id']}#{row['sample']}": row["reason"] for row in found if row["reason"]} == {
        "b#1": "clip is missing"
    }


def test_columns_of_the_users_own_can_be_asked_and_may_be_missing_in_some_files(root: Path) -> None:
    write_records(root, [record("d")])
    run_select(root, where="label == 'x'")
    assert [one for one, why in chosen(root).items() if why is None] == ["b#1"]
    assert chosen(root)["d#0"] == "label is missing"


def test_families_share_their_split_and_rejected_images_join_them(tmp_path: Path) -> None:
    root = tmp_path / "store"
    rows = [record(f"{number:03d}", sample) for number in range(60) for sample in (0, 1)]
    children = [
        record(f"child {number:03d} {side}", parents=[f"{number:03d}#1"], depth=1, image_sha256=[sha256(number)])
        for number in range(60)
        for side in "lr"
    ]
    write_records(root, rows, children)
    account = run_select(root, where="depth == 1", split=splits("validation=0.3,test=0.2"))
    found = pq.read_table(root / "selections/good/selection.parquet").to_pylist()
    split = {row["id"]: row["split"] for row in found if row["is_kept"]}
    assert all(split[f"child {number:03d} l"] == split[f"child {number:03d} r"] for number in range(60))
    assert set(split.values()) == {"train", "validation", "test"}
    assert (account.num_families, account.largest_family) == (60, 4)
    run_select(root, name="all", split=splits("validation=0.3,test=0.2"))
    others = pq.read_table(root / "selections/all/selection.parquet").to_pylist()
    assert {row["id"]: row["split"] for row in others if row["id"] in split} == split


def test_neither_the_order_of_records_nor_a_second_run_changes_a_byte(tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    rows = [record(f"{number % 40:03d}", number // 40, label=f"{number % 7}") for number in range(120)]
    scores = [{"id": row["id"], "sample": row["sample"], "clip": float(random.integers(5))} for row in rows]
    options: dict[str, Any] = {
        "where": "clip > 0", "by": "clip", "best": 2, "quotas": (quota("label:5"),),
        "split": splits("validation=0.3"), "has_pairs": True,
    }  # fmt: skip
    files = []
    for name in ("one", "other"):
        write_records(tmp_path / name, rows[:50], rows[50:], label=pa.string())
        write_scores(tmp_path / name, "clip", scores, clip=pa.float64())
        for _ in range(2):
            run_select(tmp_path / name, **options)
            files.append([file.read_bytes() for file in sorted((tmp_path / name / "selections/good").iterdir())])
        rows, scores = rows[::-1], scores[::-1]
    assert len(files[0]) == 3
    assert files[0] == files[1] == files[2] == files[3]


def test_pairs_are_of_one_row_and_only_of_what_was_judged(root: Path) -> None:
    account = run_select(root, where="clip > 0.15", by="clip", best=1, has_pairs=True)
    found = pq.read_table(root / "selections/good/pairs.parquet")
    assert found.schema.equals(PAIRS)
    assert account.num_pairs == found.num_rows == 2
    first, second = found.to_pylist()
    assert first["id"] == "a"
    assert (first["chosen_sample"], first["rejected_sample"]) == (1, 0)
    assert (first["chosen_key"], first["rejected_key"]) == (
        store.image_key("a", 1, ".png"),
        store.image_key("a", 0, ".png"),
    )
    assert (first["chosen_sha256"], first["rejected_sha256"]) == (sha256("a", 1, 1), sha256("a", 0, 1))
    assert (first["prompt"], first["reason"]) == ("make a", "clip > 0.15")
    assert first["margin"] == pytest.approx(0.2)
    assert (second["id"], second["rejected_sample"], second["reason"]) == ("c", 0, "not in the best 1 by clip")
    assert second["margin"] == pytest.approx(0.3)
    run_select(root)
    assert not (root / "selections/good/pairs.parquet").exists(), "of another selection"
    assert run_select(root, where="clip > 9", has_pairs=True).num_pairs == 0


def test_the_marker_says_what_was_asked_and_is_written_last(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run_select(root, where="clip > 0.15", split=splits("test=0.5"))
    marker = root / "selections/good/selection.json"
    told = json.loads(marker.read_text())
    assert (told["where"], told["split"], told["seed"]) == ("clip > 0.15", {"test": 0.5}, 0)
    assert told["scores"] == {
        name: {"name": name, "settings": {}, "version": 1} for name in ("clip", "near_duplicates")
    }
    assert told["counts"]["num_in"] == 6
    monkeypatch.setattr(written, "_write_parquet", lambda *_: (_ for _ in ()).throw(OSError("the disk is full")))
    with pytest.raises(OutputError, match="the disk is full"):
        run_select(root)
    assert not marker.exists()


def test_a_name_with_other_settings_is_refused_until_it_is_to_be_replaced(root: Path) -> None:
    run_select(root, where="clip > 0.15")
    with pytest.raises(ConfigError, match=r"selection 'good' with another where; take another name, or --replace"):
        run_select(root, where="clip > 0.2", replace=False)
    run_select(root, where="clip > 0.15", replace=False)
    run_select(root, where="clip > 0.25")
    assert chosen(root)["c#0"] == "clip > 0.25"


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"where": "clp > 1"}, "where: unknown column 'clp'; the nearest known one is clip"),
        ({"by": "sharpnes"}, "by: unknown column 'sharpnes'"),
        ({"where": "score_error == ''"}, "write clip.score_error or near_duplicates.score_error"),
        ({"quotas": (quota("tsk=edit:1"),)}, "quota 'tsk': unknown column 'tsk'; the nearest known one is task"),
        ({"quotas": (quota("task=edti:1"),)}, "no image of the store has task 'edti'"),
        ({"quotas": (quota("images:1"),)}, "quota 'images': the column is a list of texts"),
        ({"duplicates": "width"}, "duplicates: record.width is a number; it must be text"),
    ],
)
def test_what_can_not_be_asked_of_this_store_is_named(root: Path, config: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        run_select(root, **config)
    assert message in str(caught.value)


def test_what_is_wrong_is_named_before_a_row_is_read(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run, "current_images", lambda _: pytest.fail("read"))
    with pytest.raises(ExpressionError, match="text can't be compared with a number"):
        run_select(root, where="clip > 0 and task > 1")


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"best": 0, "by": "clip"}, "best=0"),
        ({"best": 1}, "say by what with --by"),
        ({"quota_by": "score"}, "say by which with --by"),
        ({"quota_by": "luck"}, "must be hash or score"),
        ({"seed": -1}, "seed=-1"),
    ],
)
def test_a_setting_out_of_range_is_named(config: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        SelectionConfig(**config)


@pytest.mark.parametrize("name", ["", "..", "a/b", "-a", "ä"])
def test_a_name_is_that_of_a_folder(root: Path, name: str) -> None:
    with pytest.raises(ConfigError, match="name"):
        run_select(root, name=name)


def test_a_broken_score_file_is_named(root: Path) -> None:
    (root / "scores/clip/part-0.parquet").write_bytes(b"PAR1")
    with pytest.raises(OutputError, match=r"part-0\.parquet can't be read"):
        run_select(root)


def test_a_store_without_images_keeps_none(tmp_path: Path) -> None:
    write_records(tmp_path / "store", [record("bad", status="failed", sha256=None)])
    account = run_select(
        tmp_path / "store", by="width", best=1, split=splits("test=0.5"), has_pairs=True, where="width > 1"
    )
    assert (account.num_in, account.num_kept, account.num_pairs, account.num_families) == (0, 0, 0, 0)
    assert chosen(tmp_path / "store") == {}


def test_the_documented_columns_are_those_of_the_files() -> None:
    text = doc("selection.md")
    listed = table(text, "column of selection.parquet", "type", "meaning")
    assert [(code(row[0]), row[1]) for row in listed] == [(one.name, str(one.type)) for one in SELECTION]
    listed = table(text, "column of pairs.parquet", "type", "meaning")
    assert [(code(row[0]), row[1]) for row in listed] == [(one.name, str(one.type)) for one in PAIRS]


@pytest.mark.s3
def test_a_store_in_a_bucket_is_selected_there(s3: Bucket, tmp_path: Path) -> None:
    root = f"{s3.uri}/run"
    write_records(root, [record("a"), record("b")])
    s3.put("run/run.json", b"{}")
    write_scores(tmp_path, "clip", [{"id": "a", "clip": 0.5}, {"id": "b", "clip": 0.1}], clip=pa.float32())
    for name in ("part-0.parquet", "scorer.json"):
        s3.put(f"run/scores/clip/{name}", (tmp_path / "scores/clip" / name).read_bytes())
    config = SelectionConfig(where="clip > 0.3", split=splits("test=0.5"))
    assert select(root, "good", config, has_pairs=True).num_kept == 1
    assert s3.keys("run/selections/") == [
        f"run/selections/good/{name}" for name in ("pairs.parquet", "selection.json", "selection.parquet")
    ]
    assert json.loads(s3.get("run/selections/good/selection.json"))["counts"]["num_rejected"] == 1
    with pytest.raises(ConfigError, match="with another where"):
        select(root, "good", SelectionConfig(split=splits("test=0.5")))


def test_to_drop_duplicates_there_must_be_groups(tmp_path: Path, root: Path) -> None:
    shutil.rmtree(root / "scores" / "near_duplicates")
    with pytest.raises(ConfigError, match="no score has a column 'duplicate_group'; score phash and near_duplicates"):
        run_select(root, drop_duplicates=True)
