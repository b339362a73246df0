"""The declared schemas: what each stage adds, and which columns are the user's."""

from __future__ import annotations

import pyarrow as pa
import pytest

from omnigen_actor import schema
from omnigen_actor.errors import ErrorKind, Stage


def test_stages_only_add_columns_until_the_pixels_are_dropped() -> None:
    assert schema.FETCHED.names[: len(schema.PLAN)] == schema.PLAN.names
    dropped = set(schema.FETCHED.names) - set(schema.RECORD.names)
    assert dropped == {"image_uris", "pixels", "pixel_sizes"}


@pytest.mark.parametrize("one", [schema.PLAN, schema.FETCHED])
def test_a_column_means_the_same_in_every_schema(one: pa.Schema) -> None:
    shared = [name for name in one.names if name in schema.RECORD.names]
    assert [one.field(name) for name in shared] == [schema.RECORD.field(name) for name in shared]


@pytest.mark.parametrize("name", ["MANIFEST", "PLAN", "FETCHED", "RECORD"])
def test_no_name_is_used_twice_and_all_are_owned(name: str) -> None:
    names = getattr(schema, name).names
    assert len(set(names)) == len(names)
    assert set(names) <= schema.OWNED_COLUMNS


def test_every_manifest_column_but_the_number_of_samples_reaches_the_record() -> None:
    assert set(schema.MANIFEST.names) - set(schema.RECORD.names) == {"num_samples"}
    assert set(schema.MANIFEST_REQUIRED) <= set(schema.MANIFEST.names)
    assert set(schema.TIMING_COLUMNS) <= set(schema.RECORD.names)


def test_users_columns_are_those_that_no_schema_owns() -> None:
    table_schema = pa.schema([("note", pa.int8()), ("status", pa.string()), ("id", pa.string()), ("z", pa.null())])
    users = schema.user_fields(table_schema)
    assert [field.name for field in users] == ["note", "z"]
    assert schema.with_user_fields(schema.PLAN, users) == pa.schema([*schema.PLAN, *users])


def test_a_table_from_rows_has_the_declared_types_and_the_users_columns() -> None:
    own = pa.schema([("id", pa.string()), ("seed", pa.int64())])
    source = pa.table({"id": ["x", "y"], "note": pa.array([1, 2], pa.int8()), "prompt": ["p", "q"]})
    table = schema.table_from_rows([{"id": "a", "seed": None}, {"id": "b"}], own, source)
    assert table.schema == pa.schema([*own, ("note", pa.int8())])
    assert table.to_pydict() == {"id": ["a", "b"], "seed": [None, None], "note": [1, 2]}


def test_a_stage_that_loses_a_row_is_stopped() -> None:
    with pytest.raises(ValueError, match="1 rows out of 2 rows in"):
        schema.table_from_rows([{"id": "a"}], pa.schema([("id", pa.string())]), pa.table({"id": ["a", "b"]}))


def test_error_kinds_and_stages_are_written_as_plain_words() -> None:
    words = [*ErrorKind, *Stage]
    assert [word for word in words if not word.isidentifier() or word != word.lower()] == []
    assert len(set(ErrorKind)) == len(ErrorKind.__members__)
