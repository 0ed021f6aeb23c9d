"""A real Feast repository over the bundled MovieLens data, built and applied in a directory.

    feature_store.yaml  movielens.py  data/{movies,movie_stats,user_stats,ratings}.parquet

===========  ==================  ===============================================================
view         entities            what is in it
===========  ==================  ===============================================================
movies       item_id             one row an item: title, main_genre, genres, year, embedding;
                                 no ttl, and ``genres`` is the column ``genre_list`` of the file
movie_stats  item_id             a row every 90 days with ratings: num_ratings, mean_rating;
                                 created one hour to twenty days after its moment; ttl two years
user_stats   user_id             the same of users, with last_genre; ttl one year
ratings      user_id, item_id    the events: rating, event; no ttl
===========  ==================  ===============================================================

``item_id`` is Int64 and ``user_id`` String, so both kinds of key occur. Feature services:
``item_features`` (movies and movie_stats), ``user_features`` (user_stats).
"""

from __future__ import annotations

import importlib.util
import sys
import warnings
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Literal

import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq

DATA = Path(__file__).parents[1] / "examples" / "data"
PERIOD = "90d"
EMBEDDING_WIDTH = 8
PROJECT = "movielens"

_YAML = """\
project: {project}
provider: local
registry: {directory}/data/registry.db
offline_store:
  type: {offline}
online_store:
{online}
entity_key_serialization_version: 3
"""

_DEFINITIONS = """\
from datetime import timedelta
from pathlib import Path

from feast import Entity, FeatureService, FeatureView, Field, FileSource, ValueType
from feast.types import Array, Float32, Int64, String

DATA = Path(__file__).parent / "data"

item = Entity(name="item", join_keys=["item_id"], value_type=ValueType.INT64)
user = Entity(name="user", join_keys=["user_id"], value_type=ValueType.STRING)


def source(name, created=None, mapping=None):
    return FileSource(
        name=f"{name}_file",
        path=str(DATA / f"{name}.parquet"),
        timestamp_field="event_timestamp",
        created_timestamp_column=created,
        field_mapping=mapping,
    )


movies = FeatureView(
    name="movies",
    entities=[item],
    ttl=timedelta(0),
    schema=[
        Field(name="item_id", dtype=Int64),
        Field(name="title", dtype=String),
        Field(name="main_genre", dtype=String),
        Field(name="genres", dtype=Array(String)),
        Field(name="year", dtype=Int64),
        Field(name="embedding", dtype=Array(Float32)),
    ],
    source=source("movies", mapping={"genre_list": "genres"}),
)
movie_stats = FeatureView(
    name="movie_stats",
    entities=[item],
    ttl=timedelta(days=730),
    schema=[
        Field(name="item_id", dtype=Int64),
        Field(name="num_ratings", dtype=Int64),
        Field(name="mean_rating", dtype=Float32),
    ],
    source=source("movie_stats", created="created_timestamp"),
)
user_stats = FeatureView(
    name="user_stats",
    entities=[user],
    ttl=timedelta(days=365),
    schema=[
        Field(name="user_id", dtype=String),
        Field(name="num_ratings", dtype=Int64),
        Field(name="mean_rating", dtype=Float32),
        Field(name="last_genre", dtype=String),
    ],
    source=source("user_stats", created="created_timestamp"),
)
ratings = FeatureView(
    name="ratings",
    entities=[user, item],
    ttl=timedelta(0),
    schema=[
        Field(name="user_id", dtype=String),
        Field(name="item_id", dtype=Int64),
        Field(name="rating", dtype=Float32),
        Field(name="event", dtype=String),
    ],
    source=source("ratings"),
    online=False,
)
item_features = FeatureService(name="item_features", features=[movies, movie_stats])
user_features = FeatureService(name="user_features", features=[user_stats])

EVERYTHING = [
    item, user, movies, movie_stats, user_stats, ratings, item_features, user_features
]
"""


def redis_connection_string(url: str) -> str:
    """Feast's connection string for ``unix:///path`` or ``redis://host:port``."""
    scheme, _, rest = url.partition("://")
    if scheme == "unix":
        return f"localhost:0,unix_socket_path={rest.partition('?')[0]}"
    return rest.rstrip("/")


