"""References are read as people write them, and a row whose parent has no image is skipped, with the reason."""

from __future__ import annotations

from typing import Any

import pyarrow as pa
import pytest

from pipelines.check import check_table
from pipelines.config import GenerationConfig
from pipelines.references import Reference, parse, refuse, skip_children, to_store


def planned(*rows: dict[str, Any]) -> pa.Table:
    base = {"task": "edit", "instruction": "blue"}
    return check_table(pa.Table.from_pylist([base | row for row in rows]), GenerationConfig(), "/base")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("row:cat", Reference("cat", 0)),
        ("row:cat#3", Reference("cat", 3)),
        ("row:a#b", Reference("a#b", 0)),
        ("row:a#b#12", Reference("a#b", 12)),
        ("row:boat[steps=20]#1", Reference("boat[steps=20]", 1)),
        ("row:s3://odd id", Reference("s3://odd id", 0)),
        ("photos/row:cat.png", None),
        ("ROW:cat", None),
    ],
)
def test_a_reference_is_an_id_and_a_sample(text: str, expected: Reference | None):
    assert parse(text) == expected


@pytest.mark.parametrize("text", ["row:", "row:#2"])
def test_a_reference_needs_an_id(text: str):
    with pytest.raises(ValueError, match="row:<id>"):
        parse(text)


def test_a_reference_becomes_the_place_of_its_image_and_other_images_stay():
    table = planned({"id": "a", "images": ["row:cat#2"]}, {"id": "b", "images": ["x.png"]})
    assert to_store(table, "/store", ".webp")["image_uris"].to_pylist() == [
        ["/store/images/77/cat-2.webp"],
        ["/base/x.png"],
    ]


def test_a_table_without_references_is_left_alone():
    table = planned({"id": "b", "images": ["x.png"]})
    assert to_store(table, "/store", ".png") is table
    assert skip_children(table, {"y#0": "y#0"}) is table


def test_a_child_is_skipped_with_its_parent_and_the_root_named():
    causes = {"root#0": "root#0"}
    children = skip_children(planned({"id": "child", "images": ["row:root"]}), causes)
    assert children["error"].to_pylist() == ["row 'root#0' has no image"]
    grandchildren = skip_children(
        planned({"id": "deep", "images": ["row:child"]}, {"id": "free", "images": ["row:other"]}), causes
    )
    assert grandchildren["error_kind"].to_pylist() == ["parent_failed", None]
    assert grandchildren["error"][0].as_py() == "row 'child#0' has no image, because row 'root#0' has none"
    assert grandchildren["image_uris"].to_pylist() == [[], ["row:other"]]
    assert causes == {"root#0": "root#0", "child#0": "root#0", "deep#0": "root#0"}


def test_rows_that_nobody_can_order_are_refused():
    found = refuse(planned({"id": "a", "images": ["row:b"]}, {"id": "b", "images": ["x.png"]}))
    assert found["error_kind"].to_pylist() == ["bad_uri", None]
    assert "jobs.generate" in found["error"][0].as_py()
