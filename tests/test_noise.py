"""On logs of which nothing can be learned, every system finds what chance does."""

from __future__ import annotations

from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from scipy.stats import binom

from recsys.config import Config
from recsys.dataset import cut_histories, read_dataset
from recsys.pipeline import evaluate, train

USERS, ITEMS, BASKET, K = 60, 120, 6, 20
WORDS = [
    "red",
    "blue",
    "green",
    "black",
    "white",
    "long",
    "short",
    "wool",
    "linen",
    "silk",
    "coat",
    "shirt",
    "sock",
    "shoe",
    "hat",
]
SETTINGS: dict[str, Any] = {
    "content": {"dim": 8},
    "semantic_ids": {"levels": 2, "codes": 8, "epochs": 1},
    "retrieval": {
        "dim": 8,
        "hidden_dim": 8,
        "epochs": 2,
        "negatives": 16,
        "batch_size": 128,
        "history_length": 10,
    },
    "ranking": {
        "candidates_per_source": 60,
        "folds": 2,
        "gbdt": {"num_trees": 10, "min_data_in_leaf": 20},
        "listwise": {"epochs": 1, "dim": 8, "top": 20},
    },
    "evaluation": {"ks": [K], "bootstrap_samples": 10},
}


def noise(seed: int, directory: Path, *, days: int, kind: str, same_time: str) -> Config:
    """Baskets of items drawn at random, of which the day is known; ids rise with the items."""
    rng = np.random.default_rng(seed)
    items = [f"{number:04}" for number in range(ITEMS)]
    rows = [
        (f"u{user}", items[item], f"2018-09-{1 + day:02}")
        for user in range(USERS)
        for part, day in zip(
            np.split(rng.permutation(ITEMS)[: BASKET * days], days), range(days), strict=True
        )
        for item in part
    ]
    log = pl.DataFrame(rows, schema=["user_id", "item_id", "timestamp"], orient="row")
    log.write_csv(directory / "events.csv")
    titles = [" ".join(rng.choice(WORDS, 4)) for _ in items]
    department = [str(number // 12) for number in range(ITEMS)]
    table = pl.DataFrame({"item_id": items, "title": titles, "department": department})
    table.write_csv(directory / "items.csv")
    data = {
        "events": directory / "events.csv",
        "items": directory / "items.csv",
        "columns": {"timestamp_unit": "iso"},
        "rules": {"same_time": same_time},
    }
    split = {"kind": kind, "fraction": 0.7}
    output = {"directory": directory / "artifacts"}
    return Config.model_validate(
        {**SETTINGS, "seed": seed, "data": data, "split": split, "output": output}
    )


@pytest.mark.parametrize(
    ("days", "kind", "same_time"),
    [(1, "per_user", "shuffle"), (3, "per_user", "basket"), (3, "time", "basket")],
)
def test_noise_is_found_as_chance_finds_it(
    tmp_path: Path, days: int, kind: str, same_time: str
) -> None:
    """Ten logs each: hits of all users' held-out items are binomial with the chance of a draw."""
    hits: dict[str, float] = defaultdict(float)
    trials, chance = 0, 0.0
    for seed in range(10):
        directory = tmp_path / str(seed)
        directory.mkdir()
        config = noise(seed, directory, days=days, kind=kind, same_time=same_time)
        bundle = train(config)
        data = read_dataset(config)
        split = data.split(config)
        cut = cut_histories(data.histories(split.train), data.histories(split.test))
        wanted, seen = cut.target.counts, cut.history.counts
        asked = wanted > 0
        trials += int(wanted.sum())
        chance += float((wanted * K / (ITEMS - seen))[asked].sum())
        for name, found in evaluate(config, bundle).items():
            # Every user wants as many items, so the mean of the users is that of the items.
            assert np.unique(wanted[asked]).size == 1
            hits[name] += found.metrics[f"recall@{K}"].mean * wanted.sum()
    assert trials > 1_000
    low, high = binom.interval(1 - 0.01 / len(hits) / 3, trials, chance / trials)
    assert {name: low <= value <= high for name, value in hits.items()} == dict.fromkeys(hits, True)
