"""Compute features as they stood at the moment of each request, and the same ones live.

Run: python examples/02_features_point_in_time.py [--data DIRECTORY]

A feature of a training row may only know what was known when the row happened. Definitions say
what a feature is; one code computes it for a table of past requests and for one request now.
"""

from __future__ import annotations

import argparse
from datetime import datetime
from pathlib import Path

import numpy as np
import polars as pl

from features import (
    Affinity,
    Count,
    EventColumns,
    Field,
    MeanWeight,
    Recency,
    compute_features,
    item_features,
    read_interactions,
    read_items,
    request_features,
)

parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument("--data", type=Path, default=Path(__file__).parent / "data")
DATA: Path = parser.parse_args().data

items = read_items(DATA / "movies.parquet", id_column="movieId")
columns = EventColumns("userId", "movieId", weight="rating", unit="s")
log = read_interactions(DATA / "ratings.parquet", columns=columns, items=items)

DEFINITIONS = (
    Count(name="film_ratings", by="item"),
    MeanWeight(name="film_mean", by="item"),
    Count(name="film_last_year", by="item", window_days=365.0),
    Recency(name="film_idle_s", by="item", unit="s"),
    Count(name="user_ratings", by="user"),
    Affinity(name="genre_share", column="genres", how="mean"),
    Field(name="year", column="year"),
)
NAMES = [definition.name for definition in DEFINITIONS]

# One user and one film at three moments: what is known of them grows.
user, film = str(log.frame["user_id"][-1]), str(log.frame["item_id"].mode().sort()[0])
moments = [datetime(2000, 1, 1), datetime(2008, 1, 1), datetime(2016, 12, 1)]
requests = pl.DataFrame(
    {
        "request_id": [0, 1, 2],
        "user_id": [user] * 3,
        "item_id": [film] * 3,
        "moment": pl.Series(moments, dtype=pl.Datetime("us")),
    }
)
past = compute_features(DEFINITIONS, requests, log, items)
print(f"user {user}, film {film}, at three moments")
for name in NAMES:
    print(f"  {name:<16}" + "".join(f"{value:>16.3f}" for value in past[name]))

# Events at or after a moment change nothing: cut them off, and the row is the same.
cut = compute_features(DEFINITIONS, requests[1:2], log.before(moments[1]), items)
assert cut.equals(past[1:2], null_equal=True), "a feature saw the future"

# A live request has the user's own events and the film's published values, not the whole log.
published = item_features(DEFINITIONS, items, log, moments[2])
own = log.filter_users([user])
live = request_features(DEFINITIONS, user, [film], moments[2], own, published, items)
batch = past[2:3].select(NAMES).to_numpy()
difference = float(np.nanmax(np.abs(live.select(NAMES).to_numpy() - batch)))
print(f"largest difference between batch and live: {difference:.1e}")
