"""Resume: the ledger against a dictionary that does the same in the obvious way."""

from __future__ import annotations

import hashlib
from collections.abc import Collection
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from omnigen_actor.errors import OutputError
from omnigen_actor.schema import PLAN, RECORD, Status
from pipelines.config import ALL
from pipelines.ledger import DIGEST, Ledger, digest
from pipelines.summary import Audit

NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)
_EMPTY: dict[pa.DataType, Any] = {pa.string(): "", pa.int32(): 0, pa.float64(): 0.0}


def content(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def record(
    row_id: str, *, sample: int = 0, text: str = "x", attempt: int = 1, status: str = "ok", at_s: int = 0
) -> Any:
    blank = {field.name: None if field.nullable else _EMPTY.get(field.type, []) for field in RECORD}
    failed = {"error_kind": "not_found", "error": f"no {row_id}"} if status != Status.OK else {}
    return {
        **blank,
        "id": row_id,
        "sample": sample,
        "attempt": attempt,
        "row_hash": content(text),
        "status": status,
        "finished_at": NOON + timedelta(seconds=at_s),
        **failed,
    }


def planned(*keys: tuple[str, int, str]) -> pa.Table:
    blank = {field.name: None if field.nullable else _EMPTY.get(field.type, []) for field in PLAN}
    rows = [{**blank, "id": i, "sample": n, "attempt": 1, "row_hash": content(text)} for i, n, text in keys]
    return pa.Table.from_pylist(rows, schema=PLAN)


def write_records(store: Path, *files: list[dict[str, Any]]) -> Ledger:
    (store / "records").mkdir(exist_ok=True, parents=True)
    for number, rows in enumerate(files):
        pq.write_table(pa.Table.from_pylist(rows, schema=RECORD), store / "records" / f"{number}.parquet")
    return Ledger.load(str(store))


def to_do(ledger: Ledger, plan: pa.Table, *, retry: Collection[str] = ()) -> list[tuple[str, int, int]]:
    rows = ledger.split(plan, retry=retry).to_pylist()
    return [(row["id"], row["sample"], row["attempt"]) for row in rows]


def test_a_store_without_records_leaves_everything_to_do(tmp_path: Path) -> None:
    ledger = Ledger.load(str(tmp_path / "absent"))
    plan = planned(("a", 0, "x"), ("a", 1, "x"))
    assert ledger.num_records == 0
    assert ledger.split(plan) == plan
    assert ledger.audit(digest(plan)) == Audit(num_in=2, num_missing=2)


def test_a_finished_row_is_done_unless_its_content_changed(tmp_path: Path) -> None:
    ledger = write_records(tmp_path, [record("a"), record("b")], [record("a", sample=1)])
    assert ledger.num_records == 3
    plan = planned(("a", 0, "x"), ("b", 0, "changed"), ("a", 1, "x"), ("c", 0, "x"))
    assert to_do(ledger, plan) == [("b", 0, 2), ("c", 0, 1)]


def test_failed_and_skipped_rows_are_tried_again_on_request_alone(tmp_path: Path) -> None:
    rows = [record("a"), record("b", status=Status.FAILED, attempt=3), record("c", status=Status.SKIPPED)]
    ledger = write_records(tmp_path, rows)
    plan = planned(("a", 0, "x"), ("b", 0, "x"), ("c", 0, "x"))
    assert to_do(ledger, plan) == []
    assert to_do(ledger, plan, retry=[ALL]) == [("b", 0, 4), ("c", 0, 2)]


def test_the_current_record_is_the_last_attempt_and_of_equal_ones_the_newest(tmp_path: Path) -> None:
    ledger = write_records(
        tmp_path,
        [record("a", attempt=2, status=Status.OK), record("b", status=Status.FAILED, at_s=5)],
        [record("a", attempt=1, status=Status.FAILED, at_s=99), record("b", status=Status.OK, at_s=4)],
    )
    assert to_do(ledger, planned(("a", 0, "x"), ("b", 0, "x")), retry=[ALL]) == [("b", 0, 2)]


def test_the_split_keeps_users_columns_order_and_schema(tmp_path: Path) -> None:
    plan = planned(("c", 0, "x"), ("a", 0, "x"), ("b", 0, "x")).append_column("note", pa.array(["1", "2", "3"]))
    left = write_records(tmp_path, [record("a")]).split(plan)
    assert left.schema == plan.schema
    assert left.column("note").to_pylist() == ["1", "3"]


def test_an_audit_adds_up_only_when_every_row_has_one_current_record(tmp_path: Path) -> None:
    rows = [record("a"), record("b", status=Status.FAILED), record("c", status=Status.SKIPPED), record("other")]
    ledger = write_records(tmp_path, rows, [record("d", attempt=1), record("d", attempt=2)])
    plan = digest(planned(*((name, 0, "x") for name in "abcd")))
    audit = ledger.audit(plan)
    assert audit.adds_up
    assert (audit.num_in, audit.num_ok, audit.num_failed, audit.num_skipped, audit.num_missing) == (4, 2, 1, 1, 0)
    kind, count, example = audit.errors[0]
    assert (kind, count) == ("not_found", 2)
    assert example in {"no b", "no c"}


def test_an_audit_finds_lost_stale_and_doubled_rows(tmp_path: Path) -> None:
    ledger = write_records(tmp_path, [record("a"), record("b", text="old")], [record("a", at_s=1)])
    audit = ledger.audit(digest(planned(("a", 0, "x"), ("b", 0, "new"), ("c", 0, "x"))))
    assert not audit.adds_up
    assert (audit.num_in, audit.num_ok, audit.num_missing, audit.num_doubled) == (3, 1, 2, 1)
    doubled_alone = ledger.audit(digest(planned(("a", 0, "x"))))
    assert (doubled_alone.num_ok, doubled_alone.num_doubled, doubled_alone.adds_up) == (1, 1, False)
    assert ledger.audit(digest(planned(("b", 0, "old")))).num_doubled == 0


def test_a_row_recorded_twice_with_the_same_outcome_is_told_of_once(tmp_path: Path) -> None:
    ledger = write_records(tmp_path, [record("a"), record("b")], [record("a", at_s=1)])
    plan = planned(("a", 0, "x"), ("b", 0, "x"))
    assert to_do(ledger, plan) == []
    assert not ledger.audit(digest(plan)).adds_up
    later = ledger.audit(digest(plan), known_doubled=ledger.doubled)
    assert (later.num_doubled, later.adds_up) == (0, True)


@pytest.mark.parametrize("other", [{"status": Status.FAILED}, {"text": "y"}, {"sha256": "f" * 64}], ids=str)
@pytest.mark.parametrize("is_newer", [False, True])
def test_a_row_recorded_twice_with_different_outcomes_is_done_again_and_then_mended(
    tmp_path: Path, other: dict[str, Any], is_newer: bool
) -> None:
    first = record("a") | {"sha256": "0" * 64}
    second = record("a", at_s=1 if is_newer else -1, **{k: v for k, v in other.items() if k != "sha256"})
    second |= {"sha256": other.get("sha256", "0" * 64)}
    ledger = write_records(tmp_path, [first], [second])
    plan = planned(("a", 0, "x"))
    assert to_do(ledger, plan) == [("a", 0, 2)]
    assert ledger.audit(digest(plan), known_doubled=ledger.doubled).num_doubled == 1
    mended = write_records(tmp_path, [first], [second], [record("a", attempt=2)])
    assert to_do(mended, plan) == []
    assert mended.audit(digest(plan)).adds_up


def test_a_third_record_of_another_attempt_does_not_hide_that_two_differ(tmp_path: Path) -> None:
    rows = [record("a"), record("a", attempt=2), record("a", attempt=2, status=Status.FAILED), record("a", attempt=2)]
    ledger = write_records(tmp_path, *([row] for row in rows))
    assert to_do(ledger, planned(("a", 0, "x"))) == [("a", 0, 3)]


def test_of_two_records_of_one_moment_that_of_the_last_file_is_current(tmp_path: Path) -> None:
    ledger = write_records(tmp_path, [record("a", status=Status.FAILED)], [record("a")])
    assert ledger.audit(digest(planned(("a", 0, "x")))).num_ok == 1


def test_failed_rows_of_some_kinds_alone_are_tried_again(tmp_path: Path) -> None:
    kinds = {"a": "not_found", "b": "fetch_failed", "c": "engine_failed"}
    rows = [record(row_id, status=Status.FAILED) | {"error_kind": kind} for row_id, kind in kinds.items()]
    ledger = write_records(tmp_path, [*rows, record("d")])
    plan = planned(*((row_id, 0, "x") for row_id in "abcd"))
    assert to_do(ledger, plan, retry=["fetch_failed", "engine_failed", "bad_id"]) == [("b", 0, 2), ("c", 0, 2)]
    assert to_do(ledger, plan, retry=["bad_id"]) == []


def test_rows_that_were_left_out_are_no_lost_ones(tmp_path: Path) -> None:
    ledger = write_records(tmp_path, [record("a"), record("b", status=Status.FAILED)])
    plan = digest(planned(*((row_id, 0, "x") for row_id in "abcd")))
    audit = ledger.audit(plan, np.array([True, False, False, True]))
    assert (audit.num_ok, audit.num_failed, audit.num_left_out, audit.num_missing) == (1, 1, 1, 1)
    assert (audit.num_not_chosen, audit.num_not_chosen_failed) == (1, 1)
    assert not audit.adds_up
    assert ledger.audit(plan, np.array([True, False, False, False])).adds_up


def test_an_audit_lists_the_most_frequent_errors_first(tmp_path: Path) -> None:
    rows = [record(str(n), status=Status.FAILED) | {"error_kind": "bad_size" if n % 3 else "bad_id"} for n in range(9)]
    audit = write_records(tmp_path, rows).audit(digest(planned(*((str(n), 0, "x") for n in range(9)))))
    assert [(kind, count) for kind, count, _ in audit.errors] == [("bad_size", 6), ("bad_id", 3)]


def test_a_broken_records_file_is_named(tmp_path: Path) -> None:
    write_records(tmp_path, [record("a")], [record("b")])
    broken = tmp_path / "records" / "1.parquet"
    whole = broken.read_bytes()
    other_columns = pa.BufferOutputStream()
    pq.write_table(pa.table({"id": ["a"]}), other_columns)
    for data in (b"", whole[: len(whole) // 2], whole[:-1], b"text", other_columns.getvalue().to_pybytes()):
        broken.write_bytes(data)
        with pytest.raises(OutputError, match=r"records/1\.parquet can't be read: .*; if it is damaged") as caught:
            Ledger.load(str(tmp_path))
        assert "\n" not in str(caught.value)


def test_a_records_file_with_an_unknown_status_is_named(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match=r"records/0\.parquet .*'finished'"):
        write_records(tmp_path, [record("a", status="finished")])


def test_a_null_where_a_record_must_have_a_value_is_named(tmp_path: Path) -> None:
    write_records(tmp_path, [record("a")])
    table = pq.read_table(tmp_path / "records" / "0.parquet")
    position = table.schema.get_field_index("row_hash")
    pq.write_table(table.set_column(position, "row_hash", pa.nulls(1, pa.string())), tmp_path / "records" / "0.parquet")
    with pytest.raises(OutputError, match=r"records/0\.parquet"):
        Ledger.load(str(tmp_path))


def test_many_files_are_read_whole(tmp_path: Path) -> None:
    ledger = write_records(tmp_path, *([record(str(n)), record(str(n), sample=1)] for n in range(150)))
    assert ledger.num_records == 300
    assert to_do(ledger, planned(*((str(n), 1, "x") for n in range(151)))) == [("150", 1, 1)]


def test_digests_are_found_whatever_zeros_they_end_in() -> None:
    keys = np.zeros(3, DIGEST)
    keys["key"] = np.frombuffer(b"a" * 15 + b"\0" + b"a" * 14 + b"\0\0" + b"\0" + b"a" * 15, "S16")
    assert len({keys["key"][n : n + 1].tobytes() for n in range(3)}) == len(np.unique(keys["key"])) == 3


def test_ids_and_samples_do_not_run_into_each_other() -> None:
    keys = digest(planned(("1", 1, "x"), ("11", 0, "x"), ("", 11, "x"), ("1", 11, "x")))["key"]
    assert len(set(keys.tolist())) == 4


_KEYS = st.tuples(st.sampled_from("abc"), st.integers(0, 1))
_RECORDS = st.lists(
    st.tuples(_KEYS, st.sampled_from(["x", "y"]), st.integers(1, 3), st.sampled_from(["ok", "failed", "skipped"])),
    max_size=12,
)


@settings(deadline=None)
@given(records=_RECORDS, rows=st.dictionaries(_KEYS, st.sampled_from(["x", "y"]), max_size=6), retry=st.booleans())
def test_the_split_is_an_exact_anti_join(
    tmp_path_factory: pytest.TempPathFactory, records: list[Any], rows: dict[tuple[str, int], str], retry: bool
) -> None:
    current: dict[tuple[str, int], tuple[int, int, str, str]] = {}
    written = []
    for at_s, ((row_id, sample), text, attempt, status) in enumerate(records):
        written.append(record(row_id, sample=sample, text=text, attempt=attempt, status=status, at_s=at_s))
        candidate = (attempt, at_s, text, status)
        current[row_id, sample] = max(candidate, current.get((row_id, sample), candidate))
    last: dict[tuple[str, int], set[tuple[str, str]]] = {}
    for key, text, attempt, status in records:
        if attempt == current[key][0]:
            last.setdefault(key, set()).add((text, status))
    expected = []
    for (row_id, sample), text in rows.items():
        attempt, _, done_text, status = current.get((row_id, sample), (0, 0, "", ""))
        is_torn = len(last.get((row_id, sample), ())) > 1
        if done_text != text or is_torn or (status != Status.OK and retry):
            expected.append((row_id, sample, attempt + 1))
    half = len(written) // 2
    ledger = write_records(tmp_path_factory.mktemp("store"), written[:half], written[half:])
    plan = planned(*((row_id, sample, text) for (row_id, sample), text in rows.items()))
    assert to_do(ledger, plan, retry=[ALL] if retry else ()) == expected
    assert ledger.num_records == len(current)
    audit = ledger.audit(digest(plan))
    matching = [current[key][3] for key, text in rows.items() if key in current and current[key][2] == text]
    assert (audit.num_ok, audit.num_failed, audit.num_skipped) == tuple(
        map(matching.count, ("ok", "failed", "skipped"))
    )
    assert audit.num_in == len(rows)
    assert audit.num_missing == len(rows) - len(matching)
