"""Files as people write them, broken in every way, through the real readers."""

from __future__ import annotations

import csv
import gzip
import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from omnigen_actor.errors import ManifestError
from omnigen_actor.schema import LINE_ERROR
from pipelines.check import check_table, planned_schema
from pipelines.config import GenerationConfig
from pipelines.manifest import Manifest, open_manifest
from pipelines.table import EXTENSIONS

GENERATION = GenerationConfig()
ROWS: list[dict[str, Any]] = [
    {"id": "a", "task": "text_to_image", "instruction": 'A "cat", sleeping.', "note": "first"},
    {"id": "b", "task": "edit", "instruction": "Zwei\nZeilen: ü 猫", "images": ["in.png"], "steps": 7},
    {"id": None, "task": "compose", "instruction": "<|image_1|> <|image_2|>", "images": ["a b.png", "s3://b/c,d.png"]},
    {"id": "d", "task": "text_to_image", "instruction": "x", "width": 100, "height": 64, "guidance_scale": 1.5},
    {"id": "e", "task": "text_to_image", "instruction": "x", "width": 0, "height": 64, "seed": 2**63 - 1},
    {"id": "f", "task": "nope", "instruction": "x", "num_samples": 2, "negative_prompt": "ugly", "note": "last"},
    {"id": "g", "task": "edit", "instruction": "x", "img_guidance_scale": -1.0},
]
COLUMNS = list(dict.fromkeys(name for row in ROWS for name in row))


def write_text(path: Path, text: str | bytes) -> Path:
    data = text.encode() if isinstance(text, str) else text
    path.write_bytes(gzip.compress(data) if path.suffix == ".gz" else data)
    return path


def write_jsonl(path: Path, rows: list[dict[str, Any]]) -> Path:
    return write_text(path, "".join(json.dumps(row) + "\n" for row in rows))


def write_csv(path: Path, rows: list[dict[str, Any]]) -> Path:
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, COLUMNS)
        writer.writeheader()
        for row in rows:
            images = row.get("images")
            writer.writerow(
                {**row, "images": images[0] if images and len(images) == 1 else images and json.dumps(images)}
            )
    return path


def write_parquet(path: Path, rows: list[dict[str, Any]]) -> Path:
    fields = sorted({name for row in rows for name in row})
    pq.write_table(pa.Table.from_pylist([{name: row.get(name) for name in fields} for row in rows]), path)
    return path


def plan(manifest: Manifest) -> list[dict[str, Any]]:
    tables = [check_table(batch, GENERATION, manifest.base_folder) for batch in manifest.batches()]
    expected = planned_schema(manifest.schema)
    assert all(table.schema == expected for table in tables)
    return [row for table in tables for row in table.to_pylist()]


def read(manifest: Manifest) -> list[dict[str, Any]]:
    return [row for batch in manifest.batches() for row in batch.to_pylist()]


def test_the_same_rows_give_the_same_plan_in_every_format(tmp_path: Path) -> None:
    text = "".join(json.dumps(row) + "\n" for row in ROWS)
    files = [
        write_parquet(tmp_path / "m.parquet", ROWS),
        write_jsonl(tmp_path / "m.jsonl", ROWS),
        write_jsonl(tmp_path / "m.ndjson", ROWS),
        write_jsonl(tmp_path / "m.json", ROWS),
        write_text(tmp_path / "m.jsonl.gz", text),
        write_csv(tmp_path / "m.csv", ROWS),
    ]
    files.append(write_text(tmp_path / "m.csv.gz", files[-1].read_bytes()))
    plans = []
    for file in files:
        rows = plan(open_manifest(str(file)))
        plans.append([{**row, "note": row["note"] or None} for row in rows])  # a CSV has no null for a user's column
    assert [row["id"] for row in plans[0]][:2] == ["a", "b"]
    assert [row["error_kind"] for row in plans[0]] == [None] * 4 + ["bad_size"] + ["unknown_task"] * 2 + [
        "bad_image_count"
    ]
    assert plans[0][2]["image_uris"] == [str(tmp_path / "a b.png"), "s3://b/c,d.png"]
    for file, found in zip(files, plans, strict=True):
        assert found == plans[0], file.name


