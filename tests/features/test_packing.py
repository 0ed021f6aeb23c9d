from __future__ import annotations

import struct
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from features import DataError, PackedField, PackedSchema

SCHEMA = PackedSchema((PackedField("a"), PackedField("b", "float16", 2), PackedField("c", "int32")))
COLUMNS = {
    "a": np.array([1.5, np.nan]),
    "b": np.array([[0.25, -2.0], [3.0, 4.0]]),
    "c": np.array([7, -8]),
    "ignored": np.array(["x"]),
}


def test_layout_is_little_endian_without_padding() -> None:
    row = SCHEMA.pack(COLUMNS)[0]
    assert row == struct.pack("<Ifeei", SCHEMA.schema_id, 1.5, 0.25, -2.0, 7)
    assert SCHEMA.row_bytes == len(row) == 16


def test_unpack_gives_columns_and_says_what_was_there() -> None:
    rows = SCHEMA.pack(COLUMNS)
    block = SCHEMA.unpack([rows[1], None, rows[0]])
    assert block.present.tolist() == [True, False, True]
    np.testing.assert_array_equal(block.values["a"], np.float32([np.nan, 0, 1.5]))
    assert block.values["b"].tolist() == [[3, 4], [0, 0], [0.25, -2]]
    assert block.values["c"].tolist() == [-8, 0, 7]
    assert [block.values[name].dtype.name for name in "abc"] == ["float32", "float32", "int32"]
    assert SCHEMA.unpack([]).present.tolist() == []
    assert SCHEMA.pack({name: column[:0] for name, column in COLUMNS.items()}) == []


@given(st.lists(st.floats(width=32), max_size=8), st.integers(-(2**31), 2**31 - 1))
def test_float32_and_int32_survive_exactly(values: list[float], whole: int) -> None:
    schema = PackedSchema((PackedField("x"), PackedField("n", "int32")))
    column = np.array(values, dtype=np.float32)
    block = schema.unpack(schema.pack({"x": column, "n": np.full(len(values), whole)}))
    np.testing.assert_array_equal(block.values["x"], column)
    assert block.values["n"].tolist() == [whole] * len(values)


def test_schema_id_is_of_names_types_and_order() -> None:
    assert PackedSchema.from_dict(SCHEMA.to_dict()) == SCHEMA
    others = [
        PackedSchema(SCHEMA.fields[::-1]),
        PackedSchema(SCHEMA.fields[:2]),
        PackedSchema((PackedField("a", "float16"), *SCHEMA.fields[1:])),
        PackedSchema((PackedField("a", width=2), *SCHEMA.fields[1:])),
        PackedSchema((PackedField("A"), *SCHEMA.fields[1:])),
    ]
    assert len({SCHEMA.schema_id, *(other.schema_id for other in others)}) == 6
    # pinned: published rows outlive the process that wrote them
    assert SCHEMA.schema_id == 0x86DF332B


def test_foreign_rows_are_refused() -> None:
    rows = SCHEMA.pack(COLUMNS)
    with pytest.raises(DataError, match="row 1 must have 16 bytes, got 15"):
        SCHEMA.unpack([rows[0], rows[1][:-1]])
    twin = PackedSchema((PackedField("A"), *SCHEMA.fields[1:]))
    with pytest.raises(DataError, match=r"row 1 must have the schema id 0x.*another schema"):
        SCHEMA.unpack([rows[0], twin.pack(COLUMNS | {"A": COLUMNS["a"]})[0]])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"a": None}, "columns must have 'a', got b, c"),
        ({"a": np.zeros((2, 2))}, r"column 'a' must be \[C\], got shape \(2, 2\)"),
        ({"a": np.float32(1)}, r"column 'a' must be \[C\], got shape \(\)"),
        ({"b": np.zeros((2, 3))}, r"column 'b' must be \[C, 2\], got shape \(2, 3\)"),
        ({"a": np.zeros(3)}, r"columns must have one length, got \[2, 3\]"),
        ({"a": np.array([1e39, 0])}, "column 'a' must be within .*float32.*got 1e"),
        ({"b": np.array([[7e4, 0], [0, 0]])}, r"within \+-65504 \(float16\), got 70000"),
        ({"c": np.array([2**31, 0])}, r"whole numbers of 32 bits \(int32\), got 2147483648"),
        ({"c": np.array([0.5, 0])}, "whole numbers of 32 bits"),
        ({"c": np.array([np.nan, 0])}, "whole numbers of 32 bits"),
    ],
)
def test_columns_that_do_not_fit(change: dict[str, Any], message: str) -> None:
    columns = {name: value for name, value in (COLUMNS | change).items() if value is not None}
    with pytest.raises(DataError, match=message):
        SCHEMA.pack(columns)


def test_infinity_fits_floats() -> None:
    block = SCHEMA.unpack(SCHEMA.pack(COLUMNS | {"a": np.array([np.inf, -np.inf])}))
    assert block.values["a"].tolist() == [np.inf, -np.inf]


def test_broken_schemas() -> None:
    with pytest.raises(DataError, match="fields must not be empty"):
        PackedSchema(())
    with pytest.raises(DataError, match="different names, got 'a' twice"):
        PackedSchema((PackedField("a"), PackedField("a")))
    with pytest.raises(DataError, match="name must not be empty"):
        PackedField("")
    with pytest.raises(DataError, match="dtype must be one of float32, float16, int32; got 'f8'"):
        PackedField("a", "f8")  # type: ignore[arg-type]
    with pytest.raises(DataError, match="width must be >= 1, got 0"):
        PackedField("a", width=0)
    with pytest.raises(DataError, match="schema must be of format 1, got 2"):
        PackedSchema.from_dict({"format": 2, "fields": []})
