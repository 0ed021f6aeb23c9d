"""FeastSource over a repository of MovieLens data with a Redis online store."""

from __future__ import annotations

import subprocess
import sys
import tempfile
import warnings
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from polars.testing import assert_frame_equal

from features import DataError
from features.feast.source import FeastSource
from serving.connection.embedded import EmbeddedStore
from tests.feast_repository import build_feast_repository, redis_connection_string, tables

pytest.importorskip("feast", reason="the feast extra is not installed")
pytestmark = pytest.mark.filterwarnings("ignore:fetch_arrow_table:DeprecationWarning")


@pytest.fixture(scope="module")
def repository() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="rs-", dir="/tmp") as home:
        url = EmbeddedStore.ensure(Path(home) / "store")
        try:
            yield build_feast_repository(
                Path(home) / "repository",
                offline="duckdb",
                redis=redis_connection_string(url),
                materialize=True,
            )
        finally:
            EmbeddedStore.stop(Path(home) / "store")


@pytest.fixture(scope="module")
def source(repository: Path) -> FeastSource:
    return FeastSource(repository)


def apply(store: Any, objects: list[Any]) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        store.apply(objects)


def test_describe_names_two_keys_types_ttl_and_rows(source: FeastSource) -> None:
    views = {view.name: view for view in source.describe()}
    assert list(views) == ["movie_stats", "movies", "ratings", "user_stats"]
    assert views["ratings"].keys == ("user_id", "item_id")
    assert views["ratings"].ttl is None
    assert views["movie_stats"].ttl == timedelta(days=730)
    assert views["movie_stats"].created
    assert views["movies"].columns == {
        "title": pl.String(),
        "main_genre": pl.String(),
        "genres": pl.List(pl.String),
        "year": pl.Int64(),
        "embedding": pl.List(pl.Float32),
    }
    assert views["movies"].rows == tables()["movies"].height
    assert source.feature_sets() == {
        "item_features": ("movies", "movie_stats"),
        "user_features": ("user_stats",),
    }


def test_the_file_and_feast_say_the_same(repository: Path, source: FeastSource) -> None:
    ratings = tables()["ratings"].select("user_id", "item_id", timestamp="event_timestamp")
    keys = ratings.sample(400, seed=1, shuffle=True)
    unknown = keys.head(9).with_columns(pl.col("item_id") + 10_000_000)
    keys = pl.concat([keys, keys.head(30), unknown])
    sets = ["item_features", "user_features", "ratings"]
    result = source.as_of(sets, keys, full_names=True)
    assert result.select(keys.columns).equals(keys)
    assert 0 < result["movie_stats__mean_rating"].null_count() < keys.height
    assert_frame_equal(
        result, FeastSource(repository, through_feast=True).as_of(sets, keys, full_names=True)
    )


def test_feast_alone_loses_rows_and_this_does_not(tmp_path: Path) -> None:
    """What the adapter is for, on the default offline store: Feast issue 6787, and the ttl."""
    home = build_feast_repository(tmp_path, offline="file", users=3)
    source = FeastSource(home)
    known = tables(3)["user_stats"].sort("event_timestamp").row(0, named=True)
    user, moment = known["user_id"], known["created_timestamp"]
    for time, feast_rows in ((moment, 1), (moment + timedelta(days=10_000), 0)):
        slate = pl.DataFrame({"row": range(10), "user_id": user, "event_timestamp": time})
        frame = source.store.get_historical_features(
            slate.to_pandas(), ["user_stats:mean_rating"]
        ).to_df()
        assert len(frame) == feast_rows
        keys = slate.rename({"event_timestamp": "timestamp"})
        for ours in (source, FeastSource(home, through_feast=True)):
            result = ours.as_of("user_stats", keys)
            assert result.select(keys.columns).equals(keys)
            assert result["mean_rating"].null_count() == (0 if feast_rows else 10)


def test_ids_may_be_text_where_the_store_has_numbers(source: FeastSource) -> None:
    moment = datetime(2016, 6, 1)
    keys = pl.DataFrame({"item_id": ["1", "01", "x", None, "1"], "timestamp": [moment] * 5})
    titles = source.as_of("movies", keys)["title"].to_list()
    assert titles == ["Toy Story (1995)", None, None, None, "Toy Story (1995)"]
    block = source.latest("movies", ["1", "01", "x", 1], moment)
    assert block.present.tolist() == [True, False, False, True]


