"""Random logs and tables of every shape, with small settings: what people bring, and worse."""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from recsys.config import Config

START = 1_600_000_000
DAY = 86_400
NAMES = ("price", "item", "moment", "user_id", "genres_count", "item_count", "a b", 'x, "y" [z]')
SOURCES = ("item_item", "item_item_all", "co_occurrence", "next_item")

Rng = np.random.Generator


def _words(rng: Rng, count: int, most: int) -> list[str]:
    words = ["red", "blue", "wool", "silk", "coat", "hat", "ring", "dog", "tea", "lamp", "", " "]
    return [" ".join(rng.choice(words, rng.integers(0, most + 1))) for _ in range(count)]


COLUMNS: dict[str, Callable[[Rng, int], pl.Series]] = {
    "text": lambda rng, n: pl.Series(_words(rng, n, 5)),
    "category": lambda rng, n: pl.Series([["a", "b", "", None][k] for k in rng.integers(0, 4, n)]),
    "list": lambda rng, n: pl.Series([list("xyzx")[: rng.integers(0, 4)] for _ in range(n)]),
    "joined": lambda rng, n: pl.Series(["|".join("uvw"[: rng.integers(0, 4)]) for _ in range(n)]),
    "whole": lambda rng, n: pl.Series(rng.integers(0, 9, n)),
    "year": lambda rng, n: pl.Series(rng.integers(1990, 2021, n)),
    "float": lambda rng, n: pl.Series(rng.normal(size=n)).scatter(0, float("inf")) if n else None,
    "missing": lambda rng, n: pl.Series([None] * n, dtype=pl.Float64),
    "same": lambda rng, n: pl.Series(["the same"] * n),
    "decimal": lambda rng, n: pl.Series([Decimal(int(k)) / 4 for k in rng.integers(0, 9, n)]),
    "bool": lambda rng, n: pl.Series(rng.random(n) < 0.5),
    "binary": lambda rng, n: pl.Series([b"\xff\x00"] * n),
    "duration": lambda rng, n: pl.Series([dt.timedelta(minutes=k) for k in range(n)]),
    "date": lambda rng, n: pl.Series([dt.date(2020, 1, 1 + k % 28) for k in range(n)]),
    "vector": lambda rng, n: pl.Series(rng.normal(size=(n, 3)), dtype=pl.Array(pl.Float64, 3)),
    "record": lambda rng, n: pl.Series([{"a": k, "b": ["x"]} for k in range(n)]),
    "wide": lambda rng, n: pl.Series([10**25 + k for k in range(n)], dtype=pl.Int128),
    "null": lambda rng, n: pl.Series([None] * n),
}


def _described(rng: Rng, ids: list[str], key: str) -> pl.DataFrame:
    """A table of these ids with up to five columns of any kind and name."""
    frame = pl.DataFrame({key: pl.Series(ids, dtype=pl.String)})
    kinds = rng.choice(list(COLUMNS), rng.integers(0, 6), replace=False).tolist()
    for kind in kinds:
        name = str(rng.choice(NAMES)) if rng.random() < 0.3 else f"c_{kind}"
        column = COLUMNS[kind](rng, len(ids))
        if column is not None and name not in (*frame.columns, key):
            frame = frame.with_columns(column.alias(name))
    return frame


def _times(rng: Rng, count: int) -> np.ndarray:
    span = int(rng.choice([3_600, 30 * DAY, 900 * DAY]))
    time = START + rng.integers(0, span, count)
    kind = rng.integers(0, 5)
    if kind == 0:
        return np.full(count, START)
    if kind == 1:
        return time // DAY * DAY
    return time


