"""What every `FeatureSource` does, whoever implements it.

A case is filled with the rows of four views that differ in keys, ttl and creation time.
"""

from __future__ import annotations

import random
import shutil
import warnings
from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import polars as pl
import pytest
from polars.testing import assert_frame_equal

from features import DataError, FeatureSource, InMemorySource, ParquetDirectory

START = datetime(2020, 1, 1)
DAY = timedelta(days=1)
VALUES = {"number": pl.Float64(), "text": pl.String(), "vector": pl.List(pl.Float32)}


class Shape(NamedTuple):
    keys: tuple[str, ...]
    ttl: timedelta | None
    created: bool


VIEWS = {
    "expiring": Shape(("item_id",), 3 * DAY, False),
    "late": Shape(("item_id",), None, True),
    "pair": Shape(("user_id", "item_id"), 3 * DAY, True),
    "plain": Shape(("item_id",), None, False),
}
Tables = Mapping[str, pl.DataFrame]
Fill = Callable[[Tables], FeatureSource]


def table(view: str, *rows: tuple[Any, ...]) -> pl.DataFrame:
    """Rows of (user, item, day, day of creation, number); text and vector repeat the number."""
    shape = VIEWS[view]
    frame = pl.DataFrame(
        {
            "user_id": pl.Series([row[0] for row in rows], dtype=pl.String),
            "item_id": pl.Series([row[1] for row in rows], dtype=pl.String),
            "timestamp": pl.Series([START + row[2] * DAY for row in rows], dtype=pl.Datetime("us")),
            "created": pl.Series([START + row[3] * DAY for row in rows], dtype=pl.Datetime("us")),
            "number": pl.Series([row[4] for row in rows], dtype=pl.Float64),
        }
    ).with_columns(
        text=pl.col("number").cast(pl.String),
        vector=pl.concat_list(pl.col("number").fill_null(0), 1.0).cast(pl.List(pl.Float32)),
    )
    created = ["created"] if shape.created else []
    return frame.select(*shape.keys, "timestamp", *created, *VALUES)


SOME = {
    "expiring": [("u", "a", 0, 0, 1.0), ("u", "b", 5, 5, 2.0), ("u", "a", 4, 4, 3.0)],
    "late": [("u", "a", 0, 1, 1.0), ("u", "a", 2, 6, 2.0), ("u", "b", 1, 1, 3.0)],
    "pair": [("u", "a", 0, 0, 1.0), ("v", "a", 1, 1, 2.0), ("u", "b", 2, 2, 3.0)],
    "plain": [("u", "a", 0, 0, 1.0), ("u", "b", 1, 1, 2.0), ("u", "a", 2, 2, None)],
}


def tables() -> dict[str, pl.DataFrame]:
    return {view: table(view, *rows) for view, rows in SOME.items()}


def keys(*rows: tuple[Any, ...]) -> pl.DataFrame:
    """Rows of (user, item, day)."""
    return pl.DataFrame(
        {
            "note": list(range(len(rows))),
            "item_id": pl.Series([row[1] for row in rows], dtype=pl.String),
            "user_id": pl.Series([row[0] for row in rows], dtype=pl.String),
            "timestamp": pl.Series([START + row[2] * DAY for row in rows], dtype=pl.Datetime("us")),
        }
    )


def fill_memory(rows: Tables) -> FeatureSource:
    source = InMemorySource()
    for view, shape in VIEWS.items():
        source.declare(view, shape.keys, ttl=shape.ttl, created=shape.created)
        source.write(view, rows[view])
    return source


def fill_parquet(root: Path, rows: Tables) -> FeatureSource:
    shutil.rmtree(root, ignore_errors=True)
    source = ParquetDirectory(root)
    for view, shape in VIEWS.items():
        source.declare(view, shape.keys, ttl=shape.ttl, created=shape.created)
        half = rows[view].height // 2
        source.write(view, rows[view].head(half))
        source.write(view, rows[view].tail(-half) if half else rows[view])
    return source