def test_batches_start_anew_at_every_call_and_are_bounded(tmp_path: Path) -> None:
    rows = [{**ROWS[0], "id": str(number)} for number in range(10_000)]
    for file in (
        write_jsonl(tmp_path / "m.jsonl", rows),
        write_csv(tmp_path / "m.csv", rows),
        write_parquet(tmp_path / "m.parquet", rows),
    ):
        manifest = open_manifest(str(file))
        assert [row["id"] for row in read(manifest)] == [row["id"] for row in read(manifest)]
        assert [row["id"] for row in read(manifest)] == [row["id"] for row in rows]
        assert max(batch.num_rows for batch in manifest.batches()) <= 4096


def test_a_relative_path_is_found_and_images_are_relative_to_the_manifest(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "data").mkdir()
    write_jsonl(tmp_path / "data" / "m.jsonl", ROWS)
    monkeypatch.chdir(tmp_path)
    manifest = open_manifest("data/m.jsonl")
    assert manifest.base_folder == str(tmp_path / "data")
    assert open_manifest((tmp_path / "data" / "m.jsonl").as_uri()).base_folder == str(tmp_path / "data")


def test_a_manifest_is_read_through_any_file_system() -> None:
    import fsspec

    with fsspec.open("memory://bucket/folder/m.jsonl", "w") as file:
        file.write(json.dumps(ROWS[1]))
    manifest = open_manifest("memory://bucket/folder/m.jsonl")
    assert plan(manifest)[0]["image_uris"] == ["memory://bucket/folder/in.png"]


# --- Parquet ---


def test_a_folder_of_parquet_files_is_one_manifest(tmp_path: Path) -> None:
    folder = tmp_path / "rows.parquet"  # as Spark names its folders
    folder.mkdir()
    write_parquet(folder / "b.parquet", [{**ROWS[0], "id": "2", "score": 0.5, "extra": "x"}])
    write_parquet(folder / "a.parquet", [{**ROWS[0], "id": 1, "score": 1, "note": None}])
    manifest = open_manifest(str(folder))
    assert manifest.base_folder == str(folder)
    assert [(row["id"], row["score"], row["note"], row["extra"]) for row in plan(manifest)] == [
        ("1", 1.0, None, None),
        ("2", 0.5, "first", "x"),
    ]


def test_parquet_files_whose_types_can_not_be_joined_are_refused(tmp_path: Path) -> None:
    write_parquet(tmp_path / "a.parquet", [{**ROWS[0], "score": 1}])
    write_parquet(tmp_path / "b.parquet", [{**ROWS[0], "score": "high"}])
    with pytest.raises(ManifestError, match="score"):
        open_manifest(str(tmp_path))


def test_users_parquet_types_are_kept(tmp_path: Path) -> None:
    table = pa.table({"task": ["edit"], "instruction": ["x"], "tags": pa.array([["a"]], pa.list_(pa.large_string()))})
    pq.write_table(table, tmp_path / "m.parquet")
    manifest = open_manifest(str(tmp_path / "m.parquet"))
    (batch,) = manifest.batches()
    assert batch.schema.field("tags").type == manifest.schema.field("tags").type == table.schema.field("tags").type


def test_an_unreadable_parquet_file_is_one_clear_line(tmp_path: Path) -> None:
    good = write_parquet(tmp_path / "m.parquet", ROWS).read_bytes()
    for data in (b"not parquet", b"", good[:-20], good[:10]):
        (tmp_path / "m.parquet").write_bytes(data)
        with pytest.raises(ManifestError, match=r"m\.parquet: can't be read: ") as caught:
            open_manifest(str(tmp_path / "m.parquet"))
        assert "\n" not in str(caught.value)