def test_latest_knows_absent_ids_and_ages(source: FeastSource) -> None:
    feast = source.store.get_online_features(["movies:title"], {"item_id": [1, 10_000_000]})
    assert list(feast.proto.results[0].statuses) == [1, 1]  # Feast: both PRESENT
    first = tables()["movies"].filter(pl.col("item_id") == 1)["event_timestamp"][0]
    moment = first + timedelta(days=2)
    block = source.latest("movies", [10_000_000, 1], moment)
    assert block.present.tolist() == [False, True]
    np.testing.assert_array_equal(block.age_s, [np.nan, 2 * 86_400.0])
    assert block.values["genres"][1].tolist() == [
        "Adventure", "Animation", "Children", "Comedy", "Fantasy"
    ]  # fmt: skip
    assert block.values["embedding"][1].dtype == np.float32
    np.testing.assert_array_equal(block.values["year"], [np.nan, 1995.0])
    assert block.values["title"].tolist() == [None, "Toy Story (1995)"]
    before = source.latest("movies", [1], first - timedelta(seconds=1))
    assert before.present.tolist() == [False]  # the row is younger than the moment


def test_the_ttl_holds_online(source: FeastSource) -> None:
    newest = tables()["user_stats"].sort("event_timestamp").unique("user_id", keep="last").row(0)
    columns = tables()["user_stats"].columns
    user, time = newest[0], newest[columns.index("event_timestamp")]
    last = source.latest("user_stats", [user], time + timedelta(days=365))
    past = source.latest("user_stats", [user], time + timedelta(days=365, seconds=1))
    assert (last.present.tolist(), past.present.tolist()) == ([True], [False])
    assert np.isnan(past.values["mean_rating"]).all()


def test_a_service_is_read_as_one_block(source: FeastSource) -> None:
    stats = tables()["movie_stats"].sort("event_timestamp").unique("item_id", keep="last")
    item, time = stats.select("item_id", "event_timestamp").row(0)
    moment = time + timedelta(days=1)
    block = source.latest("item_features", [item, -1], moment)
    assert list(block.values) == [
        "title", "main_genre", "genres", "year", "embedding", "num_ratings", "mean_rating"
    ]  # fmt: skip
    first = tables()["movies"].filter(pl.col("item_id") == item)["event_timestamp"][0]
    assert block.present.tolist() == [True, False]
    assert block.age_s is not None
    assert block.age_s[0] == (moment - first).total_seconds()  # of the older row


def test_the_registry_is_not_walked_for_a_second_read(
    source: FeastSource, monkeypatch: pytest.MonkeyPatch
) -> None:
    moment = datetime(2016, 6, 1)
    expected = source.latest("movies", [1], moment)
    monkeypatch.setattr(
        type(source.store), "registry", property(lambda self: pytest.fail("walked"))
    )
    assert source.latest("movies", [1], moment).values["title"] == expected.values["title"]
    assert source.as_of("movies", pl.DataFrame({"item_id": [1], "timestamp": [moment]})).height == 1


def test_writes_reach_both_stores(tmp_path: Path) -> None:
    source = FeastSource(build_feast_repository(tmp_path / "repository", users=3))
    rows = pl.DataFrame(
        {
            "user_id": ["new", "1"],
            "timestamp": [datetime(2018, 1, 1, tzinfo=UTC)] * 2,
            "created": [datetime(2018, 1, 2, tzinfo=UTC)] * 2,
            "num_ratings": [7, None],
            "mean_rating": [3.5, 4.0],
            "last_genre": ["Drama", None],
        }
    )
    receipt = source.write("user_stats", rows)
    assert receipt == ("user_stats", 2, ("online", "offline"), None)
    block = source.latest("user_stats", ["new", "1"], datetime(2018, 1, 3))
    np.testing.assert_array_equal(block.values["num_ratings"], [7.0, np.nan])
    keys = pl.DataFrame({"user_id": ["new", "new"], "timestamp": [datetime(2018, 1, 3)] * 2})
    assert source.as_of("user_stats", keys)["mean_rating"].to_list() == [3.5, 3.5]
    assert source.write("user_stats", rows.clear()).stores == ()
    with pytest.raises(DataError, match="a batch source without a field mapping"):
        source.write("movies", rows)
    with pytest.raises(DataError, match="rows must have the types of view 'user_stats'"):
        source.write("user_stats", rows.with_columns(num_ratings=pl.lit("many")))
    nothing = rows.with_columns(num_ratings=None, mean_rating=None, last_genre=None)
    with pytest.raises(DataError, match="a value in at least one feature of view 'user_stats'"):
        source.write("user_stats", nothing)
    with pytest.raises(DataError, match="to must be one of online, offline, both, got 'disk'"):
        source.write("user_stats", rows, to="disk")  # type: ignore[arg-type]
    with pytest.raises(DataError, match="'item_features' must be one view here"):
        source.write("item_features", rows)


