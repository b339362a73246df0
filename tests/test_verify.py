"""A store with one fault at a time: what is found, what mends it, and what is left alone."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from omnigen_actor import store, uri
from omnigen_actor.actor import OmniGenActor
from omnigen_actor.errors import ConfigError, OutputError
from omnigen_actor.fake import FakeEngine
from omnigen_actor.schema import FETCHED, RECORD, with_user_fields
from pipelines import lease
from pipelines.ledger import Ledger, Standing, digest
from pipelines.records import WriteRecords
from pipelines.verify.findings import FindingKind
from pipelines.verify.pool import in_order
from pipelines.verify.report import MAX_FINDINGS, Report
from pipelines.verify.store_check import VerifyConfig, verify
from tests.conftest import Bucket

RUN, EARLIER = "20260101T120000Z-0a0b0c", "20251231T120000Z-0a0b0c"
IDS = ("boat", "a cat", "dog", "[fail]")
NUM_IMAGES = 3

Spoil = Callable[[Path], None]


def fetched(*ids: str, attempt: int = 1, seed: int = 5) -> pa.Table:
    row = {
        "sample": 0, "attempt": attempt, "task": "text_to_image", "images": [], "parents": [], "depth": 0,
        "image_uris": [], "width": 32, "height": 48, "seed": seed, "steps": 4, "guidance_scale": 2.5,
        "img_guidance_scale": 1.6, "image_sha256": [], "pixels": [], "pixel_sizes": [], "fetch_seconds": 0.25,
    }  # fmt: skip
    rows = [
        row | {"id": one, "instruction": one, "prompt": one, "row_hash": hashlib.sha256(one.encode()).hexdigest()}
        for one in ids
    ]
    labels = pa.array([f"label of {one}" for one in ids])
    return pa.Table.from_pylist(rows, schema=FETCHED).append_column("label", labels)


def generate(root: str, *ids: str, run_id: str = RUN, image_format: str = "png", **more: Any) -> pa.Table:
    """What a run does with one batch: images, then records."""
    actor = OmniGenActor(FakeEngine, store_root=root, run_id=run_id, image_format=image_format)
    records = actor(fetched(*ids, **more))
    actor.close()
    WriteRecords(root, run_id)(records)
    return records


def make_store(root: str) -> None:
    """Three rows with an image, one that failed, in two batches; and the accounts of the run."""
    generate(root, *IDS[:2])
    generate(root, *IDS[2:])
    uri.write_bytes(uri.join(root, "run.json"), json.dumps({"fingerprint": {}, "runs": [{"run_id": RUN}]}).encode())
    counts = {"num_in": 4, "num_ok": 3, "num_failed": 1, "num_skipped": 0}
    uri.write_bytes(uri.join(root, "summary.json"), json.dumps(counts).encode())
    uri.write_bytes(uri.join(root, f"plan/{RUN}/part-00000.parquet"), b"read by nobody any more")


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("made") / "store"
    make_store(str(root))
    return root


@pytest.fixture
def root(made: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(made, tmp_path / "store"))


def check(root: Path | str, *, fix: bool = False, **config: Any) -> Report:
    return verify(str(root), VerifyConfig(**config), fix=fix)


def kinds(report: Report) -> list[str]:
    return [finding.kind.value for finding in report.findings]


def image(root: Path, row_id: str = "boat", extension: str = ".png") -> Path:
    return root / store.image_key(row_id, 0, extension)


def records_file(root: Path, row_id: str = "boat") -> Path:
    (found,) = [file for file in (root / "records").iterdir() if row_id in pq.read_table(file)["id"].to_pylist()]
    return found


def change_record(root: Path, row_id: str, **values: Any) -> None:
    """Rewrite the record of one row."""
    file = records_file(root, row_id)
    table = pq.read_table(file)
    rows = [row | values if row["id"] == row_id else row for row in table.to_pylist()]
    pq.write_table(pa.Table.from_pylist(rows, schema=table.schema), file)


def standing(root: Path | str, *ids: str) -> list[Standing]:
    """What the next run makes of these rows."""
    return [Standing(one) for one in Ledger.load(str(root)).stand(digest(fetched(*ids)))]


def files(root: Path) -> dict[str, bytes]:
    return {path.relative_to(root).as_posix(): path.read_bytes() for path in root.rglob("*") if path.is_file()}


# --- faults ---


def remove_image(root: Path) -> None:
    image(root).unlink()


def cut_off(root: Path) -> None:
    image(root).write_bytes(image(root).read_bytes()[:-9])


def make_longer(root: Path) -> None:
    image(root).write_bytes(image(root).read_bytes() + b"more")


def flip_bit(root: Path) -> None:
    data = bytearray(image(root).read_bytes())
    data[len(data) // 2] ^= 1
    image(root).write_bytes(bytes(data))


def write_no_picture(root: Path) -> None:
    data = b"no picture, and its record has its sum"
    image(root).write_bytes(data)
    change_record(root, "boat", num_bytes=len(data), sha256=hashlib.sha256(data).hexdigest())


def tell_another_size(root: Path) -> None:
    change_record(root, "boat", width=64)


def name_outside(root: Path) -> None:
    (root.parent / "secret.png").write_bytes(image(root).read_bytes())
    image(root).unlink()
    change_record(root, "boat", output_key="../secret.png")


def name_absolute(root: Path) -> None:
    image(root).unlink()
    change_record(root, "boat", output_key="/etc/hostname")


def name_a_neighbours_image(root: Path) -> None:
    change_record(root, "boat", output_key=store.image_key("dog", 0, ".png"))
    image(root).unlink()


def name_it_in_two_lines(root: Path) -> None:
    image(root).unlink()
    change_record(root, "boat", output_key="images/\n\0/boat-0.png")


def tell_more_bytes_than_there_is_memory(root: Path) -> None:
    change_record(root, "boat", num_bytes=2**62)


def tell_fewer_bytes_than_none(root: Path) -> None:
    change_record(root, "boat", num_bytes=-1)


def name_nothing(root: Path) -> None:
    change_record(root, "boat", output_key=None)
    image(root).unlink()


def contradict(root: Path) -> None:
    """Two runs at the same time that made the row differently: nobody can say whose image there is."""
    generate(str(root), "boat", seed=6)


LOST = [
    (remove_image, FindingKind.IMAGE_MISSING),
    (cut_off, FindingKind.IMAGE_BYTES),
    (make_longer, FindingKind.IMAGE_BYTES),
    (flip_bit, FindingKind.IMAGE_SHA256),
    (write_no_picture, FindingKind.IMAGE_UNDECODABLE),
    (tell_another_size, FindingKind.IMAGE_SIZE),
    (name_outside, FindingKind.BAD_KEY),
    (name_absolute, FindingKind.BAD_KEY),
    (name_a_neighbours_image, FindingKind.BAD_KEY),
    (name_it_in_two_lines, FindingKind.BAD_KEY),
    (name_nothing, FindingKind.BAD_KEY),
    (tell_more_bytes_than_there_is_memory, FindingKind.IMAGE_BYTES),
    (tell_fewer_bytes_than_none, FindingKind.IMAGE_BYTES),
    (contradict, FindingKind.RECORD_DOUBLED),
]


def test_a_store_of_a_run_is_whole(root: Path) -> None:
    before = files(root)
    for fix in (False, True):
        report = check(root, fix=fix)
        assert kinds(report) == []
        sizes = [len(data) for key, data in before.items() if key.startswith("images/")]
        assert (report.num_records, report.num_images, report.num_bytes) == (4, NUM_IMAGES, sum(sizes))
    assert files(root) == before


@pytest.mark.parametrize(("spoil", "kind"), LOST, ids=lambda one: getattr(one, "__name__", str(one)))
def test_a_lost_image_is_found_and_made_again_by_the_next_run(root: Path, spoil: Spoil, kind: FindingKind) -> None:
    spoil(root)
    before = files(root)
    report = check(root)
    assert kinds(report) == [kind]
    assert report.findings[0].is_safe
    assert files(root) == before

    assert check(root, fix=True).num_left == 0
    assert standing(root, *IDS) == [Standing.AGAIN, Standing.OK, Standing.OK, Standing.FAILED]
    assert not image(root).exists()
    assert all(image(root, one).is_file() for one in ("a cat", "dog"))
    assert (root.parent / "secret.png").exists() == (spoil is name_outside)
    after = files(root)
    for _ in range(2):  # clean, and nothing more to do
        assert kinds(check(root, fix=True)) == []
    assert files(root) == after

    attempt = Ledger.load(str(root)).next_attempt(fetched("boat"))["attempt"][0].as_py()
    generate(str(root), "boat", attempt=attempt)
    assert kinds(check(root)) == []
    assert standing(root, "boat") == [Standing.OK]


def test_the_record_of_a_lost_image_says_so_and_keeps_the_users_columns(root: Path) -> None:
    flip_bit(root)
    names = {file.name for file in (root / "records").iterdir()}
    check(root, fix=True)
    (new,) = [file for file in (root / "records").iterdir() if file.name not in names]
    table = pq.read_table(new)
    assert table.schema == with_user_fields(RECORD, [pa.field("label", pa.string())])
    (record,) = table.to_pylist()
    (old,) = [row for row in pq.read_table(records_file_before(root, names)).to_pylist() if row["id"] == "boat"]
    changed = {name for name in record if record[name] != old[name]}
    assert changed == {
        "attempt", "status", "error_kind", "error_stage", "error", "output_key", "format", "num_bytes", "sha256",
        "num_tokens", "finished_at",
    }  # fmt: skip
    assert (record["attempt"], record["status"], record["error_kind"]) == (2, "failed", "image_lost")
    assert "image_sha256" in record["error"]
    assert record["label"] == "label of boat"


def records_file_before(root: Path, names: set[str]) -> Path:
    return next(
        root / "records" / name for name in names if "boat" in pq.read_table(root / "records" / name)["id"].to_pylist()
    )


def test_records_of_an_older_store_are_superseded_too(root: Path) -> None:
    file = records_file(root)
    pq.write_table(pq.read_table(file).drop_columns(["approximations", "adapters"]), file)
    remove_image(root)
    assert check(root, fix=True).num_left == 0
    assert standing(root, "boat") == [Standing.AGAIN]


def test_two_records_that_agree_become_one(root: Path) -> None:
    file = records_file(root)
    shutil.copy(file, file.with_name(f"{RUN}-copy.parquet"))
    report = check(root)
    assert kinds(report) == ["record_doubled"] * 2
    before = [image(root, one).read_bytes() for one in IDS[:2]]
    assert check(root, fix=True).num_left == 0
    assert kinds(check(root)) == []
    assert standing(root, *IDS[:2]) == [Standing.OK] * 2
    assert [image(root, one).read_bytes() for one in IDS[:2]] == before
    assert len(Ledger.load(str(root)).doubled) == 0


def test_an_orphan_is_removed_and_no_image_that_a_record_names(root: Path) -> None:
    generate(str(root), "dog", attempt=2, image_format="webp")  # its .png is of an older attempt
    crashed = root / store.image_key("never recorded", 0, ".png")
    crashed.parent.mkdir(exist_ok=True)
    crashed.write_bytes(b"x")
    report = check(root)
    assert sorted(finding.key for finding in report.findings) == sorted(
        [store.image_key("dog", 0, ".png"), store.image_key("never recorded", 0, ".png")]
    )
    assert set(kinds(report)) == {"orphan_image"}
    assert check(root, fix=True).num_left == 0
    assert not crashed.exists()
    assert not image(root, "dog").exists()
    assert image(root, "dog", ".webp").is_file()
    assert kinds(check(root)) == []


def test_an_image_of_a_row_that_failed_later_is_an_orphan(root: Path) -> None:
    image(root, "[fail]").parent.mkdir(exist_ok=True)
    image(root, "[fail]").write_bytes(b"of an earlier attempt")
    assert kinds(check(root)) == ["orphan_image"]


def test_files_that_no_run_writes_are_left_alone(root: Path) -> None:
    foreign = [root / "images" / "notes.txt", image(root).parent / "thumbs.db", image(root).parent / "boat-0.gif"]
    for path in foreign:
        path.write_text("mine")
    (image(root).parent / "sub").mkdir()
    report = check(root, fix=True)
    assert set(kinds(report)) == {"foreign_file"}
    assert report.num_left == report.counts.total() == 4
    assert all(path.is_file() for path in foreign)


@pytest.mark.parametrize(
    "folder", ["", "images/ab", "records", f"metrics/{RUN}", f"plan/{RUN}", "scores/clip", "selections/a"]
)
def test_half_written_files_are_removed(root: Path, folder: str) -> None:
    place = root / folder / ".0123456789abcdef.tmp"
    place.parent.mkdir(parents=True, exist_ok=True)
    place.write_bytes(b"half")
    report = check(root, fix=True)
    assert [(one.kind, one.key) for one in report.findings] == [("temporary", place.relative_to(root).as_posix())]
    assert not place.exists()
    assert kinds(check(root)) == []


def test_what_a_killed_write_leaves_behind_has_such_a_name(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(Path, "replace", lambda *_: (_ for _ in ()).throw(OSError("killed")))
        patch.setattr(Path, "unlink", lambda *_, **__: None)
        with pytest.raises(uri.UriFailed):
            uri.write_bytes(str(image(root)), b"x")
        with pytest.raises(OutputError):
            store.check_writable(str(root))
    assert kinds(check(root)) == ["temporary"] * 2


def test_plans_and_diaries_of_runs_that_are_over_are_removed(root: Path) -> None:
    for key in (f"plan/{EARLIER}/part-00000.parquet", f"attempts/{RUN}/0.json", "plan/mine/part.parquet"):
        (root / key).parent.mkdir(parents=True, exist_ok=True)
        (root / key).write_bytes(b"{}")
    report = check(root, fix=True)
    assert [(one.kind, one.key) for one in report.findings] == [
        ("leftover", f"plan/{EARLIER}/"),
        ("leftover", f"attempts/{RUN}/"),
    ]
    assert sorted(path.name for path in (root / "plan").iterdir()) == [RUN, "mine"]
    assert not (root / "attempts" / RUN).exists()
    assert kinds(check(root)) == []


def damage_footer(file: Path) -> None:
    file.write_bytes(file.read_bytes()[:-20])


def damage_a_column_that_resuming_does_not_read(file: Path) -> None:
    column = pq.read_schema(file).get_field_index("instruction")
    group = pq.ParquetFile(file).metadata.row_group(0).column(column)
    data = bytearray(file.read_bytes())
    start = group.dictionary_page_offset or group.data_page_offset
    data[start : start + group.total_compressed_size] = b"\xff" * group.total_compressed_size
    file.write_bytes(bytes(data))


@pytest.mark.parametrize("damage", [damage_footer, damage_a_column_that_resuming_does_not_read])
def test_records_that_cannot_be_read_are_named_and_nothing_is_concluded_from_them(
    root: Path, damage: Callable[[Path], None]
) -> None:
    image(root, "dog").unlink()
    damage(records_file(root))
    before = files(root)
    report = check(root, fix=True)
    found = [(one.kind.value, one.is_safe) for one in report.findings]
    assert ("records_unreadable", False) in found
    assert {kind for kind, is_safe in found if is_safe} <= {"image_missing"}
    assert {key: data for key, data in files(root).items() if key in before} == before


def test_orphans_stay_as_long_as_records_cannot_be_read(root: Path) -> None:
    damage_footer(records_file(root))
    report = check(root, fix=True)
    assert sorted(kinds(report)) == ["orphan_image", "orphan_image", "records_unreadable"]
    assert not any(one.is_safe for one in report.findings)
    assert image(root).is_file()


@pytest.mark.parametrize(
    ("key", "content", "kind"),
    [
        ("run.json", "{", "run_info"),
        ("run.json", '{"runs": [{}]}', "run_info"),
        ("run.json", '{"runs": []}', "unknown_run"),
        ("summary.json", "[]", "summary"),
        ("summary.json", '{"num_in": 9, "num_ok": 8, "num_failed": 1, "num_skipped": 0}', "summary"),
        ("summary.json", '{"num_in": 4, "num_ok": 2, "num_failed": 1, "num_skipped": 0}', "summary"),
    ],
)
def test_accounts_that_do_not_agree_with_the_records_are_found(root: Path, key: str, content: str, kind: str) -> None:
    shutil.rmtree(root / "plan")
    (root / key).write_text(content)
    report = check(root)
    assert [(one.kind.value, one.key) for one in report.findings] == [(kind, key)]


def test_records_without_run_json_are_found(root: Path) -> None:
    shutil.rmtree(root / "plan")
    (root / "run.json").unlink()
    assert kinds(check(root)) == ["run_info"]


def test_a_store_without_summary_is_whole(root: Path) -> None:
    (root / "summary.json").unlink()
    assert kinds(check(root)) == []


def test_what_is_not_asked_for_is_not_read(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_no_picture(root)
    assert kinds(check(root, has_decode=False)) == []
    assert kinds(check(root, has_hash=False)) == ["image_undecodable"]
    monkeypatch.setattr("pipelines.verify.image_check.ImageCheck._compare", None)
    assert kinds(check(root, has_hash=False, has_decode=False)) == []
    cut_off(root)
    image(root, "dog").unlink()
    assert sorted(kinds(check(root, has_hash=False, has_decode=False))) == ["image_bytes", "image_missing"]


def test_an_image_that_cannot_be_read_just_now_is_not_given_up(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    read_bytes = uri.read_bytes

    def fail(place: str, **limits: Any) -> bytes:
        if place == str(image(root)):
            raise uri.UriFailed("no answer")
        return read_bytes(place, **limits)

    before = files(root)
    monkeypatch.setattr("pipelines.verify.image_check.uri.read_bytes", fail)
    report = check(root, fix=True)
    assert [(one.kind, one.is_safe) for one in report.findings] == [("image_unreadable", False)]
    assert files(root) == before


def test_a_file_that_cannot_be_removed_is_left_and_told(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    orphan = root / store.image_key("gone", 0, ".png")
    orphan.parent.mkdir(exist_ok=True)
    orphan.write_bytes(b"x")
    remove = uri.remove

    def fail(place: str) -> None:
        if place == str(orphan):
            raise uri.UriFailed("cannot remove it")
        remove(place)

    monkeypatch.setattr("pipelines.verify.mending.uri.remove", fail)
    report = check(root, fix=True)
    assert (report.num_left, report.failures) == (1, ["cannot remove it"])


def test_a_fix_that_was_cut_off_is_finished_by_the_next(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    flip_bit(root)

    remove = uri.remove

    def stop(place: str) -> None:
        if place == str(image(root)):
            raise KeyboardInterrupt
        remove(place)

    monkeypatch.setattr("pipelines.verify.mending.uri.remove", stop)
    with pytest.raises(KeyboardInterrupt):
        check(root, fix=True)
    monkeypatch.undo()
    assert standing(root, "boat") == [Standing.AGAIN]
    assert kinds(check(root, fix=True)) == ["orphan_image"]
    assert kinds(check(root)) == []


def test_records_that_cannot_be_superseded_are_left_and_told(root: Path) -> None:
    file = records_file(root)
    table = pq.read_table(file)
    odd = pa.array(["not", "a time"])
    pq.write_table(table.set_column(table.schema.get_field_index("write_seconds"), "write_seconds", odd), file)
    remove_image(root)
    report = check(root, fix=True)
    assert (kinds(report), report.num_left, len(report.failures)) == (["image_missing"], 1, 1)


def test_an_image_that_was_overwritten_since_it_was_listed_is_good(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As a run does that is at work: a changed row's image, then its record."""
    whole = image(root).read_bytes()
    cut_off(root)
    load = Ledger.load

    def load_later(*arguments: Any, **options: Any) -> Ledger:
        image(root).write_bytes(whole)
        return load(*arguments, **options)

    monkeypatch.setattr("pipelines.verify.recorded.Ledger.load", load_later)
    assert kinds(check(root)) == []


