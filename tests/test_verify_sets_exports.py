"""Exports of ours: whole ones pass, and each planted fault is found as what it is."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from omnigen_actor.errors import ConfigError
from pipelines.verify.findings import FindingKind
from pipelines.verify.report import Report
from pipelines.verify.sets.check import verify_set
from pipelines.verify.sets.config import SetConfig
from tests.conftest import Bucket
from tests.export_store import (
    NUM_IMAGES,
    NUM_PAIRS,
    ROWS,
    here,
    make_in,
    of_format,
    picture,
    to_export,
    write_selection,
)
from tests.verify_sets import FORMATS, copied, edit_lines, lines, rewrite_parquet, rewrite_tar, sealed, write_lines

Exports = dict[str, Path]
NUM_IN_FORMAT = dict.fromkeys(FORMATS, NUM_IMAGES) | {"omnigen2": NUM_IMAGES - 1, "pairs": NUM_PAIRS}


@pytest.fixture(scope="module")
def exports(tmp_path_factory: pytest.TempPathFactory) -> Exports:
    """One of each format, in two splits and several shards."""
    folder = tmp_path_factory.mktemp("made")
    make_in(folder)
    splits: dict[tuple[str, int], str | None] = {(one["id"], one["sample"]): "train" for one in ROWS}
    write_selection(folder / "store", "good", splits | {("blue", 0): "test", ("v1.2", 0): "test"})
    with pytest.MonkeyPatch.context() as patch, here(patch, shard_bytes=40_000):
        for image_format in sorted(FORMATS, key=lambda one: one == "pairs"):  # it adds to the store
            more = of_format(image_format, folder / "store", str(folder / "photos"))
            to_export(folder / "store", folder / image_format, image_format, **{"selection": "good"} | more)
    return {image_format: folder / image_format for image_format in FORMATS}


def check(root: Path, **settings: object) -> Report:
    return verify_set(str(root), SetConfig(**settings))  # type: ignore[arg-type]


def kinds(report: Report) -> dict[str, int]:
    return {kind.value: number for kind, number in report.counts.items()}


@pytest.mark.parametrize("image_format", FORMATS)
@pytest.mark.parametrize("is_read", [True, False])
def test_a_whole_export_passes(exports: Exports, image_format: str, *, is_read: bool) -> None:
    near = 0 if is_read else None
    report = check(exports[image_format], has_hash=is_read, has_decode=is_read, near_duplicates=near)
    assert kinds(report) == {}, report.to_json()
    assert report.kind == f"export ({image_format})"
    assert report.num_records == report.num_done == report.num_to_do == NUM_IN_FORMAT[image_format]
    if is_read:
        assert report.num_images > report.num_records


def test_paths_may_begin_with_a_place_that_the_export_was_made_for(
    exports: Exports, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with here(monkeypatch):
        store = exports["hf"].parent / "store"
        to_export(store, tmp_path / "out", "omnigen2", path_prefix="/data/my set")
    assert kinds(check(tmp_path / "out")) == {}


# --- planted faults: each edits a copy of an export, and says whether export.json tells of the edit then ---


def _rows(root: Path) -> Path:
    return root / "train.jsonl"


def _absolute_path(root: Path) -> None:
    edit_lines(_rows(root), lambda rows: rows[0].update(output_image=f"/home/me/{rows[0]['output_image']}"))


def _path_outside(root: Path) -> None:
    edit_lines(_rows(root), lambda rows: rows[0].update(output_image=f"../set/{rows[0]['output_image']}"))


def _backslashes(root: Path) -> None:
    edit_lines(_rows(root), lambda rows: rows[0].update(output_image=rows[0]["output_image"].replace("/", "\\")))


def _url(root: Path) -> None:
    edit_lines(_rows(root), lambda rows: rows[0].update(output_image="https://example.com/a.png"))


def _placeholders(root: Path) -> None:
    edit_lines(_rows(root), lambda rows: rows[0].update(instruction="make it <img><|image_7|></img>"))


def _no_instruction(root: Path) -> None:
    edit_lines(_rows(root), lambda rows: rows[-1].update(instruction=" "))


def _keys(root: Path) -> None:
    edit_lines(_rows(root), lambda rows: rows[-1].pop("task_type"))


def _first_row_empty(root: Path) -> None:
    edit_lines(_rows(root), lambda rows: rows.insert(0, rows.pop()))


def _swapped_instructions(root: Path) -> None:
    def swap(rows: list[dict[str, object]]) -> None:
        rows[-1]["instruction"], rows[-2]["instruction"] = "a car", rows[-1]["instruction"]

    edit_lines(_rows(root), swap)


def _other_text(root: Path) -> None:
    _rows(root).write_bytes(_rows(root).read_bytes().replace(b"boat", b"boot", 1))


def _row_twice(root: Path) -> None:
    edit_lines(_rows(root), lambda rows: rows.append(rows[-1]))


def _row_gone(root: Path) -> None:
    edit_lines(_rows(root), lambda rows: rows.pop())


def _bad_line(root: Path) -> None:
    with _rows(root).open("a") as file:
        file.write('{"task_type": \n')


def _too_many_inputs(root: Path) -> None:
    file = root / "train-ic.jsonl"
    edit_lines(file, lambda rows: rows[0].update(input_images=rows[0]["input_images"][:1] * 5))


def _placeholders_in_plain(root: Path) -> None:
    file = root / "train-edit.jsonl"
    edit_lines(file, lambda rows: rows[0].update(instruction="<img><|image_1|></img> make it red"))


def _in_two_splits(root: Path) -> None:
    other = lines(root / "test.jsonl")
    write_lines(root / "test.jsonl", [*other, lines(_rows(root))[-1]])


def _output(root: Path, number: int = -1) -> Path:
    return root / str(lines(_rows(root))[number]["output_image"])


def _missing_file(root: Path) -> None:
    _output(root).unlink()


def _truncated_image(root: Path) -> None:
    path = _output(root)
    path.write_bytes(path.read_bytes()[:-100])


def _swapped_images(root: Path) -> None:
    one, other = _output(root, -1), _output(root, -2)
    first = one.read_bytes()
    one.write_bytes(other.read_bytes())
    other.write_bytes(first)


def _link_out(root: Path) -> None:
    path = _output(root)
    target = root.parent / "elsewhere.png"
    shutil.move(path, target)
    path.symlink_to(target)


def _undeclared(root: Path) -> None:
    (root / "images" / "more.png").write_bytes(_output(root).read_bytes())


def _temporary(root: Path) -> None:
    (root / "images" / ".0123456789abcdef.tmp").write_bytes(b"half")


def _plan_left(root: Path) -> None:
    (root / "plan").mkdir()
    (root / "plan" / "plan.json").write_text("{}")


def _unfinished(root: Path) -> None:
    (root / "export.json").unlink()


def _bad_marker(root: Path) -> None:
    (root / "export.json").write_text('{"format": "hf"')


def _no_card(root: Path) -> None:
    (root / "README.md").unlink()


def _parquet(root: Path) -> Path:
    return max((root / "data").glob("train-*.parquet"), key=lambda path: path.stat().st_size)


def _cut_parquet(root: Path) -> None:
    _parquet(root).write_bytes(_parquet(root).read_bytes()[:-1000])


def _no_features(root: Path) -> None:
    rewrite_parquet(_parquet(root), lambda _: None, keep_metadata=False)


def _swapped_cells(root: Path) -> None:
    def swap(rows: list[dict[str, object]]) -> None:
        rows[0]["output_image"], rows[1]["output_image"] = rows[1]["output_image"], rows[0]["output_image"]

    rewrite_parquet(_parquet(root), swap)


def _series(root: Path, edit: Callable[[list[dict[str, object]]], object]) -> None:
    """Edit the inputs of the row that has three, as files of which the digests are known."""

    def find(rows: list[dict[str, object]]) -> None:
        for row in rows:
            if row["id"] == "series":
                edit(row["input_images"])  # type: ignore[arg-type]

    for path in (root / "data").glob("*.parquet"):
        rewrite_parquet(path, find)


def _swapped_inputs(root: Path) -> None:
    _series(root, lambda inputs: inputs.insert(0, inputs.pop(1)))


def _input_gone(root: Path) -> None:
    _series(root, lambda inputs: inputs.pop())


def _other_input(root: Path) -> None:
    _series(root, lambda inputs: inputs[0].update(bytes=inputs[1]["bytes"]))


def _input_gone_of_pairs(root: Path) -> None:
    def pop(rows: list[dict[str, object]]) -> None:
        for row in rows:
            row["input_images"] = row["input_images"][1:]  # type: ignore[index]

    for path in (root / "data").glob("*.parquet"):
        rewrite_parquet(path, pop)


def _other_id(root: Path) -> None:
    rewrite_parquet(_parquet(root), lambda rows: rows[0].update(id="another"))


def _duplicate_id(root: Path) -> None:
    rewrite_parquet(_parquet(root), lambda rows: rows[1].update(rows[0]))


def _bad_cell(root: Path) -> None:
    rewrite_parquet(_parquet(root), lambda rows: rows[0]["output_image"].update(bytes=b"no image"))


def _other_size(root: Path) -> None:
    rewrite_parquet(_parquet(root), lambda rows: rows[0].update(width=1024))


def _swapped_preference(root: Path) -> None:
    def swap(rows: list[dict[str, object]]) -> None:
        rows[0]["chosen_image"], rows[0]["rejected_image"] = rows[0]["rejected_image"], rows[0]["chosen_image"]

    rewrite_parquet(_parquet(root), swap)


def _swapped_preference_and_digests(root: Path) -> None:
    """Only the images themselves tell of it."""
    _swapped_preference(root)

    def swap(rows: list[dict[str, object]]) -> None:
        rows[0]["chosen_sha256"], rows[0]["rejected_sha256"] = rows[0]["rejected_sha256"], rows[0]["chosen_sha256"]

    rewrite_parquet(_parquet(root), swap)


def _other_chosen(root: Path) -> None:
    def swap(rows: list[dict[str, object]]) -> None:
        other = next(one for one in rows if one["id"] != rows[0]["id"])
        rows[0]["chosen_image"] = other["chosen_image"]

    rewrite_parquet(_parquet(root), swap)


def _bad_chosen(root: Path) -> None:
    rewrite_parquet(_parquet(root), lambda rows: rows[0]["chosen_image"].update(bytes=b"no image"))


def _bad_rejected(root: Path) -> None:
    rewrite_parquet(_parquet(root), lambda rows: rows[0]["rejected_image"].update(bytes=b"no image"))


def _no_chosen(root: Path) -> None:
    rewrite_parquet(_parquet(root), lambda rows: rows[0].update(chosen_image=None))


def _chosen_in_two_splits(root: Path) -> None:
    """In the other split the rejected image of a row is one that was chosen in this one."""
    (row,) = pq.read_table(_parquet(root)).slice(0, 1).to_pylist()
    other = next((root / "data").glob("test-*.parquet"))
    rewrite_parquet(other, lambda rows: rows[0].update(rejected_image=row["chosen_image"]))


def _tar(root: Path, group: str = "text_to_image-0") -> Path:
    return min((root / group).glob("train-*.tar"))


def _cut_tar(root: Path) -> None:
    _tar(root).write_bytes(_tar(root).read_bytes()[:-9000])


def _cut_tar_between_members(root: Path) -> None:
    """Readers take this for a shorter tar."""
    data = _tar(root).read_bytes().rstrip(b"\0")
    _tar(root).write_bytes(data + bytes(-len(data) % 512))


def _apart(root: Path) -> None:
    rewrite_tar(_tar(root), lambda members: members.append(members.pop(0)))


def _half_sample(root: Path) -> None:
    rewrite_tar(_tar(root), lambda members: members.pop(-2))


def _mixed_arity(root: Path) -> None:
    def mix(members: list[tuple[str, bytes]]) -> None:
        key = members[-1][0].partition(".")[0]
        members.insert(-2, (f"{key}.input1.png", members[-2][1]))

    rewrite_tar(_tar(root), mix)


def _tar_leads_out(root: Path) -> None:
    rewrite_tar(_tar(root), lambda members: members.append(("../../evil.png", b"")))


PLANTED: list[tuple[str, Callable[[Path], None], str]] = [
    ("omnigen", _absolute_path, "absolute_path"),
    ("omnigen", _path_outside, "path_outside"),
    ("omnigen", _link_out, "path_outside"),
    ("omnigen", _backslashes, "bad_path"),
    ("omnigen", _url, "bad_path"),
    ("omnigen", _missing_file, "image_missing"),
    ("omnigen", _truncated_image, "image_undecodable"),
    ("omnigen", _swapped_images, "mismatch"),
    ("omnigen", _swapped_instructions, "mismatch"),
    ("omnigen", _placeholders, "bad_placeholders"),
    ("omnigen", _no_instruction, "no_instruction"),
    ("omnigen", _keys, "keys_differ"),
    ("omnigen", _first_row_empty, "first_row_empty"),
    ("omnigen", _row_twice, "output_shared"),
    ("omnigen", _row_twice, "duplicate_id"),
    ("omnigen", _row_gone, "count"),
    ("omnigen", _bad_line, "row_unreadable"),
    ("omnigen", _in_two_splits, "in_two_splits"),
    ("omnigen", _undeclared, "foreign_file"),
    ("omnigen", _temporary, "temporary"),
    ("omnigen", _plan_left, "leftover"),
    ("omnigen2", _too_many_inputs, "too_many_inputs"),
    ("omnigen2", _placeholders_in_plain, "bad_placeholders"),
    ("hf", _cut_parquet, "file_unreadable"),
    ("hf", _no_features, "no_features"),
    ("hf", _swapped_cells, "image_sha256"),
    ("hf", _swapped_inputs, "mismatch"),
    ("hf", _input_gone, "mismatch"),
    ("hf", _input_gone, "bad_placeholders"),
    ("hf", _input_gone, "count"),
    ("hf", _other_input, "image_sha256"),
    ("hf", _other_id, "mismatch"),
    ("hf", _duplicate_id, "duplicate_id"),
    ("hf", _bad_cell, "image_undecodable"),
    ("hf", _other_size, "image_size"),
    ("pairs", _swapped_preference, "image_sha256"),
    ("pairs", _swapped_preference_and_digests, "mismatch"),
    ("pairs", _other_chosen, "image_sha256"),
    ("pairs", _bad_chosen, "image_undecodable"),
    ("pairs", _bad_rejected, "image_undecodable"),
    ("pairs", _no_chosen, "no_output"),
    ("pairs", _chosen_in_two_splits, "in_two_splits"),
    ("pairs", _input_gone_of_pairs, "mismatch"),
    ("pairs", _duplicate_id, "duplicate_id"),
    ("pairs", _no_features, "no_features"),
    ("webdataset", _cut_tar, "file_unreadable"),
    ("webdataset", _cut_tar_between_members, "file_unreadable"),
    ("webdataset", _apart, "split_sample"),
    ("webdataset", _half_sample, "half_sample"),
    ("webdataset", _mixed_arity, "mixed_arity"),
    ("webdataset", _tar_leads_out, "path_outside"),
]


@pytest.mark.parametrize(("image_format", "plant", "kind"), PLANTED, ids=[f"{a}{b.__name__}" for a, b, _ in PLANTED])
def test_a_fault_is_found_even_where_the_marker_was_made_to_fit(
    exports: Exports, tmp_path: Path, image_format: str, plant: Callable[[Path], None], kind: str
) -> None:
    root = copied(exports[image_format], tmp_path / "set")
    plant(root)
    sealed(root)
    report = check(root)
    assert kind in kinds(report), report.to_json()
    assert report.num_left


@pytest.mark.parametrize(
    ("plant", "kind"),
    [
        (_swapped_images, "image_sha256"),
        (_other_text, "file_sha256"),
        (_row_gone, "file_bytes"),
        (_no_card, "file_missing"),
        (_unfinished, "unfinished"),
        (_bad_marker, "marker"),
    ],
)
def test_what_contradicts_the_marker_is_found(
    exports: Exports, tmp_path: Path, plant: Callable[[Path], None], kind: str
) -> None:
    root = copied(exports["omnigen"], tmp_path / "set")
    plant(root)
    assert kind in kinds(check(root))


def test_sizes_alone_tell_of_a_cut_image_without_reading_any(exports: Exports, tmp_path: Path) -> None:
    root = copied(exports["omnigen"], tmp_path / "set")
    _truncated_image(root)
    assert kinds(check(root, has_hash=False, has_decode=False)) == {"image_bytes": 1}


def test_an_export_that_was_cut_off_on_the_way_is_unfinished(tmp_path: Path) -> None:
    (tmp_path / "plan").mkdir()
    (tmp_path / "plan" / "plan.json").write_text('{"plan": "0"}')
    assert kinds(check(tmp_path)) == {"unfinished": 1}


def test_only_leftovers_are_removed(exports: Exports, tmp_path: Path) -> None:
    root = copied(exports["omnigen"], tmp_path / "set")
    for plant in (_temporary, _plan_left, _undeclared):
        plant(root)
    report = verify_set(str(root), SetConfig(), fix=True)
    assert dict(report.mended) == {FindingKind.TEMPORARY: 1, FindingKind.LEFTOVER: 1}
    assert kinds(check(root)) == {"foreign_file": 1}


def test_images_that_look_alike_must_not_be_in_two_splits(exports: Exports, tmp_path: Path) -> None:
    """The same picture, one of them a little smaller: no byte and no pixel is equal."""
    root = tmp_path / "set"
    for split, size in (("train", (256, 256)), ("test", (250, 250))):
        (root / split).mkdir(parents=True)
        picture(3).resize((256, 256)).resize(size).save(root / split / "a.png")
        write_lines(root / f"{split}.jsonl", [{"instruction": "x", "output_image": f"{split}/a.png"}])
    assert kinds(check(root)) == {}
    assert kinds(check(root, near_duplicates=4)) == {"near_duplicate": 1}
    assert "near_duplicate" not in kinds(check(exports["hf"], near_duplicates=0))


def test_settings_that_cannot_be_are_refused(exports: Exports) -> None:
    with pytest.raises(ConfigError, match="leave out --quick"):
        SetConfig(has_hash=False, has_decode=False, near_duplicates=4)
    with pytest.raises(ConfigError, match="radius=99"):
        SetConfig(near_duplicates=99)
    with pytest.raises(ConfigError, match="image_root="):
        check(exports["hf"], image_root="/tmp")


@pytest.mark.slow
@pytest.mark.parametrize("image_format", FORMATS)
def test_a_whole_export_loads_in_its_libraries(exports: Exports, image_format: str) -> None:
    report = check(exports[image_format], has_load=True)
    assert kinds(report) == {}, report.to_json()


@pytest.mark.slow
def test_what_a_library_cannot_load_is_found(exports: Exports, tmp_path: Path) -> None:
    """Rows that have an input more than the first ones."""
    root = copied(exports["webdataset"], tmp_path / "set")
    _mixed_arity(root)
    found = check(_tar(root), has_load=True)
    assert {"load_failed", "mixed_arity"} <= set(kinds(found)), found.to_json()


@pytest.mark.s3
def test_an_export_on_s3_is_checked(exports: Exports, s3: Bucket) -> None:
    for path in sorted(exports["omnigen"].rglob("*")):
        if path.is_file():
            s3.put(f"set/{path.relative_to(exports['omnigen']).as_posix()}", path.read_bytes())
    root = f"{s3.uri}/set"
    assert kinds(verify_set(root, SetConfig())) == {}
    rows = lines(exports["omnigen"] / "train.jsonl")
    s3.client.delete_object(Bucket=s3.name, Key=f"set/{rows[-1]['output_image']}")
    s3.put("set/more.png", b"x")
    assert kinds(verify_set(root, SetConfig())) == {"image_missing": 1, "foreign_file": 1}
    with pytest.raises(ConfigError, match="copy the set"):
        verify_set(root, SetConfig(has_load=True))