def test_parquet_pages_that_break_in_the_middle_are_one_clear_line(tmp_path: Path) -> None:
    file = write_parquet(tmp_path / "m.parquet", [{**ROWS[0], "id": f"{number:032x}"} for number in range(2000)])
    data = bytearray(file.read_bytes())
    data[100 : len(data) // 2] = bytes(len(data) // 2 - 100)  # the footer stays whole
    file.write_bytes(data)
    manifest = open_manifest(str(file))
    with pytest.raises(ManifestError, match="can't be read"):
        list(manifest.batches())


def test_parquet_columns_of_one_name_are_refused(tmp_path: Path) -> None:
    columns = [pa.array(["edit"]), pa.array(["x"]), pa.array(["y"])]
    pq.write_table(pa.Table.from_arrays(columns, ["task", "instruction", "task"]), tmp_path / "m.parquet")
    with pytest.raises(ManifestError, match="'task' more than once"):
        open_manifest(str(tmp_path / "m.parquet"))


# --- JSON lines ---


def user_column(tmp_path: Path, *cells: object) -> tuple[pa.DataType, list[object]]:
    rows = [{"task": "text_to_image", "instruction": str(n), "user": cell} for n, cell in enumerate(cells)]
    manifest = open_manifest(str(write_jsonl(tmp_path / "m.jsonl", rows)))
    return manifest.schema.field("user").type, [row["user"] for row in plan(manifest)]


@pytest.mark.parametrize(
    ("cells", "expected", "read_as"),
    [
        ([None, 1, 2], pa.int64(), None),
        ([1, 0.5, None], pa.float64(), [1.0, 0.5, None]),
        ([True, None], pa.bool_(), None),
        ([None, "x"], pa.string(), None),
        ([None, None], pa.string(), None),
        ([[], None, ["x", None]], pa.list_(pa.string()), None),
        ([1, "1"], pa.string(), ["1", '"1"']),
        ([True, 1], pa.string(), ["true", "1"]),
        ([{"a": ["ü"]}, None], pa.string(), ['{"a": ["ü"]}', None]),
        ([[1], []], pa.string(), ["[1]", "[]"]),
        ([2**70, 1], pa.string(), [str(2**70), "1"]),
        ([2**53 + 1, 0.5], pa.string(), [str(2**53 + 1), "0.5"]),
        ([2**53 + 1, 1], pa.int64(), None),
    ],
)
def test_a_users_json_column_has_the_type_of_the_whole_file(
    tmp_path: Path, cells: list[object], expected: pa.DataType, read_as: list[object] | None
) -> None:
    assert user_column(tmp_path, *cells) == (expected, cells if read_as is None else read_as)


def test_a_type_that_changes_after_many_rows_breaks_nothing(tmp_path: Path) -> None:
    found, cells = user_column(tmp_path, *([[]] * 9000), ["late"], None)
    assert found == pa.list_(pa.string())
    assert cells[-2:] == [["late"], None]


def test_our_columns_are_judged_row_by_row_however_their_types_mix(tmp_path: Path) -> None:
    base = {"task": "text_to_image", "instruction": "x", "height": 512}
    widths: list[object] = [512, "512", 512.0, 512.5, "big", None, True, {"a": 512}, 2**80]
    rows = [{**base, "id": n, "width": width} for n, width in enumerate(widths)]
    found = plan(open_manifest(str(write_jsonl(tmp_path / "m.jsonl", rows))))
    assert [row["error_kind"] for row in found] == [None] * 3 + ["bad_size"] * 6
    alone = [plan(open_manifest(str(write_jsonl(tmp_path / "one.jsonl", [row]))))[0] for row in rows[:-1]]
    assert found[:-1] == alone


def test_a_large_seed_beside_a_float_stays_exact(tmp_path: Path) -> None:
    rows = [{"task": "text_to_image", "instruction": str(seed), "seed": seed} for seed in (2**62 + 1, 1.0)]
    assert [row["seed"] for row in plan(open_manifest(str(write_jsonl(tmp_path / "m.jsonl", rows))))] == [2**62 + 1, 1]


BAD_LINES = {
    b"not json": "not JSON",
    b'{"task": "edit",': "not JSON",
    b"[1, 2]": "a JSON list",
    b'"text"': "a JSON str",
    b"null": "a JSON NoneType",
    b'{"task": "\xff"}': "not UTF-8",
    b'{"task": "\\ud800"}': "surrogate",
    b'{"a": ' + b"[" * 150 + b"]" * 150 + b"}": "nested more than 100 deep",
    b"[" * 100_000: "not JSON that can be read",
    b'{"seed": ' + b"9" * 5000 + b"}": "not JSON that can be read",
    b'{"__line_error__": {"line": 1}}': "reserved",
    b" " * (16 * 2**20) + b"{}": "longer than 16777216 bytes",
}


@pytest.mark.parametrize("line", BAD_LINES, ids=lambda line: line[:20])
def test_a_line_that_is_no_object_becomes_a_failed_row(tmp_path: Path, line: bytes) -> None:
    good = json.dumps(ROWS[0]).encode()
    file = write_text(tmp_path / "m.jsonl", b"\n".join([good, b"", line, good.replace(b'"a"', b'"z"')]))
    first, bad, last = plan(open_manifest(str(file)))
    assert (first["id"], bad["id"], last["id"]) == ("a", "line-3", "z")
    assert (first["error"], last["error"]) == (None, None)
    assert (bad["error_kind"], bad["error_stage"], bad["note"]) == ("bad_row", "check", None)
    assert bad["error"].startswith("line 3: ")
    assert BAD_LINES[line] in bad["error"]
    assert len(bad["error"]) < 300


def test_a_byte_order_mark_and_windows_line_ends_are_read(tmp_path: Path) -> None:
    text = "\ufeff" + "\r\n".join(json.dumps(row) for row in ROWS)
    assert len(read(open_manifest(str(write_text(tmp_path / "m.jsonl", text))))) == len(ROWS)


@pytest.mark.parametrize("text", ["[\n" + json.dumps(ROWS[0]) + ",\n" + json.dumps(ROWS[1]) + "\n]", json.dumps(ROWS)])
def test_a_json_array_is_refused_with_the_remedy(tmp_path: Path, text: str) -> None:
    with pytest.raises(ManifestError, match="JSON array; write one object per line"):
        open_manifest(str(write_text(tmp_path / "m.json", text)))


def test_a_file_without_any_object_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ManifestError, match="no line is a JSON object; line 1: not JSON"):
        open_manifest(str(write_text(tmp_path / "m.json", json.dumps(ROWS[0], indent=2))))


