"""A small Feast repository on an embedded server: every type, several keys, old and new rows."""

from __future__ import annotations

import shutil
import tempfile
import warnings
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import polars as pl
import pytest

from serving.connection.embedded import EmbeddedStore
from tests.feast_repository import redis_connection_string

NOW = datetime.now(UTC).replace(microsecond=0)
FRESH, OLD = NOW - timedelta(days=1, microseconds=-250), NOW - timedelta(days=40)
TTL = timedelta(days=30)

_YAML = """\
project: shop
provider: local
registry: {home}/registry.db
offline_store:
  type: {offline}
online_store:
  type: {online}
  {where}
entity_key_serialization_version: 3
"""


class Shop(NamedTuple):
    """The repository's directory, its store and a client of its server."""

    home: Path
    store: Any
    client: Any

    def reopened(self, *, online: str = "redis", offline: str = "file") -> Any:
        """The same registry and server through another class of online store."""
        from feast import FeatureStore

        return FeatureStore(fs_yaml_file=write_yaml(self.home, online=online, offline=offline))


def write_yaml(home: Path, *, online: str = "redis", offline: str = "file") -> Path:
    path = home / f"{online}-{offline}.yaml"
    connection = redis_connection_string(EmbeddedStore.ensure(home.parent / "server"))
    where = f'connection_string: "{connection}"'
    if online == "sqlite":
        where = f"path: {home}/online.db"
    path.write_text(_YAML.format(home=home, online=online, offline=offline, where=where))
    return path


def definitions(home: Path) -> list[Any]:
    from feast import Entity, FeatureService, FeatureView, Field, FileSource, ValueType, types

    item = Entity(name="item", join_keys=["item_id"], value_type=ValueType.INT64)
    user = Entity(name="user", join_keys=["user_id"], value_type=ValueType.STRING)

    def view(name: str, entities: list[Any], fields: dict[str, Any], **options: Any) -> Any:
        keys = {"item": ("item_id", types.Int64), "user": ("user_id", types.String)}
        source = FileSource(
            name=f"{name}_source",
            path=str(home / f"{name}.parquet"),
            timestamp_field="event_timestamp",
            created_timestamp_column=options.pop("created", None),
        )
        schema = [keys[entity.name] for entity in entities] + list(fields.items())
        return FeatureView(
            name=name,
            entities=entities,
            schema=[Field(name=name, dtype=dtype) for name, dtype in schema],
            source=source,
            **options,
        )

    every = {
        "float32": types.Float32,
        "float64": types.Float64,
        "int32": types.Int32,
        "int64": types.Int64,
        "flag": types.Bool,
        "moment": types.UnixTimestamp,
        "text": types.String,
        "raw": types.Bytes,
        "floats": types.Array(types.Float32),
        "doubles": types.Array(types.Float64),
        "whole": types.Array(types.Int64),
        "flags": types.Array(types.Bool),
        "texts": types.Array(types.String),
        "moments": types.Array(types.UnixTimestamp),
        "options": types.Map,
    }
    item_types = view("item_types", [item], every)
    item_stats = view(
        "item_stats",
        [item],
        {"clicks": types.Int64, "rate": types.Float32},
        ttl=TTL,
        created="created_timestamp",
    )
    user_stats = view("user_stats", [user], {"clicks": types.Int64}, ttl=TTL)
    pair_stats = view("pair_stats", [user, item], {"clicks": types.Int64}, ttl=TTL)
    both = FeatureService(name="items", features=[item_types[["float32", "text"]], item_stats])
    return [item, user, item_types, item_stats, user_stats, pair_stats, both]


def type_rows() -> list[dict[str, Any]]:
    """Item 1 has every value, item 2 other ones, item 3 nulls alone."""
    rng = np.random.default_rng(0)
    full = [
        {
            "item_id": item,
            "event_timestamp": FRESH,
            "float32": np.float32(rng.normal()).item(),
            "float64": rng.normal(),
            "int32": -item,
            "int64": 2**53 - item,
            "flag": item == 1,
            "moment": FRESH.replace(microsecond=0),
            "text": f"naïve {'x' * 100 * item}",
            "raw": bytes(range(item * 70)),
            "floats": rng.normal(size=4).astype(np.float32).tolist(),
            "doubles": rng.normal(size=item).tolist(),
            "whole": [1, -2, 2**40],
            "flags": [True, False],
            "texts": ["", "a"],
            "moments": [FRESH.replace(microsecond=0)],
            "options": {"a": "b"},
        }
        for item in (1, 2)
    ]
    return [*full, dict.fromkeys(full[0]) | {"item_id": 3, "event_timestamp": FRESH}]


def stat_rows() -> pl.DataFrame:
    """Items 1, 2 and 10 to 39 of yesterday, item 4 of 40 days ago, beyond the ttl."""
    items = [1, 2, 4, *range(10, 40)]
    return pl.DataFrame(
        {
            "item_id": items,
            "event_timestamp": [OLD if item == 4 else FRESH for item in items],
            "created_timestamp": [NOW for _ in items],
            "clicks": [item * 3 for item in items],
            "rate": pl.Series([item / 7 for item in items], dtype=pl.Float32),
        }
    )


def user_rows() -> pl.DataFrame:
    users = ["u1", "ü2"]
    return pl.DataFrame({"user_id": users, "event_timestamp": FRESH, "clicks": [5, 6]})


def pair_rows() -> pl.DataFrame:
    return user_rows().with_columns(item_id=pl.Series([1, 2]), clicks=pl.Series([7, 8]))


@pytest.fixture(scope="session")
def shop() -> Iterator[Shop]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Feast and what it uses warn about their own code
        pytest.importorskip("feast", reason="the extra recsys[feast] is not installed")
    import redis
    from feast import FeatureStore

    directory = Path(tempfile.mkdtemp(prefix="rs-", dir="/tmp"))
    home = directory / "repository"
    home.mkdir()
    url = EmbeddedStore.ensure(directory / "server")
    frames = {
        "item_stats": stat_rows(),
        "user_stats": user_rows(),
        "pair_stats": pair_rows(),
    }
    for name, frame in frames.items():
        frame.write_parquet(home / f"{name}.parquet")
    pl.DataFrame(
        [
            {key: row[key] for key in ("item_id", "event_timestamp", "float32")}
            for row in type_rows()
        ]
    ).write_parquet(home / "item_types.parquet")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        store = FeatureStore(fs_yaml_file=write_yaml(home))
        store.apply(definitions(home))
        for name, frame in frames.items():
            store.write_to_online_store(name, frame.to_pandas())
        import pandas as pd

        types = pd.DataFrame({name: [row[name] for row in type_rows()] for name in type_rows()[0]})
        store.write_to_online_store("item_types", types.astype({"item_id": "int64"}))
    client = redis.Redis.from_url(url)
    yield Shop(home, store, client)
    client.close()
    EmbeddedStore.stop(directory / "server")
    shutil.rmtree(directory, ignore_errors=True)