def test_versions_aliases_and_push_sources(tmp_path: Path) -> None:
    from feast import Entity, FeatureService, FeatureView, Field, FileSource, PushSource, ValueType
    from feast.types import Float32, String

    (tmp_path / "feature_store.yaml").write_text(
        f"project: versions\nprovider: local\n"
        f"registry:\n  path: {tmp_path}/registry.db\n"
        "  enable_online_feature_view_versioning: true\n"
        f"offline_store:\n  type: duckdb\n"
        f"online_store:\n  type: sqlite\n  path: {tmp_path}/online.db\n"
        "entity_key_serialization_version: 3\n"
    )
    pl.DataFrame(
        {
            "user_id": ["u", "v"],
            "event_timestamp": [datetime(2020, 1, 1, tzinfo=UTC)] * 2,
            "old": [1.0, 2.0],
            "new": [3.0, 4.0],
        },
        schema_overrides={"old": pl.Float32, "new": pl.Float32},
    ).write_parquet(tmp_path / "taste.parquet")
    user = Entity(name="user", join_keys=["user_id"], value_type=ValueType.STRING)
    batch = FileSource(path=str(tmp_path / "taste.parquet"), timestamp_field="event_timestamp")
    pushed = PushSource(name="taste_push", batch_source=batch)

    def view(*features: str) -> FeatureView:
        fields = [Field(name=name, dtype=Float32) for name in features]
        return FeatureView(
            name="taste",
            entities=[user],
            schema=[Field(name="user_id", dtype=String), *fields],
            source=pushed,
        )

    from feast import FeatureStore

    store = FeatureStore(repo_path=str(tmp_path))
    apply(store, [user, pushed, view("old")])
    latest = view("old", "new")
    friend = latest[["new"]].with_name("friend").with_join_key_map({"user_id": "friend_id"})
    apply(store, [user, pushed, latest, FeatureService(name="friends", features=[friend])])
    source = FeastSource(store)
    moment = datetime(2020, 1, 2)
    keys = pl.DataFrame({"user_id": ["u"], "friend_id": ["v"], "timestamp": [moment]})
    assert source.as_of("taste", keys).drop(keys.columns).row(0) == (1.0, 3.0)
    assert source.as_of("taste@v0", keys).drop(keys.columns).columns == ["old"]
    assert source.as_of("friends", keys).drop(keys.columns).row(0) == (4.0,)
    assert source.as_of("friends", keys, full_names=True).columns[-1] == "friend__new"
    assert [view.version for view in source.describe()] == ["v1"]
    rows = pl.DataFrame({"user_id": ["w"], "timestamp": [moment], "old": [5.0], "new": [6.0]})
    assert source.push("taste_push", rows, to="both") == (
        "taste_push", 1, ("online", "offline"), None
    )  # fmt: skip
    assert source.latest("taste", ["w"], moment).values["new"].tolist() == [6.0]
    assert source.as_of("taste", keys.with_columns(user_id=pl.lit("w")))["old"].to_list() == [5.0]
    with pytest.raises(DataError, match=r"view 'taste@v7' must exist .* Version v7"):
        source.latest("taste@v7", ["w"])
    with pytest.raises(DataError, match="push source 'taste' must feed a view"):
        source.push("taste", rows)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("movie_stat", "view 'movie_stat' must exist .*did you mean 'movie_stats'"),
        ("item_feature", "did you mean 'item_features'"),
        ("ratings", r"view 'ratings' must be online to be read, but has online=False"),
    ],
)
def test_names_that_cannot_be_read_online(source: FeastSource, name: str, message: str) -> None:
    with pytest.raises(DataError, match=message):
        source.latest(name, [("1", 1)] if name == "ratings" else [1])


def test_views_of_different_keys_are_no_block(repository: Path) -> None:
    source = FeastSource(repository)
    source._plans["both"] = (*source.plan("movies"), *source.plan("user_stats"))
    with pytest.raises(DataError, match=r"'both' must have one key .*movies: item_id; user_stats"):
        source.latest("both", [1])


def test_a_broken_file_is_told(tmp_path: Path) -> None:
    home = build_feast_repository(tmp_path, users=3)
    source = FeastSource(home)
    path = home / "data" / "ratings.parquet"
    frame = pl.read_parquet(path)
    keys = pl.DataFrame({"user_id": ["1"], "item_id": [1], "timestamp": [datetime(2020, 1, 1)]})
    for broken, message in (
        (frame.drop("rating"), "must have the column 'rating', got user_id"),
        (frame.with_columns(event_timestamp=pl.lit("x")), "must have times in 'event_timestamp'"),
    ):
        broken.write_parquet(path)
        with pytest.raises(DataError, match=message):
            source.as_of("ratings", keys)


def test_what_is_no_repository(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"must be a Feast repository, but has no feature_store"):
        FeastSource(tmp_path)
    with pytest.raises(DataError, match="repository must be a path or a FeatureStore, got int"):
        FeastSource(3)
    (tmp_path / "feature_store.yaml").write_text("project: 3\nprovider: none\n")
    with pytest.raises(DataError, match=r"feature_store.yaml cannot be used"):
        FeastSource(tmp_path)


def test_without_feast_the_message_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "feast", None)
    with pytest.raises(DataError, match=r"`pip install recsys-plugin\[feast\]` installs it"):
        FeastSource("anywhere")


def test_importing_the_adapter_does_not_import_feast() -> None:
    code = "import sys, features.feast.source; print('feast' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