def test_columns_without_end_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ManifestError, match="more than 1000 columns"):
        open_manifest(str(write_jsonl(tmp_path / "m.jsonl", [{str(n): 1 for n in range(1001)}])))


# --- CSV ---

HEADER = "id,task,instruction,score\n"


def test_users_csv_columns_are_strings_untouched(tmp_path: Path) -> None:
    file = write_text(tmp_path / "m.csv", HEADER + "a,text_to_image,x, 01.50 \nb,text_to_image,x,\n")
    assert [row["score"] for row in plan(open_manifest(str(file)))] == [" 01.50 ", ""]


@pytest.mark.parametrize(
    ("lines", "words"),
    [
        ("a,text_to_image\n", "line 3: 2 fields, and the header has 4"),
        ("a,text_to_image,a cat, a dog,1,2\n", "line 3: 6 fields"),
        ('a,text_to_image,"a" cat,1\n', "line 3: "),
        (b"a,text_to_image,\xff\xfe,1\n", "line 3: not UTF-8"),
        (f"a,text_to_image,{'x' * 200_000},1\n", "line 3: field larger than"),
        ('a,text_to_image,"open,1\nb,text_to_image,"x",2\n', "lines 3 to 4: "),
    ],
)
def test_a_csv_line_that_is_no_row_becomes_a_failed_row(tmp_path: Path, lines: str | bytes, words: str) -> None:
    bad_lines = lines.encode() if isinstance(lines, str) else lines
    text = HEADER.encode() + b"first,text_to_image,x,1\n" + bad_lines + b"\nlast,text_to_image,x,1\n"
    first, bad, last = plan(open_manifest(str(write_text(tmp_path / "m.csv", text))))
    assert (first["id"], bad["id"], last["id"]) == ("first", "line-3", "last")
    assert (first["error"], last["error"]) == (None, None)
    assert (bad["error_kind"], bad["score"]) == ("bad_row", None)
    assert bad["error"].startswith(words)


