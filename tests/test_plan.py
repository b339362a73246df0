"""One pass over a manifest: duplicates, what is done, the parts on disk, and figures that add up."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from omnigen_actor.errors import ManifestError, OutputError
from omnigen_actor.schema import PLAN, RECORD, Status
from pipelines.config import ALL, GenerationConfig, RunConfig
from pipelines.ledger import Ledger, digest
from pipelines.manifest import open_manifest
from pipelines.plan import PlanSummary, stage_plan
from pipelines.plan_parts import ROWS_PER_PART, ROWS_PER_ROW_GROUP, remove_others

if TYPE_CHECKING:
    from tests.conftest import Bucket

TEXT: dict[str, Any] = {"task": "text_to_image", "instruction": "A cat."}
EDIT: dict[str, Any] = {"task": "edit", "instruction": "Red.", "images": ["in.png"]}


def stage(
    folder: Path,
    rows: list[dict[str, Any]],
    config: RunConfig | None = None,
    run_id: str = "r1",
    *,
    earlier: Sequence[GenerationConfig] = (),
) -> PlanSummary:
    folder.mkdir(exist_ok=True)
    manifest = folder / "m.jsonl"
    manifest.write_text("".join(json.dumps(row) + "\n" for row in rows))
    store = str(folder / "store")
    ledger = Ledger.load(store)
    return stage_plan(open_manifest(str(manifest)), config or RunConfig(), ledger, store, run_id, earlier=earlier)


def planned(summary: PlanSummary) -> list[dict[str, Any]]:
    return [row for part in summary.part_uris for row in pq.read_table(part).to_pylist()]


def finish(
    folder: Path, summary: PlanSummary, status: str = Status.OK, *, kinds: Mapping[str, str | None] | None = None
) -> None:
    """Write a record for every row that was to do, as the actor does.

    ``kinds``: error kinds of rows by their ids, None for one that is skipped because its parent failed.
    """
    (folder / "store" / "records").mkdir(parents=True, exist_ok=True)
    for number, part in enumerate(summary.part_uris):
        rows = pq.read_table(part).to_pylist()
        for row in rows:
            blank: dict[str, Any] = {
                "image_sha256": [],
                "model": "fake",
                "model_sha256": "",
                "fetch_seconds": 0.0,
                "generate_seconds": 0.0,
                "write_seconds": 0.0,
                "finished_at": datetime.now(UTC),
                "run_id": "r",
            }
            row.update(blank, status=Status.FAILED if row["error"] else status)
            if row["id"] in (kinds or {}):
                kind = (kinds or {})[row["id"]]
                row.update(status=Status.FAILED if kind else Status.SKIPPED, error_kind=kind or "parent_failed")
        name = f"{Path(summary.plan_uri).name}-{number}.parquet"
        pq.write_table(pa.Table.from_pylist(rows, schema=RECORD), folder / "store" / "records" / name)


def test_figures_add_up(tmp_path: Path) -> None:
    rows = [
        {**TEXT, "id": "a", "num_samples": 3},
        {**EDIT, "id": "b"},
        {**EDIT, "id": "c", "width": 0, "height": 0},
        {**TEXT, "id": "d", "task": "nope"},
        {**EDIT, "id": "b"},
    ]
    config = RunConfig(generation=GenerationConfig(width=64, height=32, steps=10, max_input_image_size=128))
    summary = stage(tmp_path, rows, config)
    assert (summary.num_rows, summary.num_duplicates) == (5, 1)
    assert (summary.num_planned, summary.num_done, summary.num_to_do, summary.num_bad) == (6, 0, 6, 2)
    assert summary.num_per_task == {"text_to_image": 3, "edit": 2, "unknown": 1}
    assert summary.pixel_steps == 3 * 64 * 32 * 10 + 128 * 128 * 10
    assert len(summary.digests) == 6


def test_parts_are_normalised_parquet_of_bounded_size(tmp_path: Path) -> None:
    summary = stage(tmp_path, [{**TEXT, "id": n, "num_samples": 3, "note": str(n)} for n in range(3000)])
    assert summary.plan_uri == str(tmp_path / "store" / "plan" / "r1")
    assert [Path(part).name for part in summary.part_uris] == [f"part-{n:05d}.parquet" for n in range(3)]
    files = [pq.ParquetFile(part) for part in summary.part_uris]
    assert [file.metadata.num_rows for file in files] == [ROWS_PER_PART, ROWS_PER_PART, 9000 - 2 * ROWS_PER_PART]
    for file in files:
        assert file.schema_arrow == pa.schema([*PLAN, ("note", pa.string())])
        assert file.metadata.row_group(0).num_rows == ROWS_PER_ROW_GROUP
    found = [(row["id"], row["sample"]) for row in planned(summary)]
    assert found == [(str(n), sample) for n in range(3000) for sample in range(3)]
    assert np.array_equal(np.concatenate([digest(pq.read_table(part)) for part in summary.part_uris]), summary.digests)


def test_a_row_of_many_samples_passes_in_parts(tmp_path: Path) -> None:
    summary = stage(tmp_path, [{**TEXT, "id": "a", "num_samples": 10_000}])
    assert (summary.num_rows, summary.num_planned, len(summary.part_uris)) == (1, 10_000, 3)


def test_a_second_run_plans_what_is_left(tmp_path: Path) -> None:
    rows = [{**TEXT, "id": "a"}, {**EDIT, "id": "b"}, {**TEXT, "id": "bad", "steps": 0}]
    first = stage(tmp_path, rows)
    finish(tmp_path, first)
    again = stage(tmp_path, rows, run_id="r2")
    assert (again.num_planned, again.num_done, again.num_to_do, again.num_bad) == (3, 3, 0, 1)
    assert again.part_uris == ()
    assert not (tmp_path / "store" / "plan" / "r2").exists()
    assert np.array_equal(again.digests, first.digests)
    audit = Ledger.load(str(tmp_path / "store")).audit(again.digests)
    assert (audit.num_ok, audit.num_failed, audit.adds_up) == (2, 1, True)

    more = [{**TEXT, "id": "new"}, {**EDIT, "id": "b", "instruction": "Blue."}, *rows[::2]]
    third = stage(tmp_path, more, run_id="r3")
    assert (third.num_planned, third.num_done, third.num_to_do) == (4, 2, 2)
    assert [(row["id"], row["attempt"]) for row in planned(third)] == [("new", 1), ("b", 2)]
    audit = Ledger.load(str(tmp_path / "store")).audit(third.digests)
    assert (audit.num_missing, audit.adds_up) == (2, False)


def test_failed_rows_are_planned_again_on_request(tmp_path: Path) -> None:
    rows = [{**TEXT, "id": "a"}]
    finish(tmp_path, stage(tmp_path, rows), Status.FAILED)
    assert stage(tmp_path, rows).num_to_do == 0
    summary = stage(tmp_path, rows, RunConfig(retry_failed=(ALL,)), "r2")
    assert [(row["id"], row["attempt"]) for row in planned(summary)] == [("a", 2)]


def test_a_repeated_row_is_planned_once_and_counted(tmp_path: Path) -> None:
    row = {**TEXT, "id": "a", "num_samples": 2, "note": {"x": [1]}}
    far = [{**TEXT, "id": n, "num_samples": 1, "note": None} for n in range(5000)]
    summary = stage(tmp_path, [row, row, *far, row])
    assert (summary.num_rows, summary.num_duplicates, summary.num_planned) == (5003, 2, 5002)
    assert [row["id"] for row in planned(summary)] == ["a", "a", *map(str, range(5000))]


@pytest.mark.parametrize(
    "change",
    [{"instruction": "A dog."}, {"num_samples": 2}, {"note": "other"}, {"steps": 0}, {"width": 64, "height": 64}],
    ids=lambda change: next(iter(change)),
)
def test_one_id_with_different_content_stops_the_run_and_names_both_rows(
    tmp_path: Path, change: dict[str, Any]
) -> None:
    row = {**TEXT, "id": "twice", "note": "one"}
    between = [{**TEXT, "id": n} for n in range(5000)]
    with pytest.raises(ManifestError, match=r"^rows 2 and 5003 of the manifest have the same id 'twice'") as caught:
        stage(tmp_path, [{**TEXT, "id": "first"}, row, *between, row | change])
    assert "\n" not in str(caught.value)


def test_rows_without_ids_are_told_apart_by_their_content(tmp_path: Path) -> None:
    summary = stage(tmp_path, [TEXT, EDIT, TEXT, {**TEXT, "instruction": "A dog."}])
    assert (summary.num_planned, summary.num_duplicates) == (3, 1)
    with pytest.raises(ManifestError, match=r"rows 1 and 2 .* have no id .* differ in other columns; give them ids"):
        stage(tmp_path, [{**TEXT, "note": "x"}, {**TEXT, "note": "y"}])


def test_lines_that_are_no_rows_are_planned_as_failed_rows(tmp_path: Path) -> None:
    manifest = tmp_path / "m.jsonl"
    manifest.write_text(json.dumps({**TEXT, "id": "a"}) + "\nbroken\nbroken\n")
    summary = stage_plan(open_manifest(str(manifest)), RunConfig(), Ledger.load(str(tmp_path)), str(tmp_path), "r1")
    assert (summary.num_planned, summary.num_bad, summary.num_duplicates) == (3, 2, 0)
    assert [(row["id"], row["error_kind"]) for row in planned(summary)][1:] == [
        ("line-2", "bad_row"),
        ("line-3", "bad_row"),
    ]


def test_a_store_that_can_not_be_written_is_one_clear_line(tmp_path: Path) -> None:
    (tmp_path / "store").write_text("a file where the store should be")
    with pytest.raises(OutputError, match=r"store") as caught:
        stage(tmp_path, [{**TEXT, "id": "a"}])
    assert "\n" not in str(caught.value)


def test_planning_imports_neither_ray_nor_torch() -> None:
    code = "import pipelines.plan, sys; print(sorted({'ray', 'torch', 'diffusers', 'transformers'} & set(sys.modules)))"
    answer = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert answer.stdout.strip() == "[]"


def test_the_combinations_of_a_sweep_are_rows_of_their_own(tmp_path: Path) -> None:
    swept = TEXT | {"id": "boat", "steps": [2, 3], "guidance_scale": [1, 2], "num_samples": 2, "mine": "kept"}
    summary = stage(tmp_path, [swept, TEXT | {"id": "other", "mine": "too"}])
    rows = planned(summary)
    assert (summary.num_rows, summary.num_planned, summary.num_duplicates) == (2, 9, 0)
    assert len({(row["id"], row["sample"]) for row in rows}) == 9
    assert {(row["steps"], row["guidance_scale"]) for row in rows[:8]} == {(2, 1.0), (2, 2.0), (3, 1.0), (3, 2.0)}
    assert len({row["seed"] for row in rows[:8]}) == 8
    assert [row["mine"] for row in rows] == ["kept"] * 8 + ["too"]


def test_a_longer_sweep_leaves_the_rows_that_were_there(tmp_path: Path) -> None:
    finish(tmp_path, stage(tmp_path, [TEXT | {"id": "boat", "steps": [2, 3]}]))
    again = stage(tmp_path, [TEXT | {"id": "boat", "steps": [4, 3, 2]}], run_id="r2")
    assert (again.num_done, again.num_to_do) == (2, 1)
    assert [row["id"] for row in planned(again)] == ["boat[steps=4]"]


def test_an_id_that_a_sweep_makes_can_not_be_another_rows(tmp_path: Path) -> None:
    rows = [TEXT | {"id": "boat", "steps": [2, 3]}, TEXT | {"id": "boat[steps=3]", "instruction": "else"}]
    with pytest.raises(ManifestError, match=r"rows 1 and 2 .* same id 'boat\[steps=3\]'"):
        stage(tmp_path, rows)


def test_a_repeated_sweep_is_planned_once(tmp_path: Path) -> None:
    row = TEXT | {"id": "boat", "steps": [2, 3]}
    summary = stage(tmp_path, [row, row])
    assert (summary.num_rows, summary.num_planned, summary.num_duplicates) == (2, 2, 2)


def test_a_bad_sweep_is_one_failed_row(tmp_path: Path) -> None:
    summary = stage(tmp_path, [TEXT | {"id": "boat", "steps": [2, "many"]}])
    (row,) = planned(summary)
    assert (row["id"], row["error_kind"]) == ("boat", "bad_parameter")
    assert "steps=[2, 'many']: number 2 of the list is no number" in row["error"]


CHAIN = [
    {**EDIT, "id": "deep", "images": ["row:child"]},
    {**EDIT, "id": "child", "images": ["row:root"]},
    {**TEXT, "id": "root"},
    {**EDIT, "id": "alone"},
]


def levels(summary: PlanSummary) -> list[list[str]]:
    return [[row["id"] for part in level.parts for row in pq.read_table(part).to_pylist()] for level in summary.levels]


def test_rows_are_planned_by_depth_whatever_their_order(tmp_path: Path) -> None:
    summary = stage(tmp_path, CHAIN)
    assert levels(summary) == [["root", "alone"], ["child"], ["deep"]]
    assert [row["depth"] for row in planned(summary)] == [0, 0, 1, 2]
    assert (summary.num_planned, summary.num_to_do, len(summary.digests)) == (4, 4, 4)


def test_a_finished_chain_is_not_planned_again(tmp_path: Path) -> None:
    finish(tmp_path, stage(tmp_path, CHAIN))
    assert stage(tmp_path, CHAIN[::-1], run_id="r2").num_to_do == 0


def test_a_changed_row_is_planned_with_all_that_comes_from_it(tmp_path: Path) -> None:
    finish(tmp_path, stage(tmp_path, CHAIN))
    changed = [*CHAIN[:2], {**TEXT, "id": "root", "instruction": "A dog."}, CHAIN[3]]
    assert levels(stage(tmp_path, changed, run_id="r2")) == [["root"], ["child"], ["deep"]]


def test_a_child_added_later_needs_its_parent_only(tmp_path: Path) -> None:
    finish(tmp_path, stage(tmp_path, CHAIN[1:3]))
    summary = stage(tmp_path, CHAIN, run_id="r2")
    assert levels(summary) == [["alone"], ["deep"]]
    assert [row["error"] for row in planned(summary)] == [None, None]


def test_a_child_of_a_row_that_failed_earlier_is_skipped_until_that_is_tried_again(tmp_path: Path) -> None:
    finish(tmp_path, stage(tmp_path, CHAIN[2:3]), status=Status.FAILED)
    (row,) = planned(stage(tmp_path, CHAIN[1:3], run_id="r2"))
    assert (row["id"], row["error_kind"]) == ("child", "parent_failed")
    assert "'root#0'" in row["error"]
    assert "--retry-failed" in row["error"]
    again = stage(tmp_path, CHAIN[1:3], RunConfig(retry_failed=(ALL,)), run_id="r3")
    assert levels(again) == [["root"], ["child"]]
    assert [row["error"] for row in planned(again)] == [None, None]


def test_a_reference_to_no_row_stops_the_run(tmp_path: Path) -> None:
    with pytest.raises(ManifestError, match="'child'"):
        stage(tmp_path, CHAIN[:2])


def test_combinations_of_a_sweep_can_be_referred_to(tmp_path: Path) -> None:
    rows = [TEXT | {"id": "boat", "steps": [2, 3]}, {**EDIT, "id": "red", "images": ["row:boat[steps=3]"]}]
    assert levels(stage(tmp_path, rows)) == [["boat[steps=2]", "boat[steps=3]"], ["red"]]


@pytest.mark.parametrize("scheme", ["", "file://"])
def test_the_plans_of_other_runs_are_removed_and_nothing_else(tmp_path: Path, scheme: str) -> None:
    names = ["20260101T120000Z-00000a", "20260102T120000Z-00000b", "my own"]
    for name in names:
        (tmp_path / "plan" / name / "depth-0001").mkdir(parents=True)
        (tmp_path / "plan" / name / "depth-0001" / "part-00000.parquet").touch()
    remove_others(f"{scheme}{tmp_path}", names[1])
    assert sorted(path.name for path in (tmp_path / "plan").iterdir()) == names[1:]
    assert len(list((tmp_path / "plan").rglob("*.parquet"))) == 2
    remove_others(str(tmp_path / "nowhere"), names[1])


@pytest.mark.s3
def test_the_plans_of_other_runs_are_removed_from_an_object_store(s3: Bucket) -> None:
    for name in ("20260101T120000Z-00000a", "20260102T120000Z-00000b"):
        s3.put(f"out/plan/{name}/part-00000.parquet", b"")
    remove_others(f"{s3.uri}/out", "20260102T120000Z-00000b")
    assert s3.keys() == ["out/plan/20260102T120000Z-00000b/part-00000.parquet"]