def build_feast_repository(
    directory: Path | str,
    *,
    offline: Literal["file", "duckdb"] = "file",
    redis: str | None = None,
    users: int | None = 40,
    materialize: bool = False,
) -> Path:
    """Write the files and apply the definitions.

    Args:
        directory: made if missing; becomes the repository's path.
        offline: the type of the offline store.
        redis: Feast's connection string (see `redis_connection_string`); None: an SQLite file.
        users: so many users with all their ratings; None: all 671.
        materialize: load the newest rows of every online view into the online store.

    Returns:
        The repository's path, for ``feast.FeatureStore(repo_path=...)``.
    """
    from feast import FeatureStore

    home = Path(directory).absolute()
    (home / "data").mkdir(parents=True, exist_ok=True)
    for name, table in tables(users).items():
        _write(table, home / "data" / f"{name}.parquet")
    if redis is None:
        online = f"  type: sqlite\n  path: {home}/data/online.db"
    else:
        online = f'  type: redis\n  connection_string: "{redis}"'
    (home / "feature_store.yaml").write_text(
        _YAML.format(project=PROJECT, directory=home, offline=offline, online=online)
    )
    (home / "movielens.py").write_text(_DEFINITIONS)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Feast and what it uses warn about their own code
        store = FeatureStore(repo_path=str(home))
        store.apply(_definitions(home / "movielens.py"))
        if materialize:
            store.materialize(
                start_date=datetime(1990, 1, 1, tzinfo=UTC),
                end_date=datetime(2020, 1, 1, tzinfo=UTC),
                feature_views=["movies", "movie_stats", "user_stats"],
            )
    return home


def tables(users: int | None = 40) -> dict[str, pl.DataFrame]:
    """The four files by name, as `build_feast_repository` writes them."""
    ratings = pl.read_parquet(DATA / "ratings.parquet").select(
        user_id=pl.col("userId").cast(pl.String),
        item_id=pl.col("movieId").cast(pl.Int64),
        rating="rating",
        event=pl.lit("rating"),
        event_timestamp=pl.from_epoch("timestamp", time_unit="s")
        .cast(pl.Datetime("us"))
        .dt.replace_time_zone("UTC"),
    )
    if users is not None:
        some = ratings["user_id"].unique(maintain_order=True).head(users)
        ratings = ratings.filter(pl.col("user_id").is_in(some.implode()))
    ratings = ratings.sort("event_timestamp", "user_id", "item_id")
    movies = _movies(ratings)
    genre = ratings.join(movies.select("item_id", "main_genre"), on="item_id", how="left")
    return {
        "movies": movies,
        "movie_stats": _stats(ratings, "item_id"),
        "user_stats": _stats(genre, "user_id", pl.col("main_genre").last().alias("last_genre")),
        "ratings": ratings,
    }


def _movies(ratings: pl.DataFrame) -> pl.DataFrame:
    known = ratings.group_by("item_id").agg(pl.col("event_timestamp").min())
    genres = pl.col("genres").str.split("|")
    vector = [
        (pl.col("movieId") * (place + 1) % 97 / 97).cast(pl.Float32)
        for place in range(EMBEDDING_WIDTH)
    ]
    return (
        pl.read_parquet(DATA / "movies.parquet")
        .select(
            item_id=pl.col("movieId").cast(pl.Int64),
            title="title",
            main_genre=genres.list.first(),
            genre_list=genres,
            year=pl.col("year").cast(pl.Int64),
            embedding=pl.concat_list(vector),
        )
        .join(known, on="item_id")
        .with_columns(pl.col("event_timestamp") - timedelta(days=1))
        .sort("item_id")
    )


def _stats(ratings: pl.DataFrame, entity: str, *more: pl.Expr) -> pl.DataFrame:
    """Counts and means of all ratings up to the end of each period with a rating."""
    periods = (
        ratings.sort("event_timestamp")
        .group_by(entity, pl.col("event_timestamp").dt.truncate(PERIOD).alias("period"))
        .agg(pl.len().alias("ratings"), pl.col("rating").sum().alias("total"), *more)
        .sort(entity, "period")
    )
    count = pl.col("ratings").cum_sum().over(entity).cast(pl.Int64)
    end = pl.col("period").dt.offset_by(PERIOD)
    late = pl.duration(hours=pl.int_range(pl.len()) * 37 % 480 + 1)
    return periods.select(
        entity,
        *(pl.col(expression.meta.output_name()) for expression in more),
        num_ratings=count,
        mean_rating=(pl.col("total").cum_sum().over(entity) / count).cast(pl.Float32),
        event_timestamp=end,
        created_timestamp=end + late,
    )


def _write(frame: pl.DataFrame, path: Path) -> None:
    """A Parquet file without Arrow's large lists, which Feast cannot append to."""
    arrow = frame.to_arrow()
    lists = {"genre_list": pa.string(), "embedding": pa.float32()}
    small = [
        field.with_type(pa.list_(lists[field.name])) if field.name in lists else field
        for field in arrow.schema
    ]
    pq.write_table(arrow.cast(pa.schema(small)), path)


def _definitions(path: Path) -> list[object]:
    spec = importlib.util.spec_from_file_location("movielens_feast_repository", path)
    if spec is None or spec.loader is None:
        raise RuntimeError(f"{path} cannot be imported")
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return list(module.EVERYTHING)
