"""Keep features current with every event, and check that they are what training sees.

Run: python examples/04_features_event_by_event.py [--data DIRECTORY]

The definitions of a feature become running state: an event updates a few small cells, a request
reads them. Events may arrive late or twice. Replaying a log and comparing every value with the
offline computation shows whether live and training agree.
"""

from __future__ import annotations

import argparse
import time
from datetime import timedelta
from pathlib import Path

import numpy as np
import polars as pl

from features import (
    Affinity,
    Count,
    EventColumns,
    MeanWeight,
    OnlineFeatures,
    Recency,
    Session,
    UniqueCount,
    arrival,
    check_parity,
    read_interactions,
    read_items,
)

parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument("--data", type=Path, default=Path(__file__).parent / "data")
DATA: Path = parser.parse_args().data

items = read_items(DATA / "movies.parquet", id_column="movieId")
columns = EventColumns("userId", "movieId", weight="rating", unit="s")
log = read_interactions(DATA / "ratings.parquet", columns=columns, items=items)
events = log.frame.head(6_000)

DEFINITIONS = (
    Count(name="film_ratings"),
    Count(name="film_last_year", window_days=365.0, refresh_s=86_400),  # moves at midnight
    MeanWeight(name="film_mean"),
    UniqueCount(name="genre_users", by="attribute", column="genres", of="user"),
    Recency(name="user_idle_s", by="user", unit="s"),
    Session(name="session_ratings", session_minutes=30),
    Affinity(name="genre_share", column="genres"),
)
NAMES = [definition.name for definition in DEFINITIONS]

# Events go in as they come, here from a log, in a service one by one.
online = OnlineFeatures(DEFINITIONS, items)
began = time.perf_counter()
for start in range(0, events.height, 500):
    online.update(events[start : start + 500])
rate = events.height / (time.perf_counter() - began)
print(f"{events.height:,} events, {rate:,.0f} a second")

user, film = str(events["user_id"][-1]), str(events["item_id"][-1])
newest = events["timestamp"][-1]
before = online.request_features(user, [film], newest + timedelta(minutes=1))
click = arrival(user, film, newest + timedelta(minutes=2), weight=5.0)
first, again = online.update([click]), online.update([click])
after = online.request_features(user, [film], newest + timedelta(minutes=3))
print(f"one more rating: {first.applied} applied; sent again: {again.duplicates} duplicate")
for name in NAMES:
    print(f"  {name:<16}{before[name][0]:>16.3f}{after[name][0]:>16.3f}")

# Every tenth event arrives a day late, every twentieth twice: online still equals offline.
number = np.arange(events.height)
late = pl.Series((number % 10 == 0) * 86_400_000_000).cast(pl.Duration("us"))
stream = events.with_columns(created=pl.col("timestamp") + late)
stream = pl.concat([stream, stream.gather_every(20)])
chosen = np.sort(np.random.default_rng(0).choice(events.height, 150, replace=False))
requests = events[chosen].select("user_id", "item_id", moment=pl.col("timestamp"))
report = check_parity(DEFINITIONS, requests.with_row_index("request_id"), stream, items)
print(f"{report.update.late} late events, {report.update.duplicates} duplicates")
print(f"{report.values:,} values compared, {sum(report.differing.values())} differ")
