"""Sources of recipes: tables of every format, folders of images, rows that can't be read."""

from __future__ import annotations

import json
from datetime import date
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from omnigen_actor.errors import ManifestError
from pipelines.recipes.source import open_source


def test_a_table_gives_its_cells_and_leaves_out_blank_ones(tmp_path: Path) -> None:
    path = tmp_path / "photos.jsonl"
    rows = [
        {"id": "a", "caption": "A boat.", "image": "a.jpg", "note": " "},
        {"id": 7, "caption": None, "image": "b.jpg"},
    ]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    source = open_source(str(path))
    assert source.base_folder == str(tmp_path)
    assert set(source.columns) == {"id", "caption", "image", "note"}
    found = list(source.rows())
    assert [(row.number, row.id, row.fault) for row in found] == [(1, "a", ""), (2, "7", "")]
    assert [row.cells for row in found] == [{"caption": "A boat.", "image": "a.jpg"}, {"image": "b.jpg"}]
    assert list(source.rows()) == found


def test_a_row_without_an_id_has_one_from_its_content_wherever_it_stands(tmp_path: Path) -> None:
    lines = ["caption,image", "A boat.,a.jpg", "A cat.,b.jpg"]
    (tmp_path / "one.csv").write_text("\n".join(lines))
    (tmp_path / "two.csv").write_text("\n".join([lines[0], *reversed(lines[1:])]))
    one = {row.id: row.cells for row in open_source(str(tmp_path / "one.csv")).rows()}
    two = {row.id: row.cells for row in open_source(str(tmp_path / "two.csv")).rows()}
    assert one == two
    assert all(len(row_id) == 16 for row_id in one)


def test_a_line_that_is_no_row_is_a_row_with_its_fault(tmp_path: Path) -> None:
    (tmp_path / "s.jsonl").write_text('{"caption": "x"}\n{"caption": \n')
    good, bad = open_source(str(tmp_path / "s.jsonl")).rows()
    assert good.fault == ""
    assert (bad.id, bad.cells) == ("line-2", {})
    assert bad.fault.startswith("line 2: not JSON")


def test_columns_that_json_can_not_hold_are_left_out_and_named(tmp_path: Path) -> None:
    table = pa.table(
        {
            "caption": ["x"],
            "bytes": pa.array([b"\x00"]),
            "image": pa.array([{"bytes": b"", "path": "a.jpg"}]),
            "day": pa.array([date(2020, 1, 2)]),
            "score": [float("nan")],
            "tags": [["a", "b"]],
        }
    )
    pq.write_table(table, tmp_path / "s.parquet")
    source = open_source(str(tmp_path / "s.parquet"))
    assert source.left_out == ("bytes", "image")
    (row,) = source.rows()
    assert row.cells == {"caption": "x", "day": "2020-01-02", "tags": ["a", "b"]}


def test_a_folder_of_images_is_a_source_with_the_captions_beside_them(tmp_path: Path) -> None:
    (tmp_path / "more").mkdir()
    for name in ("b.jpg", "a.PNG", "more/c.webp", "notes.md"):
        (tmp_path / name).write_bytes(b"")
    (tmp_path / "a.txt").write_text("A red boat.\n")
    source = open_source(str(tmp_path))
    assert (source.columns, source.base_folder) == (("image", "caption"), str(tmp_path))
    assert [(row.number, row.id, dict(row.cells)) for row in source.rows()] == [
        (1, "a", {"image": "a.PNG", "caption": "A red boat."}),
        (2, "b", {"image": "b.jpg"}),
        (3, "more/c", {"image": "more/c.webp"}),
    ]


def test_a_folder_of_parquet_files_is_a_table(tmp_path: Path) -> None:
    pq.write_table(pa.table({"caption": ["x", "y"]}), tmp_path / "a.parquet")
    (tmp_path / "a.jpg").write_bytes(b"")
    assert [row.cells for row in open_source(str(tmp_path)).rows()] == [{"caption": "x"}, {"caption": "y"}]


def test_what_is_no_source_is_refused_in_one_line(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "texts").mkdir()
    (tmp_path / "texts" / "a.txt").write_text("x")
    for name, reason in [
        ("nowhere", "no such file"),
        ("empty", "neither a folder with"),
        ("texts", "holds neither images"),
        ("nowhere.csv", "no such file"),
    ]:
        with pytest.raises(ManifestError, match=reason) as caught:
            open_source(str(tmp_path / name))
        assert "manifest" not in str(caught.value)


def test_a_caption_that_is_no_text_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.jpg").write_bytes(b"")
    (tmp_path / "a.txt").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ManifestError, match=r"a\.txt: is no caption"):
        list(open_source(str(tmp_path)).rows())
