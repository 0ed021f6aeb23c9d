from __future__ import annotations

from dataclasses import replace
from datetime import datetime

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from features import DataError, PackedField, PackedSchema
from features.packing.reader import PackedReader, migration

GENRES = ("drama", "comedy")
OLD = PackedSchema(
    (
        PackedField("year", "int32"),
        PackedField("genre", "category", values=GENRES),
        PackedField("vector", "float16", 2),
        PackedField("gone"),
    )
)
NEW = PackedSchema(
    (
        PackedField("price", default=np.nan),
        PackedField("vector", "float32", 2),
        PackedField("genre", "category", values=(*GENRES, "western")),
        PackedField("year", "int32"),
        PackedField("shop", "category", values=("a", "b"), default=2),
        PackedField("tags", "category", 2, values=("x",), default=0),
    ),
    event_time=True,
)
OLD_COLUMNS = {
    "year": np.array([1999, 2020]),
    "genre": ["comedy", None],
    "vector": np.array([[0.1, -2.0], [3.0, np.nan]], dtype=np.float16),
    "gone": np.array([1.0, 2.0]),
}


def test_old_rows_read_as_new_ones() -> None:
    block = PackedReader(NEW, [OLD]).unpack([*OLD.pack(OLD_COLUMNS), None])
    assert list(block.values) == ["price", "vector", "genre", "year", "shop", "tags"]
    assert block.values["year"].tolist() == [1999, 2020, 0]
    assert block.values["genre"].tolist() == [2, 0, 0]
    np.testing.assert_array_equal(block.values["vector"][:2], np.float32(OLD_COLUMNS["vector"]))
    np.testing.assert_array_equal(block.values["price"], np.float32([np.nan, np.nan, 0]))
    assert block.values["shop"].tolist() == [2, 2, 0]
    assert block.values["tags"].tolist() == [[0, 0]] * 3
    assert block.present.tolist() == [True, True, False]
    assert block.age_s is not None
    assert np.isnan(block.age_s).all()


def test_one_answer_may_mix_schemas() -> None:
    moment = datetime(2024, 1, 1)
    columns = OLD_COLUMNS | {
        "price": np.array([5.0, 6.0]),
        "genre": ["western", "drama"],
        "shop": ["b", "?"],
        "tags": np.array([["x", "y"], ["y", "x"]]),
    }
    times = np.array(["2023-12-31", "NaT"], dtype="datetime64[s]")
    new, old = NEW.pack(columns, event_time=times), OLD.pack(OLD_COLUMNS)
    block = PackedReader(NEW, [OLD]).unpack([old[1], new[0], None, new[1], old[0]], moment=moment)
    assert block.values["year"].tolist() == [2020, 1999, 0, 2020, 1999]
    assert block.values["genre"].tolist() == [0, 3, 0, 1, 2]
    assert block.values["shop"].tolist() == [2, 2, 0, 0, 2]
    assert block.present.tolist() == [True, True, False, True, True]
    assert block.age_s is not None
    assert block.age_s.tolist()[1] == 86_400.0
    assert np.isnan(block.age_s[[0, 2, 3, 4]]).all()
    only = PackedReader(NEW, [OLD]).unpack([old[0], new[0]], fields=["year"], moment=moment)
    assert {name: column.tolist() for name, column in only.values.items()} == {"year": [1999] * 2}


def changed(**change: object) -> PackedSchema:
    """OLD with its field replaced that has the given name."""
    name = change["name"]
    return PackedSchema(
        tuple(replace(one, **change) if one.name == name else one for one in OLD.fields)  # type: ignore[arg-type]
    )


@pytest.mark.parametrize(
    ("new", "message"),
    [
        (changed(name="year", dtype="float32"), "'year' cannot be .*int32 to float32 can lose"),
        (changed(name="gone", dtype="float16"), "'gone' cannot be .*float32 to float16 can lose"),
        (changed(name="gone", dtype="int32"), "'gone' cannot be .*float32 to int32 can lose"),
        (changed(name="vector", width=3), "'vector' cannot be .*its width was 2 and is 3"),
        (changed(name="genre", values=("drama",)), r"'genre' .*'comedy' \(code 2\) was taken out"),
        (changed(name="genre", values=("a", *GENRES)), "'genre' .*code 1 was 'drama' and is 'a'"),
        (changed(name="genre", values=(), dtype="int32"), "'genre' .*category to int32 can lose"),
        (PackedSchema((*OLD.fields, PackedField("x"))), "'x' .*is new and declares no default"),
    ],
)
def test_what_would_lose_values_is_refused(new: PackedSchema, message: str) -> None:
    with pytest.raises(DataError, match=message):
        migration(OLD, new)
    with pytest.raises(DataError, match="publish the rows again with the new schema"):
        PackedReader(new, [OLD])


def test_dropping_fields_and_time_is_allowed() -> None:
    timed = replace(OLD, event_time=True)
    rows = timed.pack(OLD_COLUMNS, event_time=np.array([5, 6]))
    plain = PackedSchema(OLD.fields[:1])
    assert migration(timed, plain).rows(timed.to_rows(rows)[0]).shape == (2, plain.row_bytes)
    block = PackedReader(plain, [timed]).unpack(rows)
    assert block.values["year"].tolist() == [1999, 2020]
    assert block.age_s is None