def any_log(seed: int, directory: Path) -> Config:
    """Files in ``directory`` and the configuration of a run with them; the same for a seed."""
    rng = np.random.default_rng(seed)
    users, items = (int(rng.choice([1, 2, 3, 8, 25], p=[0.1, 0.1, 0.1, 0.3, 0.4])) for _ in "ui")
    count = int(rng.choice([0, 1, 3, 20, 60, 150], p=[0.03, 0.04, 0.08, 0.2, 0.3, 0.35]))
    popular = rng.dirichlet(np.full(items, 0.5))
    events = pl.DataFrame(
        {
            "user_id": [f"u{k}" for k in rng.integers(0, users, count)],
            "item_id": [f"i{k}" for k in rng.choice(items, count, p=popular)],
            "timestamp": _times(rng, count),
            "weight": rng.integers(1, 6, count).astype(np.float64),
            "event": rng.choice(["view", "cart", "buy"], count),
        },
        schema_overrides={"user_id": pl.String, "item_id": pl.String, "event": pl.String},
    )
    events = events.drop([name for name in ("weight", "event") if rng.random() < 0.5])
    key = [name for name in events.columns if name != "weight"]
    events = events.unique(key, maintain_order=True)
    if rng.random() < 0.2:  # nobody comes back
        events = events.unique("user_id", keep="first", maintain_order=True)
    events.write_parquet(directory / "events.parquet")
    data: dict[str, Any] = {"events": directory / "events.parquet"}
    if rng.random() < 0.75:
        known = [f"i{k}" for k in range(items + int(rng.integers(0, 4)))]
        _written(_described(rng, known, "item_id"), directory / "items.parquet")
        data["items"] = directory / "items.parquet"
    if rng.random() < 0.25:
        people = [f"u{k}" for k in range(users)]
        _written(_described(rng, people, "user_id"), directory / "users.parquet")
        data["users"] = directory / "users.parquet"
    data |= _rules(rng, events.columns)
    settings = {**_settings(rng), "data": data, "output": {"directory": directory}}
    return Config.model_validate(settings)


def _written(frame: pl.DataFrame, path: Path) -> None:
    wide = [name for name, dtype in frame.schema.items() if dtype == pl.Int128]
    frame.with_columns(pl.col(wide).cast(pl.Decimal(38, 0))).write_parquet(path)


def _rules(rng: Rng, columns: list[str]) -> dict[str, Any]:
    """What the rows mean: kinds that weigh, are wanted or disliked, and stars."""
    found: dict[str, Any] = {}
    rules: dict[str, Any] = {}
    if "event" in columns and rng.random() < 0.5:
        found["kinds"] = {"view": 0.1, "buy": 1.0, "cart": float(rng.choice([-1, 0, 1]))}
        if rng.random() < 0.5:
            rules["targets"] = ("buy",)
    if "weight" in columns and rng.random() < 0.5:
        rules["positive"] = ">= 3"
        if rng.random() < 0.5:
            rules["negative"] = "<= 1"
    if rng.random() < 0.3:
        rules["same_time"] = "shuffle"
    return {**found, "rules": rules}


def _settings(rng: Rng) -> dict[str, Any]:
    def chance(share: float) -> bool:
        return bool(rng.random() < share)

    towers = chance(0.35)
    counted = [str(name) for name in SOURCES if chance(0.5)]
    retrieval: dict[str, Any] = {
        "sources": (*(["two_tower"] if towers else []), *counted, "popularity"),
        "dim": 8,
        "hidden_dim": 8,
        "epochs": 1,
        "negatives": 8,
        "batch_size": 32,
        "history_length": 5,
        "index": "annoy" if chance(0.2) else "exact",
        "int8": chance(0.5),
        "use_user_id": chance(0.3),
    }
    if chance(0.2):
        retrieval |= {"light_user_tower": True}
    if chance(0.2):
        retrieval |= {"threshold_head": True}
    if chance(0.3):
        retrieval |= {"loss": str(rng.choice(["directau", "bpr"]))}
    return {
        "seed": int(rng.integers(100)),
        "split": {"kind": "time" if chance(0.3) else "per_user", "fraction": 0.8},
        "content": {"dim": 8},
        "semantic_ids": {
            "kind": "rqvae" if chance(0.2) else "residual_kmeans",
            "levels": int(rng.integers(1, 4)),
            "codes": int(rng.choice([2, 8, 128])),
            "epochs": 2,
        },
        "retrieval": retrieval,
        "ranking": {
            "candidates_per_source": int(rng.choice([2, 20])),
            "retrieval_features": chance(0.8),
            "diversity": 0.5 if chance(0.3) else 0.0,
            "folds": int(rng.integers(2, 5)),
            "gbdt": {"num_trees": 3, "min_data_in_leaf": 2},
            "listwise": {"enabled": chance(0.3), "epochs": 1, "dim": 4, "top": 5},
        },
        "evaluation": {"bootstrap_samples": 20},
    }