def write_arrow(frame: pl.DataFrame, path: Path) -> None:
    """A Parquet file without Arrow's large lists, which Feast cannot append to."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    arrow = frame.to_arrow()
    small = [
        field.with_type(pa.list_(pa.float32())) if field.name == "vector" else field
        for field in arrow.schema
    ]
    pq.write_table(arrow.cast(pa.schema(small)), path)


class FeastRepository:
    """An applied repository with the views; `fill` writes their files anew."""

    def __init__(self, home: Path, offline: str, *, through_feast: bool) -> None:
        from feast import Entity, FeatureStore, FeatureView, Field, FileSource, ValueType
        from feast.types import Array, Float32, Float64, String

        home.mkdir()
        self.home = home
        self._through_feast = through_feast
        (home / "feature_store.yaml").write_text(
            f"project: contract\nprovider: local\nregistry: {home}/registry.db\n"
            f"offline_store:\n  type: {offline}\n"
            f"online_store:\n  type: sqlite\n  path: {home}/online.db\n"
            "entity_key_serialization_version: 3\n"
        )
        self._write_files(tables())
        entities = {
            name: Entity(name=name, join_keys=[f"{name}_id"], value_type=ValueType.STRING)
            for name in ("user", "item")
        }
        fields = [
            Field(name="number", dtype=Float64),
            Field(name="text", dtype=String),
            Field(name="vector", dtype=Array(Float32)),
        ]
        views = [
            FeatureView(
                name=view,
                entities=[entities[key.removesuffix("_id")] for key in shape.keys],
                ttl=shape.ttl or timedelta(0),
                schema=[*(Field(name=key, dtype=String) for key in shape.keys), *fields],
                source=FileSource(
                    path=str(home / f"{view}.parquet"),
                    timestamp_field="at",
                    created_timestamp_column="made" if shape.created else None,
                    field_mapping={"amount": "number"} if view == "pair" else None,
                ),
            )
            for view, shape in VIEWS.items()
        ]
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            FeatureStore(repo_path=str(home)).apply([*entities.values(), *views])

    def fill(self, rows: Tables) -> FeatureSource:
        from features.feast.source import FeastSource

        self._write_files(rows)
        return FeastSource(self.home, through_feast=self._through_feast)

    def _write_files(self, rows: Tables) -> None:
        for view, frame in rows.items():
            renamed = frame.rename(
                {"timestamp": "at", "created": "made"}
                | ({"number": "amount"} if view == "pair" else {}),
                strict=False,
            )
            utc = pl.col(pl.Datetime).dt.replace_time_zone("UTC")
            write_arrow(renamed.with_columns(utc), self.home / f"{view}.parquet")


CASES = ("memory", "parquet", "feast", "feast-through-duckdb", "feast-through-dask")
# Feast names no order of rows with one event and creation time, and none is known behind its API.
DEFINES_TIES = ("memory", "parquet", "feast")


@pytest.fixture(scope="module", params=CASES)
def case(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def fill(case: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fill]:
    home = tmp_path_factory.mktemp("source") / "store"
    if case == "memory":
        yield fill_memory
    elif case == "parquet":
        yield lambda rows: fill_parquet(home, rows)
    else:
        pytest.importorskip("feast", reason="the feast extra is not installed")
        offline = "file" if case == "feast-through-dask" else "duckdb"
        yield FeastRepository(home, offline, through_feast="through" in case).fill


pytestmark = pytest.mark.filterwarnings(
    # DuckDB's Ibis backend and Dask, below Feast
    "ignore:fetch_arrow_table:DeprecationWarning",
    "ignore::FutureWarning:dask.*",
    "ignore::UserWarning:dask.*",
)


def held(rows: list[tuple[Any, ...]], view: str, key: tuple[Any, ...]) -> float | None:
    """The plain loop: the number that holds for (user, item, day), rows in the order written."""
    shape = VIEWS[view]
    user, item, day = key
    best: tuple[Any, ...] | None = None
    for place, (row_user, row_item, row_day, row_made, number) in enumerate(rows):
        if row_item != item or ("user_id" in shape.keys and row_user != user):
            continue
        if row_day > day or (shape.created and row_made > day):
            continue
        rank = (row_day, row_made if shape.created else 0, place)
        if best is None or rank > best[0]:
            best = (rank, number)
    if best is None or (shape.ttl is not None and (day - best[0][0]) * DAY > shape.ttl):
        return None
    return best[1]  # type: ignore[no-any-return]


def test_is_a_feature_source(fill: Fill) -> None:
    assert isinstance(fill(tables()), FeatureSource)


def test_describe(fill: Fill) -> None:
    described = fill(tables()).describe()
    assert [view.name for view in described] == list(VIEWS)
    for view in described:
        assert (view.keys, view.ttl, view.created) == VIEWS[view.name]
        assert view.columns == VALUES
        assert view.rows in (3, None)


def test_as_of_by_hand(fill: Fill) -> None:
    source = fill(tables())
    asked = keys(("u", "a", 0), ("u", "a", 3), ("u", "a", 4), ("u", "b", 4), ("u", "c", 9))
    assert source.as_of("expiring", asked)["number"].to_list() == [1.0, 1.0, 3.0, None, None]
    assert source.as_of("plain", asked)["number"].to_list() == [1.0, None, None, 2.0, None]
    assert source.as_of("plain", asked)["text"].to_list() == ["1.0", None, None, "2.0", None]
    assert source.as_of("plain", asked)["vector"].to_list() == [
        [1.0, 1.0], [0.0, 1.0], [0.0, 1.0], [2.0, 1.0], None
    ]  # fmt: skip
    # The row of day 2 was created on day 6.
    asked = keys(("u", "a", 0), ("u", "a", 1), ("u", "a", 5), ("u", "a", 6))
    assert source.as_of("late", asked)["number"].to_list() == [None, 1.0, 1.0, 2.0]


def test_a_row_holds_for_exactly_its_ttl(fill: Fill) -> None:
    source = fill(tables())
    asked = keys(("u", "a", 3), ("u", "a", 3)).with_columns(
        timestamp=pl.Series([START + 3 * DAY, START + 3 * DAY + timedelta(microseconds=1)])
    )
    assert source.as_of("expiring", asked)["number"].to_list() == [1.0, None]


def test_a_slate_of_equal_keys_and_moments_keeps_every_row_in_order(fill: Fill) -> None:
    slate = keys(*[("u", "a", 1)] * 6, ("v", "a", 1), ("u", "a", 0), *[("u", "a", 1)] * 3)
    result = fill(tables()).as_of(["pair", "plain"], slate, full_names=True)
    assert result.select(slate.columns).equals(slate)
    assert result["pair__number"].to_list() == [1.0] * 6 + [2.0] + [1.0] * 4
    assert result["plain__number"].to_list() == [1.0] * 11


def test_as_of_of_no_rows_and_of_null_ids(fill: Fill) -> None:
    source = fill(tables())
    empty = source.as_of("plain", keys())
    assert empty.height == 0
    assert dict(empty.schema.items() - keys().schema.items()) == VALUES
    nulls = keys((None, None, 3), ("u", "a", 0))
    assert source.as_of(["plain"], nulls)["number"].to_list() == [None, 1.0]


def test_zones_and_units_of_the_moments_do_not_matter(fill: Fill) -> None:
    source = fill(tables())
    asked = keys(("u", "a", 0), ("u", "b", 1), ("u", "b", 0))
    expected = source.as_of("plain", asked)["number"]
    for moments in (
        pl.col("timestamp").dt.replace_time_zone("UTC"),
        pl.col("timestamp").dt.replace_time_zone("UTC").dt.convert_time_zone("Asia/Tokyo"),
        pl.col("timestamp").cast(pl.Datetime("ns")),
    ):
        other = asked.with_columns(moments)
        result = source.as_of("plain", other)
        assert result["number"].equals(expected)
        assert result["timestamp"].equals(other["timestamp"])


def test_a_tie_goes_to_the_row_written_last(case: str, fill: Fill) -> None:
    if case not in DEFINES_TIES:
        pytest.skip("Feast names no order of rows with one event and creation time")
    rows = tables() | {
        "plain": table("plain", ("u", "a", 1, 1, 1.0), ("u", "a", 1, 1, 2.0)),
        "late": table("late", ("u", "a", 1, 3, 1.0), ("u", "a", 1, 2, 2.0)),
    }
    source = fill(rows)
    assert source.as_of("plain", keys(("u", "a", 1)))["number"].to_list() == [2.0]
    # Created last counts before written last.
    assert source.as_of("late", keys(("u", "a", 3)))["number"].to_list() == [1.0]


@pytest.mark.parametrize("seed", [0, 1])
def test_as_of_equals_the_plain_loop(case: str, fill: Fill, seed: int) -> None:
    """Fifty small random logs, an item each, with ties, late rows, nulls and unknown ids."""
    rng = random.Random(seed)
    log = [
        (rng.choice("uv"), f"i{rng.randrange(50)}", day, day + rng.randrange(-1, 4), number)
        for day, number in (
            (rng.randrange(10), rng.choice([None, *map(float, range(20))])) for _ in range(500)
        )
    ]
    if case not in DEFINES_TIES:
        log = list({(row[1], row[2]): row for row in log}.values())
    asked = [
        (rng.choice("uvw"), f"i{rng.randrange(55)}", rng.randrange(-1, 16)) for _ in range(400)
    ]
    asked += asked[:20]
    source = fill({view: table(view, *log) for view in VIEWS})
    frame = keys(*asked)
    result = source.as_of(list(VIEWS), frame, full_names=True)
    assert result.select(frame.columns).equals(frame)
    for view in VIEWS:
        expected = [held(log, view, key) for key in asked]
        assert any(number is not None for number in expected)
        assert result[f"{view}__number"].to_list() == expected, view


def test_scan_gives_every_row_in_bounded_batches(case: str, fill: Fill) -> None:
    source = fill(tables())
    for view, rows in tables().items():
        batches = list(source.scan(view, batch_rows=2))
        assert max(batch.height for batch in batches) <= 2
        assert_frame_equal(pl.concat(batches), rows, check_row_order=case in DEFINES_TIES)


def test_scan_as_of_gives_what_was_known(fill: Fill) -> None:
    source = fill(tables())
    for moment in (START + 3 * DAY, (START + 3 * DAY).replace(tzinfo=UTC)):
        known = pl.concat(source.scan("late", as_of=moment))
        assert sorted(known["number"].to_list()) == [1.0, 3.0]
    assert sum(batch.height for batch in source.scan("late", as_of=START - DAY)) == 0


def test_write_adds_rows_and_gives_a_receipt(fill: Fill) -> None:
    source = fill(tables())
    receipt = source.write("plain", table("plain", ("u", "a", 7, 7, 7.0), ("u", "z", 7, 7, 8.0)))
    assert (receipt.view, receipt.rows) == ("plain", 2)
    assert receipt.stores
    result = source.as_of("plain", keys(("u", "a", 6), ("u", "a", 7), ("u", "z", 8)))
    assert result["number"].to_list() == [None, 7.0, 8.0]
    block = source.latest("plain", ["z", "nobody"], START + 8 * DAY)
    np.testing.assert_array_equal(block.values["number"], [8.0, np.nan])


def test_latest_is_as_of_one_moment_with_presence_and_age(case: str, fill: Fill) -> None:
    rows = tables()
    source = fill(rows)
    if case.startswith("feast"):
        for view in ("expiring", "plain"):
            newest = rows[view].sort("timestamp").unique("item_id", keep="last")
            source.write(view, newest, to="online")  # type: ignore[call-arg]
    block = source.latest("expiring", ["b", "nobody", "a", "b"], START + 6 * DAY)
    np.testing.assert_array_equal(block.values["number"], [2.0, np.nan, 3.0, 2.0])
    assert block.values["text"].tolist() == ["2.0", None, "3.0", "2.0"]
    assert block.values["vector"][1] is None
    assert block.values["vector"][2].tolist() == [3.0, 1.0]
    assert block.present.tolist() == [True, False, True, True]
    np.testing.assert_array_equal(block.age_s, np.array([1, np.nan, 2, 1]) * 86_400)
    expired = source.latest("expiring", ["b", "a"], START + 8 * DAY)
    assert expired.present.tolist() == [True, False]
    assert np.isnan(expired.values["number"][1])
    assert source.latest("expiring", ["b"]).present.tolist() == [False]  # now: years later
    # A row may hold although its value is null.
    null = source.latest("plain", ["a"], START + 9 * DAY)
    assert null.present.tolist() == [True]
    assert np.isnan(null.values["number"]).all()
    assert source.latest("plain", []).present.shape == (0,)


def test_latest_of_several_keys_takes_tuples(case: str, fill: Fill) -> None:
    source = fill(tables())
    if case.startswith("feast"):
        source.write("pair", tables()["pair"], to="online")  # type: ignore[call-arg]
    block = source.latest("pair", [("u", "a"), ("v", "b"), ("v", "a")], START + 3 * DAY)
    np.testing.assert_array_equal(block.values["number"], [1.0, np.nan, 2.0])
    with pytest.raises(DataError, match=r"ids of view 'pair' must be tuples \(user_id, item_id\)"):
        source.latest("pair", ["u"])


def test_unknown_views_name_the_nearest(fill: Fill) -> None:
    source = fill(tables())
    for call in (
        lambda: source.as_of("plane", keys()),
        lambda: source.latest("plane", []),
        lambda: source.scan("plane"),
    ):
        with pytest.raises(DataError, match=r"view 'plane' must exist in .*did you mean 'plain'"):
            call()


def test_keys_that_do_not_fit(fill: Fill) -> None:
    source = fill(tables())
    asked = keys(("u", "a", 1))
    for wrong, message in (
        (asked.drop("item_id"), "keys must have the column 'item_id' for view 'plain'"),
        (asked.drop("timestamp"), "keys must have the column 'timestamp' for view 'plain'"),
        (asked.with_columns(timestamp=1), "timestamp must be a Datetime, got Int32"),
        (
            asked.with_columns(timestamp=pl.lit(None, pl.Datetime("us"))),
            "timestamp must not be null: 1 of 1",
        ),
        (asked.with_columns(number=1), "got 'number' in keys and in view plain"),
    ):
        with pytest.raises(DataError, match=message):
            source.as_of("plain", wrong)
    with pytest.raises(DataError, match="in view plain and in view late; pass full_names=True"):
        source.as_of(["plain", "late"], asked)
    with pytest.raises(DataError, match="batch_rows must be >= 1, got 0"):
        source.scan("plain", batch_rows=0)


def test_rows_that_do_not_fit(fill: Fill) -> None:
    source = fill(tables())
    rows = tables()["plain"]
    for wrong, message in (
        (rows.drop("item_id"), "rows must have the column 'item_id'"),
        (rows.with_columns(timestamp=1), "timestamp must be a Datetime, got Int32"),
        (rows.with_columns(item_id=pl.lit(None, pl.String)), "item_id must not be null: 3 of 3"),
    ):
        with pytest.raises(DataError, match=message):
            source.write("plain", wrong)