def test_nothing_is_mended_while_a_run_holds_the_store(root: Path) -> None:
    remove_image(root)
    with lease.hold(str(root), RUN), pytest.raises(OutputError, match=RUN):
        check(root, fix=True)
    assert check(root).counts == {FindingKind.IMAGE_MISSING: 1}
    assert check(root, fix=True).num_left == 0
    assert not (root / "lease.json").exists()


@pytest.mark.parametrize("where", ["absent", "empty"])
def test_a_folder_that_is_no_store_is_refused(tmp_path: Path, where: str) -> None:
    (tmp_path / "empty" / "images").mkdir(parents=True)
    with pytest.raises(OutputError, match="no run store"):
        check(tmp_path / where, fix=True)


def test_threads_must_be_some() -> None:
    with pytest.raises(ConfigError, match="threads=0"):
        VerifyConfig(num_threads=0)


def test_a_report_counts_all_findings_and_keeps_some(root: Path) -> None:
    folder = root / "images" / "ab"
    folder.mkdir(exist_ok=True)
    for number in range(MAX_FINDINGS + 5):
        (folder / f"orphan{number}-0.png").touch()
    report = check(root)
    assert report.counts == {FindingKind.ORPHAN_IMAGE: MAX_FINDINGS + 5}
    told = json.loads(report.to_json())
    assert (told["num_findings"], len(told["findings"]), told["is_whole"]) == (MAX_FINDINGS + 5, MAX_FINDINGS, False)
    assert (told["num_records"], told["num_images"]) == (4, NUM_IMAGES)


