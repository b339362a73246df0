from __future__ import annotations

from pathlib import Path, PurePosixPath

import pytest
from hypothesis import given
from hypothesis import strategies as st

from omnigen_actor import store
from omnigen_actor.errors import OutputError

IDS = st.text(min_size=1, max_size=120) | st.sampled_from(
    ["..", ".", "/etc/passwd", "../../x", "a/b", "a\\b", "a\n", "-rf", "~", "~0123", "a-1", "a", "a-", "C:", "a b", "é"]
)
SAMPLES = st.integers(min_value=0, max_value=10**6)


@given(IDS, SAMPLES)
def test_no_id_leaves_its_folder_or_needs_quoting(row_id: str, sample: int) -> None:
    key = store.image_key(row_id, sample, ".png")
    top, shard, name = PurePosixPath(key).parts
    assert (top, len(shard)) == ("images", 2)
    assert name.endswith(f"-{sample}.png")
    assert all(c.isascii() and (c.isalnum() or c in "._-~") for c in name)
    assert not name.startswith((".", "-"))
    assert len(name) <= 120


@given(IDS, SAMPLES, IDS, SAMPLES)
def test_different_rows_have_different_keys(one: str, sample: int, other: str, other_sample: int) -> None:
    same = (one, sample) == (other, other_sample)
    assert same == (store.image_key(one, sample, ".png") == store.image_key(other, other_sample, ".png"))


@given(IDS, IDS)
def test_no_plain_id_takes_the_name_of_a_digested_one(one: str, other: str) -> None:
    assert (one == other) == (store.file_name(one) == store.file_name(other))
    assert store.file_name(store.file_name("a/b")) != store.file_name("a/b")


@pytest.mark.parametrize("row_id", ["cat", "0-a_b.c", "A" * 100])
def test_a_plain_id_can_be_read_in_the_key(row_id: str) -> None:
    assert store.image_key(row_id, 2, ".webp").endswith(f"/{row_id}-2.webp")


def test_records_key_depends_on_every_row_and_on_nothing_else() -> None:
    rows = [("a", 0, 1), ("b", 0, 1)]
    key = store.records_key("run", rows)
    assert key == store.records_key("run", rows)
    others = [[("a", 0, 1)], [("a", 0, 1), ("b", 0, 2)], [("a", 0, 1), ("b", 1, 1)], [("a", 0, 1), ("c", 0, 1)]]
    assert len({key, store.records_key("run2", rows), *(store.records_key("run", o) for o in others)}) == 6
    assert key.startswith("records/run-")
    assert key.endswith(".parquet")


def test_probe_leaves_nothing_behind(tmp_path: Path) -> None:
    store.check_writable(str(tmp_path / "new"))
    assert [p for p in tmp_path.rglob("*") if p.is_file()] == []


def test_an_output_that_cannot_be_written_is_one_line_that_names_it(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(OutputError) as caught:
        store.check_writable(str(tmp_path / "file" / "out"))
    assert str(tmp_path / "file" / "out") in str(caught.value)
    assert "\n" not in str(caught.value)
