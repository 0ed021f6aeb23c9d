from __future__ import annotations

import json
import struct
from datetime import datetime
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
    with pytest.raises(
        DataError, match="must be one of float32, float16, int32, category; got 'f8'"
    ):
        PackedField("a", "f8")  # type: ignore[arg-type]
    with pytest.raises(DataError, match="width must be >= 1, got 0"):
        PackedField("a", width=0)
    with pytest.raises(DataError, match="schema must be of format 1 or 2, got 3"):
        PackedSchema.from_dict({"format": 3, "fields": []})
    with pytest.raises(
        DataError, match="field 'a': values must be given for a category and for no"
    ):
        PackedField("a", "category")
    with pytest.raises(DataError, match="got 1 values of float32"):
        PackedField("a", values=("x",))
    with pytest.raises(DataError, match="values must not repeat"):
        PackedField("a", "category", values=("x", "x"))
    with pytest.raises(DataError, match="values must be text"):
        PackedField("a", "category", values=(1,))  # type: ignore[arg-type]
    with pytest.raises(DataError, match=r"default must be text or codes 0..1 \(category\), got 2"):
        PackedField("a", "category", values=("x",), default=2)
    with pytest.raises(DataError, match=r"default must be whole numbers of 32 bits.*got nan"):
        PackedField("a", "int32", default=np.nan)
    with pytest.raises(DataError, match=r"default must be within \+-65504"):
        PackedField("a", "float16", default=1e5)
    with pytest.raises(DataError, match=r"field 'a' must have a name and of .* got colour"):
        PackedSchema.from_dict({"format": 2, "fields": [{"name": "a", "colour": 1}]})
    with pytest.raises(DataError, match="got no name"):
        PackedSchema.from_dict({"format": 2, "fields": [{"dtype": "int32"}]})


GENRE = PackedField("genre", "category", values=("drama", "comedy"))


def test_categories_are_packed_as_codes() -> None:
    tags = PackedField("tags", "category", 2, values=("x", "y", "z"))
    schema = PackedSchema((GENRE, tags))
    columns = {"genre": ["comedy", "western", None], "tags": np.array([["z", "?"]] * 3)}
    rows = schema.pack(columns)
    assert rows[0] == struct.pack("<IHHH", schema.schema_id, 2, 3, 0)
    block = schema.unpack([*rows, None])
    assert block.values["genre"].tolist() == [2, 0, 0, 0]
    assert block.values["genre"].dtype == np.int32
    assert block.values["tags"].tolist() == [[3, 0]] * 3 + [[0, 0]]
    coded = schema.pack({"genre": np.array([2.0, 0, 0]), "tags": np.array([[3, 0]] * 3)})
    assert coded == rows


def test_many_categories_take_four_bytes() -> None:
    field = PackedField("c", "category", values=tuple(map(str, range(65_536))))
    schema = PackedSchema((field,))
    assert schema.row_bytes == 8
    assert schema.unpack(schema.pack({"c": ["65535"]})).values["c"].tolist() == [65_536]


@pytest.mark.parametrize(
    ("column", "message"),
    [
        (np.array([3, 0]), r"'genre' must be text or codes 0..2 \(category\), got 3"),
        (np.array([-1, 0]), "got -1"),
        (np.array([0.5, 0]), "got 0.5"),
        (np.array([np.nan, 0]), "got nan"),
        (np.array(["drama", 7], dtype=object), "'genre' must be text or codes"),
        (
            np.array(["2024", "2024"], dtype="datetime64[s]"),
            r"got datetime64\[s\]; cast it to text",
        ),
    ],
)
def test_codes_that_are_none(column: np.ndarray, message: str) -> None:
    with pytest.raises(DataError, match=message):
        PackedSchema((PackedField("x"), GENRE)).pack({"x": np.zeros(2), "genre": column})


def test_each_category_has_its_own_range() -> None:
    schema = PackedSchema((GENRE, PackedField("one", "category", values=("x",))))
    assert len(schema.pack({"genre": np.array([2]), "one": np.array([1])})) == 1
    with pytest.raises(DataError, match=r"'one' must be text or codes 0..1"):
        schema.pack({"genre": np.array([2]), "one": np.array([2])})


def test_text_is_no_number() -> None:
    with pytest.raises(DataError, match=r"'a' must be numbers \(float32\), got <U1; cast it$"):
        PackedSchema((PackedField("a"),)).pack({"a": np.array(["x"])})


def test_rows_say_their_age() -> None:
    schema = PackedSchema((PackedField("a"),), event_time=True)
    times = np.array(["2024-01-01T00:00:01.5", "NaT", "2025"], dtype="datetime64[ms]")
    rows = schema.pack({"a": np.arange(3)}, event_time=times)
    assert len(rows[0]) == schema.row_bytes == 16
    block = schema.unpack([*rows, None], moment=datetime(2024, 1, 2))
    assert block.age_s is not None
    assert block.age_s.dtype == np.float64
    np.testing.assert_array_equal(block.age_s, [86_398.5, np.nan, -365 * 86_400.0, np.nan])
    micro = times.astype("datetime64[us]").view(np.int64)
    assert schema.pack({"a": np.arange(3)}, event_time=micro) == rows
    now = schema.unpack(rows).age_s
    assert now is not None and now[0] > 0  # noqa: PT018
    assert SCHEMA.unpack(SCHEMA.pack(COLUMNS)).age_s is None


def test_event_times_that_do_not_fit() -> None:
    timed = PackedSchema((PackedField("a"),), event_time=True)
    with pytest.raises(DataError, match=r"if and only if the schema has it, got none with .*True"):
        timed.pack({"a": np.zeros(2)})
    with pytest.raises(DataError, match="got some with event_time=False"):
        PackedSchema(timed.fields).pack({"a": np.zeros(2)}, event_time=np.zeros(2, dtype=int))
    with pytest.raises(DataError, match=r"must be \[C\] datetime64 or int64 .*got shape \(3,\)"):
        timed.pack({"a": np.zeros(2)}, event_time=np.zeros(3, dtype=int))
    with pytest.raises(DataError, match=r"got shape .* of float64 for 2 rows"):
        timed.pack({"a": np.zeros(2)}, event_time=np.zeros(2))


def test_some_fields_only() -> None:
    block = SCHEMA.unpack(SCHEMA.pack(COLUMNS), fields=["c", "b"])
    assert list(block.values) == ["c", "b"]
    assert block.values["c"].tolist() == [7, -8]
    with pytest.raises(
        DataError, match="fields must name fields of the schema, got 'z'; it has a, b"
    ):
        SCHEMA.unpack([], fields=["z"])


def test_the_dict_survives_json() -> None:
    schema = PackedSchema((PackedField("a", default=np.nan), GENRE), event_time=True)
    assert PackedSchema.from_dict(json.loads(json.dumps(schema.to_dict()))) == schema
    assert schema.to_dict()["format"] == 2
    assert SCHEMA.to_dict()["format"] == 1
    ids = {
        schema.schema_id,
        PackedSchema(schema.fields).schema_id,
        PackedSchema((schema.fields[0], PackedField("genre", "category", values=("x",)))).schema_id,
    }
    assert len(ids) == 3
    assert PackedSchema((GENRE,)).schema_id == 0xE2BD7CA1
