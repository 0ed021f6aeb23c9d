"""Feature values as arrays: equal to Feast's own reading of the same bytes."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from features.errors import DataError
from features.feast.values import ValueColumn

pytest.importorskip("feast", reason="the extra recsys[feast] is not installed")

NULL = b"\x98\x01\x00"


def message(**field: object) -> bytes:
    from feast.protos.feast.types import Value_pb2 as types

    (name, value) = next(iter(field.items()))
    if name.endswith("_list_val"):
        wanted = types.Value.DESCRIPTOR.fields_by_name[name].message_type.name
        value = getattr(types, wanted)(val=value)
    return types.Value(**{name: value}).SerializeToString()


def read_by_feast(data: bytes | None) -> object:
    from feast.protos.feast.types.Value_pb2 import Value
    from feast.type_map import feast_value_type_to_python_type

    return None if data in (None, NULL) else feast_value_type_to_python_type(Value.FromString(data))


NUMBERS = {
    "FLOAT": st.floats(width=32),
    "DOUBLE": st.floats(),
    "INT32": st.integers(-(2**31), 2**31 - 1),
    "INT64": st.integers(-(2**53), 2**53),
    "BOOL": st.booleans(),
}


@given(st.data(), st.sampled_from(list(NUMBERS)))
def test_numbers_equal_feasts(data, kind) -> None:
    values = data.draw(st.lists(st.none() | NUMBERS[kind], max_size=6))
    field = f"{kind.lower()}_val"
    absent = st.sampled_from([None, b"", NULL])
    rows = [data.draw(absent) if one is None else message(**{field: one}) for one in values]
    found = ValueColumn("x", kind).decode(rows)
    expected = [np.nan if one is None else one for one in map(read_by_feast, rows)]
    np.testing.assert_array_equal(found, np.array(expected, dtype=found.dtype))
    assert found.dtype == (np.float32 if kind in ("FLOAT", "BOOL") else np.float64)


@given(st.lists(st.none() | st.integers(-(2**63), 2**63 - 1), max_size=6))
def test_exact_whole_numbers(values) -> None:
    rows = [None if one is None else message(int64_val=one) for one in values]
    assert ValueColumn("x", "INT64", exact=True).decode(rows).tolist() == values


@given(st.lists(st.none() | st.integers(0, 2**31), max_size=5))
def test_times_equal_feasts(values) -> None:
    rows = [b"" if one is None else message(unix_timestamp_val=one) for one in values]
    found = ValueColumn("x", "UNIX_TIMESTAMP").decode(rows)
    expected = [read_by_feast(row) for row in rows]
    assert found.dtype == np.dtype("datetime64[s]")
    assert found.tolist() == [one and one.replace(tzinfo=None) for one in expected]


def test_feasts_null_time_is_not_a_time() -> None:
    row = message(unix_timestamp_val=-(2**63))
    assert np.isnat(ValueColumn("x", "UNIX_TIMESTAMP").decode([row])).all()


@given(st.lists(st.none() | st.text(st.characters(exclude_categories=["Cs"])), max_size=5))
def test_strings_equal_feasts(values) -> None:
    rows = [b"" if one is None else message(string_val=one) for one in values]
    assert ValueColumn("x", "STRING").decode(rows).tolist() == values
    assert ValueColumn("x", "STRING").decode([*rows, NULL]).tolist() == [*values, None]


@given(st.lists(st.lists(st.floats(width=32), min_size=0, max_size=200), max_size=4))
def test_float_lists_of_any_length_equal_feasts(values) -> None:
    for kind in ("FLOAT_LIST", "DOUBLE_LIST"):
        rows = [None, NULL, *(message(**{f"{kind.lower()}_val": one}) for one in values)]
        found = ValueColumn("x", kind).decode(rows)
        assert found[0] is None
        assert found[1] is None
        for own, row in zip(found[2:], rows[2:], strict=True):
            np.testing.assert_array_equal(own, read_by_feast(row))


@pytest.mark.parametrize("width", [0, 1, 31, 32, 300, 5000])
def test_lists_of_one_width_are_a_matrix(width) -> None:
    values = np.random.default_rng(0).normal(size=(3, width)).astype(np.float32)
    rows = [message(float_list_val=row.tolist()) for row in values]
    found = ValueColumn("x", "FLOAT_LIST", width=width).decode([rows[0], None, *rows[1:]])
    assert found.dtype == np.float32
    np.testing.assert_array_equal(found[[0, 2, 3]], values)
    assert np.isnan(found[1]).all()


@pytest.mark.parametrize(
    ("kind", "field", "value"),
    [
        ("BYTES", "bytes_val", b"\xff\x00"),
        ("INT64_LIST", "int64_list_val", [1, -5]),
        ("STRING_LIST", "string_list_val", ["", "b"]),
        ("BOOL_LIST", "bool_list_val", [True, False]),
        ("UNIX_TIMESTAMP_LIST", "unix_timestamp_list_val", [86400]),
        ("UUID", "uuid_val", "12345678-1234-5678-1234-567812345678"),
        ("JSON", "json_val", '{"a": 1}'),
        ("DECIMAL", "decimal_val", "1.50"),
    ],
)
def test_other_types_are_what_feast_gives(kind, field, value) -> None:
    row = message(**{field: value})
    found = ValueColumn("x", kind).decode([row, None, NULL])
    assert found.tolist() == [read_by_feast(row), None, None]


def test_no_rows() -> None:
    for kind in ("FLOAT", "INT64", "STRING", "FLOAT_LIST", "UUID"):
        assert len(ValueColumn("x", kind).decode([])) == 0


def test_rows_from_before_a_change_of_type_are_converted() -> None:
    rows = [message(float_val=0.5), message(int64_val=3), message(double_val=0.25)]
    assert ValueColumn("x", "DOUBLE").decode(rows).tolist() == [0.5, 3.0, 0.25]
    assert ValueColumn("x", "FLOAT").decode([*rows, None])[:3].tolist() == [0.5, 3.0, 0.25]
    assert ValueColumn("x", "INT64").decode([message(int32_val=2), rows[1]]).tolist() == [2, 3]


@pytest.mark.parametrize(
    ("column", "row", "text"),
    [
        (ValueColumn("x", "FLOAT"), message(string_val="a"), "'x' must hold FLOAT, .*string_val"),
        (ValueColumn("x", "INT64"), message(float_val=1.5), "'x' must hold INT64, .*float_val"),
        (ValueColumn("x", "STRING"), message(int64_val=1), "'x' must hold STRING, .*int64_val"),
        (
            ValueColumn("x", "FLOAT_LIST", width=2),
            message(float_list_val=[1.0]),
            "'x' must have 2 numbers, got 1",
        ),
        (
            ValueColumn("x", "FLOAT_LIST", width=2),
            message(double_list_val=[1.0, 2.0]),
            "'x' must hold FLOAT_LIST, .*double_list_val",
        ),
        (
            ValueColumn("x", "FLOAT_LIST"),
            message(double_list_val=[1.0, 2.0]),
            "'x' must hold FLOAT_LIST, .*double_list_val",
        ),
        (ValueColumn("x", "INT64"), message(int64_val=2**53 + 1), "'x' must be at most 2.53"),
        (ValueColumn("x", "INT64"), message(int64_val=-(2**63)), "'x' must be at most 2.53"),
    ],
)
def test_rows_that_would_be_misread(column, row, text) -> None:
    with pytest.raises(DataError, match=text):
        column.decode([row])