def test_a_default_does_not_change_the_schema() -> None:
    declared = PackedSchema((replace(OLD.fields[0], default=3), *OLD.fields[1:]))
    assert declared.schema_id == OLD.schema_id
    assert PackedReader(declared, [OLD]).unpack(OLD.pack(OLD_COLUMNS)).present.all()


def test_unknown_and_damaged_rows() -> None:
    reader = PackedReader(NEW, [OLD])
    row = OLD.pack(OLD_COLUMNS)[0]
    other = PackedSchema(OLD.fields[:3]).pack(OLD_COLUMNS)[0]
    with pytest.raises(DataError, match=r"row 1 must have a known schema id, got 0x.*known: 0x"):
        reader.unpack([row, other])
    with pytest.raises(DataError, match=f"row 1 must have {len(row)} bytes, got {len(row) - 1}"):
        reader.unpack([None, row[:-1]])
    with pytest.raises(DataError, match="row 0 must have a known schema id, got 0x;"):
        reader.unpack([b""])


def test_two_schemas_of_one_id_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(PackedSchema, "schema_id", 7)
    with pytest.raises(DataError, match="different schema ids, got 0x00000007 for two schemas"):
        PackedReader(replace(NEW), [replace(OLD)])


names = st.sampled_from(["a", "b", "c", "d"])
fields = st.one_of(
    st.builds(PackedField, names, st.sampled_from(["float32", "float16"]), st.integers(1, 2)),
    st.builds(PackedField, names, st.just("int32"), default=st.just(4)),
    st.builds(
        PackedField,
        names,
        st.just("category"),
        values=st.sampled_from([("x",), ("x", "y"), ("y", "x")]),
        default=st.just(0),
    ),
)
schemas = st.builds(
    PackedSchema,
    st.lists(fields, min_size=1, max_size=4, unique_by=lambda one: one.name).map(tuple),
    st.booleans(),
)


def packed(schema: PackedSchema, seed: int, count: int = 3) -> list[bytes]:
    rng = np.random.default_rng(seed)
    columns = {
        one.name: rng.integers(
            0,
            len(one.values) + 1 if one.values else 9,
            size=count if one.width == 1 else (count, one.width),
        )
        for one in schema.fields
    }
    times = rng.integers(0, 10**15, count) if schema.event_time else None
    return schema.pack(columns, event_time=times)


def meaning(schema: PackedSchema, row: bytes) -> dict[str, object]:
    """What a row says, by name, with categories as text: the same in every schema that has it."""
    values = schema.unpack([row]).values
    return {
        one.name: ["", *one.values][int(values[one.name][0])]
        if one.values
        else values[one.name][0].tolist()
        for one in schema.fields
    }


@given(schemas, schemas, st.integers(0, 2**32 - 1))
def test_a_migrated_row_means_what_it_meant(
    old: PackedSchema, new: PackedSchema, seed: int
) -> None:
    rows = packed(old, seed)
    try:
        reader = PackedReader(new, [old])
    except DataError:
        assume(False)
    mixed = [rows[0], packed(new, seed)[0], rows[1]]
    read, present = reader.to_rows(mixed)
    assert present.all()
    assert read[1].tobytes() == mixed[1]
    defaults = {one.name: one.default for one in new.fields}
    for place in (0, 2):
        before, after = meaning(old, mixed[place]), meaning(new, read[place].tobytes())
        for name, value in after.items():
            if name in before:
                assert value == before[name]
            else:
                assert value == (defaults[name] or "")


@given(
    schemas,
    schemas,
    st.integers(0, 2**32 - 1),
    st.sets(st.integers(0, 31), min_size=1, max_size=8),
    st.integers(0, 40),
)
def test_no_damaged_header_or_length_is_ever_read(
    schema: PackedSchema, other: PackedSchema, seed: int, bits: set[int], kept: int
) -> None:
    try:
        reader = PackedReader(schema, [other])
    except DataError:
        reader = PackedReader(schema)
    row = packed(schema, seed)[0]
    damaged = bytearray(row)
    for bit in bits:
        damaged[bit // 8] ^= 1 << bit % 8
    # flipped bits could spell the other schema's id; then its length must tell
    assume(int.from_bytes(damaged[:4], "little") != other.schema_id)
    for read in (schema.unpack, reader.unpack):
        with pytest.raises(DataError, match=r"row 1 must have"):
            read([row, bytes(damaged)])
        if kept < len(row):
            with pytest.raises(DataError, match=r"row 1 must have"):
                read([row, row[:kept]])
        with pytest.raises(DataError, match=r"row 1 must have"):
            read([row, row + b"\0"])
        for stranger in packed(other, seed)[:1]:
            if other.schema_id != schema.schema_id and read == schema.unpack:
                with pytest.raises(DataError, match=r"row 1 must have"):
                    read([row, stranger])
