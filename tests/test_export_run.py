"""The flow of an export: the same bytes each time, what goes on after a crash, what is left out and why."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from jobs import exit_codes
from jobs.export import main
from omnigen_actor import uri
from omnigen_actor.errors import ConfigError, OutputError
from pipelines.export.config import FORMATS
from tests.conftest import Bucket
from tests.export_store import (
    NUM_IMAGES,
    ROWS,
    files,
    here,
    make_in,
    of_format,
    picture,
    to_export,
    write_scores,
    write_selection,
)

SMALL = 24_000


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("made")
    make_in(folder)
    return folder


@pytest.fixture
def root(made: Path, tmp_path: Path) -> Path:
    """A store that a test may spoil; its photographs are ``photos`` beside it."""
    shutil.copytree(made / "photos", tmp_path / "photos")
    root = Path(shutil.copytree(made / "store", tmp_path / "store"))
    told = json.loads((root / "run.json").read_text())
    told["runs"][0]["image_base"] = str(tmp_path / "photos")
    (root / "run.json").write_text(json.dumps(told))
    return root


def left_out(out: Path) -> dict[str, str]:
    rows = pq.read_table(out / "left_out.parquet").to_pylist()
    assert all(one["message"] for one in rows)
    return {one["id"]: one["reason"] for one in rows}


def records_of(root: Path, row_id: str) -> tuple[Path, pa.Table]:
    for file in sorted((root / "records").iterdir()):
        table = pq.read_table(file)
        if row_id in table["id"].to_pylist():
            return file, table
    raise LookupError(row_id)


def change_record(root: Path, row_id: str, **values: Any) -> None:
    file, table = records_of(root, row_id)
    rows = [one | values if one["id"] == row_id else one for one in table.to_pylist()]
    pq.write_table(pa.Table.from_pylist(rows, schema=table.schema), file)


# --- the same bytes ---


@pytest.mark.parametrize("image_format", FORMATS)
def test_two_exports_are_the_same_bytes(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, image_format: str
) -> None:
    settings = of_format(image_format, root, str(tmp_path / "photos"))
    with here(monkeypatch, shard_bytes=SMALL):
        first = to_export(root, tmp_path / "one", image_format, **settings)
        to_export(root, tmp_path / "two", image_format, **settings)
    assert files(tmp_path / "one") == files(tmp_path / "two")
    assert first.is_new


@pytest.mark.parametrize("image_format", FORMATS)
def test_interrupted_and_continued_is_the_same_as_whole(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, image_format: str
) -> None:
    settings = of_format(image_format, root, str(tmp_path / "photos"))
    with here(monkeypatch, num_shards=2, shard_bytes=SMALL), pytest.raises(KeyboardInterrupt):
        to_export(root, tmp_path / "one", image_format, **settings)
    assert (tmp_path / "one" / "plan").is_dir()
    assert not (tmp_path / "one" / "export.json").exists()
    done = {path: data for path, data in files(tmp_path / "one").items() if "report-" in path}
    assert len(done) == 2
    shards = []
    with here(monkeypatch, shard_bytes=SMALL):
        from pipelines.export import run

        execute = run._execute
        monkeypatch.setattr(run, "_execute", lambda write, tasks: shards.extend(tasks) or execute(write, tasks))
        to_export(root, tmp_path / "one", image_format, **settings)
        to_export(root, tmp_path / "two", image_format, **settings)
    assert shards[0]["number"].to_pylist() == [2]
    assert files(tmp_path / "one") == files(tmp_path / "two")


def test_cut_off_before_the_marker_or_the_sweep_it_is_made_whole(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with here(monkeypatch, shard_bytes=SMALL):
        to_export(root, tmp_path / "whole", "omnigen")
        with monkeypatch.context() as patch:
            patch.setattr("pipelines.export.finishing.card", lambda *_: 1 / 0)
            with pytest.raises(ZeroDivisionError):
                to_export(root, tmp_path / "out", "omnigen")
        with monkeypatch.context() as patch:
            patch.setattr("pipelines.export.destination.Destination.sweep", lambda _: 1 / 0)
            with pytest.raises(ZeroDivisionError):
                to_export(root, tmp_path / "out", "omnigen")
        assert not to_export(root, tmp_path / "out", "omnigen").is_new
    assert files(tmp_path / "out") == files(tmp_path / "whole")


def test_over_a_whole_export_nothing_is_written(root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with here(monkeypatch):
        to_export(root, tmp_path / "out")
        before = {path: path.stat() for path in (tmp_path / "out").rglob("*")}
        monkeypatch.setattr(uri, "write_bytes", lambda *_, **__: 1 / 0)
        again = to_export(root, tmp_path / "out")
    assert not again.is_new
    assert again.marker["counts"]["num_images"] == NUM_IMAGES
    assert {path: path.stat() for path in (tmp_path / "out").rglob("*")} == before


def test_a_moved_store_is_the_same_export(root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with here(monkeypatch):
        to_export(root, tmp_path / "one")
        to_export(root.rename(tmp_path / "elsewhere"), tmp_path / "two")
    assert files(tmp_path / "one") == files(tmp_path / "two")


# --- another export, another folder ---


def test_another_plan_is_refused_and_replaces_on_request(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with here(monkeypatch):
        to_export(root, tmp_path / "out", "hf")
        with pytest.raises(OutputError, match="--replace"):
            to_export(root, tmp_path / "out", "files")
        to_export(root, tmp_path / "out", "files", replace=True)
    assert not (tmp_path / "out" / "data").exists()
    assert (tmp_path / "out" / "train" / "metadata.parquet").exists()


def test_a_folder_of_something_else_is_never_touched(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "thesis.txt").write_text("years of work")
    with here(monkeypatch), pytest.raises(OutputError, match="no export"):
        to_export(root, tmp_path / "out", replace=True)
    assert files(tmp_path / "out") == {"thesis.txt": b"years of work"}


@pytest.mark.parametrize("place", ["store", "store/data", "."])
def test_the_store_and_the_export_are_apart(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, place: str
) -> None:
    with here(monkeypatch), pytest.raises(OutputError, match="must not lie in each other"):
        to_export(root, tmp_path / place)


def test_without_images_nothing_begins(root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_selection(root, "none", {})
    with here(monkeypatch), pytest.raises(OutputError, match="nothing to export"):
        to_export(root, tmp_path / "out", selection="none")
    assert not (tmp_path / "out").exists()


# --- what is left out ---


def test_what_is_missing_or_has_other_bytes_is_left_out_with_a_reason(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    picture(9).save(tmp_path / "photos" / "street.jpg")
    (tmp_path / "photos" / "glass.png").unlink()
    boat = next((root / "images").rglob("boat-0.png"))
    boat.write_bytes(boat.read_bytes() + b"x")
    next((root / "images").rglob("v1.2-0.png")).unlink()
    with here(monkeypatch, shard_bytes=SMALL):
        done = to_export(root, tmp_path / "out")
    reasons = {
        "red": "input_changed", "pair": "input_missing", "boat": "image_changed", "again": "input_changed",
        "v1.2": "image_missing",
    }  # fmt: skip
    assert left_out(tmp_path / "out") == reasons
    counts = done.marker["counts"]
    assert (counts["num_chosen"], counts["num_images"], counts["num_left_out"]) == (NUM_IMAGES, NUM_IMAGES - 5, 5)
    assert pq.read_table(tmp_path / "out" / "data").num_rows == NUM_IMAGES - 5


def test_a_record_that_names_a_place_of_another_is_left_out(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    change_record(root, "red", output_key="../photos/street.jpg")
    with here(monkeypatch):
        to_export(root, tmp_path / "out")
    assert left_out(tmp_path / "out") == {"red": "bad_key"}


def test_inputs_outside_of_what_rows_may_read_are_left_out(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copy(tmp_path / "photos" / "street.jpg", tmp_path / "private.jpg")
    change_record(root, "red", images=[str(tmp_path / "private.jpg")])
    with here(monkeypatch):
        to_export(root, tmp_path / "one")
        assert left_out(tmp_path / "one") == {"red": "input_refused"}
        to_export(root, tmp_path / "two", inputs=_inputs(allow=(str(tmp_path),)))
    assert left_out(tmp_path / "two") == {}
    rows = {one["id"]: one for one in pq.read_table(tmp_path / "two" / "data").to_pylist()}
    assert rows["red"]["input_references"] == ["private.jpg"]


def _inputs(**more: Any) -> Any:
    from pipelines.config import InputConfig

    return InputConfig(**more)


def test_a_run_that_does_not_tell_its_folder_needs_the_image_root(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    told = json.loads((root / "run.json").read_text())
    del told["runs"][0]["image_base"]
    (root / "run.json").write_text(json.dumps(told))
    with here(monkeypatch):
        with pytest.raises(ConfigError, match="--image-root"):
            to_export(root, tmp_path / "out")
        assert not (tmp_path / "out").exists()
        to_export(root, tmp_path / "out", inputs=_inputs(image_root=str(tmp_path / "photos")))
    assert left_out(tmp_path / "out") == {}


def test_what_changed_since_it_was_selected_is_left_out(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_selection(root, "good", {("red", 0): "train", ("blue", 0): "train", ("boat", 0): None})
    change_record(root, "red", sha256="0" * 64)
    with here(monkeypatch):
        done = to_export(root, tmp_path / "out", selection="good")
    assert left_out(tmp_path / "out") == {"red": "changed_since_selection"}
    assert done.marker["counts"]["splits"] == {"train": {"edit": 1}}


def test_a_selection_that_is_not_there_is_told_with_those_that_are(root: Path, tmp_path: Path) -> None:
    write_selection(root, "good", {})
    with pytest.raises(ConfigError, match="it has: good"):
        to_export(root, tmp_path / "out", selection="goood")


def test_scores_that_are_not_there_are_refused(root: Path, tmp_path: Path) -> None:
    with pytest.raises(OutputError, match="clip"):
        to_export(root, tmp_path / "out", scores="clip")


def test_a_column_of_two_scores_has_the_name_of_each(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_scores(root, "clip", clip={("boat", 0): 0.5})
    write_scores(root, "clip-large", clip={("boat", 0): 0.25})
    with here(monkeypatch):
        to_export(root, tmp_path / "out", scores="clip,clip-large")
    rows = {(one["id"], one["sample"]): one for one in pq.read_table(tmp_path / "out" / "data").to_pylist()}
    assert (rows["boat", 0]["clip_clip"], rows["boat", 0]["clip-large_clip"]) == (0.5, 0.25)


def test_scores_of_an_older_image_are_not_those_of_the_present_one(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_scores(root, "clip", clip={("boat", 0): 0.5, ("blue", 0): 0.5})
    part = root / "scores" / "clip" / "part-0123.parquet"
    rows = [one | ({"sha256": "0" * 64} if one["id"] == "boat" else {}) for one in pq.read_table(part).to_pylist()]
    pq.write_table(pa.Table.from_pylist(rows, schema=pq.read_schema(part)), part)
    with here(monkeypatch):
        to_export(root, tmp_path / "out", scores="clip")
    found = {(one["id"], one["sample"]): one["clip"] for one in pq.read_table(tmp_path / "out" / "data").to_pylist()}
    assert found["boat", 0] is None
    assert found["blue", 0] == 0.5


def test_records_that_agree_are_one_image_and_those_that_do_not_are_left_out(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number, (row_id, more) in enumerate((("red", {}), ("blue", {"sha256": "1" * 64}))):
        _, table = records_of(root, row_id)
        (one,) = [one for one in table.to_pylist() if one["id"] == row_id]
        twin = one | more | {"run_id": "20260102T120000Z-0a0b0c"}
        pq.write_table(pa.Table.from_pylist([twin], schema=table.schema), root / "records" / f"twin-{number}.parquet")
    with here(monkeypatch):
        done = to_export(root, tmp_path / "out")
    assert left_out(tmp_path / "out") == {"blue": "doubled"}
    assert done.marker["counts"]["num_chosen"] == NUM_IMAGES
    ids = pq.read_table(tmp_path / "out" / "data")["id"].to_pylist()
    assert sorted(ids) == sorted(one["id"] for one in ROWS if one["id"] not in ("broken", "blue"))


# --- the job ---


def test_the_job_counts_and_says_what_it_did(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = [str(root), str(tmp_path / "out"), "--format", "omnigen2"]
    with here(monkeypatch):
        assert main(arguments) == exit_codes.ROWS_FAILED
        shown = capsys.readouterr().out.splitlines()
        assert shown[:2] == [
            f"chosen {NUM_IMAGES} = exported {NUM_IMAGES - 1} + left out 1",
            "left out, too_many_inputs: 1",
        ]
        assert main([*arguments, "--max-failed", "10"]) == exit_codes.OK
        assert "the export was whole already: nothing was written" in capsys.readouterr().out
        assert main([*arguments, "--format", "hf"]) == exit_codes.NOT_STARTED
        assert "error: " in capsys.readouterr().err


@pytest.mark.ray
def test_through_ray_it_is_the_same_export(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, local_ray: None
) -> None:
    with here(monkeypatch, shard_bytes=SMALL):
        to_export(root, tmp_path / "one", "webdataset")
    monkeypatch.setattr("pipelines.export.run._MIB", SMALL // 256)
    to_export(root, tmp_path / "two", "webdataset")
    assert files(tmp_path / "one") == files(tmp_path / "two")


@pytest.mark.s3
def test_from_and_to_a_bucket_it_is_the_same_export(
    s3: Bucket, root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for path, data in files(root).items():
        s3.put(f"store/{path}", data)
    with here(monkeypatch, shard_bytes=SMALL):
        to_export(root, tmp_path / "out", "files")
        with here(monkeypatch, num_shards=1, shard_bytes=SMALL), pytest.raises(KeyboardInterrupt):
            to_export(f"{s3.uri}/store", f"{s3.uri}/out", "files")
        to_export(f"{s3.uri}/store", f"{s3.uri}/out", "files")
    there = {key.removeprefix("out/"): s3.get(key) for key in s3.keys("out/")}
    assert there == files(tmp_path / "out")