def test_rows_of_a_large_file_are_taken_in_pieces(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pipelines.verify.recorded.ROWS_AT_ONCE", 1)
    image(root, "a cat").unlink()
    report = check(root, num_threads=1)
    assert kinds(report) == ["image_missing"]
    assert report.num_records == 4


def test_work_is_given_back_in_order_and_not_all_at_once() -> None:
    taken: list[int] = []
    most = 3

    def items() -> Iterator[int]:
        for number in range(20):
            assert number - len(taken) <= most
            yield number

    with ThreadPoolExecutor(4) as pool:
        for number in in_order(pool, str, items(), most):
            taken.append(int(number))  # noqa: PERF401 - `items` looks at it meanwhile
    assert taken == list(range(20))


@pytest.mark.s3
def test_a_store_on_s3_is_checked_and_mended(s3: Bucket) -> None:
    root = f"{s3.uri}/run"
    make_store(root)
    assert kinds(check(root)) == []
    boat, cat, dog = (f"run/{store.image_key(one, 0, '.png')}" for one in IDS[:3])
    data = bytearray(s3.get(boat))
    data[len(data) // 2] ^= 1
    s3.put(boat, bytes(data))
    s3.put(cat, s3.get(cat)[:-3])
    s3.client.delete_object(Bucket=s3.name, Key=dog)
    s3.put("run/images/ab/orphan-0.png", b"x")
    s3.put(f"run/plan/{EARLIER}/part-00000.parquet", b"x")
    s3.put(f"run/attempts/{RUN}/0.json", b"{}")
    others = ["orphan_image", "leftover", "leftover"]
    assert sorted(kinds(check(root, has_hash=False, has_decode=False))) == sorted(
        ["image_bytes", "image_missing", *others]
    )
    report = check(root, fix=True)
    assert sorted(kinds(report)) == sorted(["image_bytes", "image_missing", "image_sha256", *others])
    assert report.num_left == 0
    assert kinds(check(root, fix=True)) == []
    assert standing(root, *IDS) == [Standing.AGAIN] * 3 + [Standing.FAILED]
    assert [key for key in s3.keys("run/") if key.startswith(("run/images/", "run/attempts/", "run/lease"))] == []