def test_a_quote_that_never_ends_is_a_failed_row(tmp_path: Path) -> None:
    file = write_text(tmp_path / "m.csv", HEADER + 'a,text_to_image,x,1\nb,text_to_image,"x,1\nc,text_to_image,x,1\n')
    assert [row["error_kind"] for row in plan(open_manifest(str(file)))] == [None, "bad_row"]


def test_a_header_with_one_name_twice_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ManifestError, match="'id' more than once"):
        open_manifest(str(write_text(tmp_path / "m.csv", "id,task,id,instruction\n1,2,3,4\n")))


def test_a_header_cell_without_a_name_gets_one(tmp_path: Path) -> None:
    file = write_text(tmp_path / "m.csv", "\ufeff,task,instruction\n0,text_to_image,x\n")
    assert plan(open_manifest(str(file)))[0]["column_1"] == "0"


# --- what stops a run before it starts ---


def message_of(path: Path | str) -> str:
    with pytest.raises(ManifestError) as caught:
        open_manifest(str(path))
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize("name", ["m.jsonl", "m.csv.gz", "m.parquet", "m.xlsx", "folder"])
def test_a_missing_manifest_is_named(tmp_path: Path, name: str) -> None:
    assert f"{tmp_path / name}: no such file or folder" in message_of(tmp_path / name)


def test_a_missing_manifest_is_named_without_its_secrets() -> None:
    message = message_of("nope://user:hunter2@host/m.jsonl")
    assert "hunter2" not in message
    assert "nope" in message


@pytest.mark.parametrize("name", ["m.xlsx", "m.tsv", "manifest"])
def test_an_unknown_extension_lists_the_known_ones(tmp_path: Path, name: str) -> None:
    message = message_of(write_text(tmp_path / name, "x"))
    assert [extension for extension in EXTENSIONS if extension not in message] == []


def test_a_manifest_without_rows_is_refused(tmp_path: Path) -> None:
    empty = pa.schema([("task", pa.string()), ("instruction", pa.string())]).empty_table()
    pq.write_table(empty, tmp_path / "m.parquet")
    files = [
        write_text(tmp_path / "m.jsonl", "\n \n"),
        write_text(tmp_path / "m.jsonl.gz", ""),
        write_text(tmp_path / "m.csv", HEADER),
        write_text(tmp_path / "n.csv", ""),
        tmp_path / "m.parquet",
    ]
    for file in files:
        message = message_of(file)
        assert "has no rows" in message or "is empty" in message, file.name


def test_missing_columns_are_named_with_the_found_and_the_nearest(tmp_path: Path) -> None:
    row = {"tasks": "edit", "instructions": "x", "input_images": []}
    for file in (write_jsonl(tmp_path / "m.jsonl", [row]), write_parquet(tmp_path / "m.parquet", [row])):
        message = message_of(file)
        assert "lacks the required columns task, instruction" in message
        assert "input_images" in message
        assert "rename 'tasks', 'instructions'?" in message
    assert "lacks the required column task;" in message_of(write_text(tmp_path / "m.csv", "instruction\nx\n"))


def test_a_cut_gz_file_is_one_clear_line(tmp_path: Path) -> None:
    lines = "".join(json.dumps({**ROWS[0], "id": str(n)}) + "\n" for n in range(1000))
    file = write_text(tmp_path / "m.jsonl.gz", lines)
    for data in (file.read_bytes()[:200], b"no gzip"):
        file.write_bytes(data)
        assert "m.jsonl.gz: can't be read" in message_of(file)


def test_the_line_error_column_is_never_a_users() -> None:
    assert LINE_ERROR.name not in planned_schema(pa.schema([LINE_ERROR])).names
