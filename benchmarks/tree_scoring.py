"""How fast are trained trees scored, and are the scores LightGBM's?

The floor of a ranking stage: rows of one request (or of a batch) through a LambdaMART model, by
LightGBM's own predict on one thread and by `recsys.ranking.quick_scorer`, in turns in one process.

    python benchmarks/tree_scoring.py [--rows 500 20000] [--trees 160] [--leaves 15 31 63]
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import time
from importlib.metadata import version
from typing import Any

import lightgbm
import numpy as np

from recsys.ranking.quick_scorer import QuickScorer

FEATURES = 36


def grow(leaves: int, trees: int, rng: np.random.Generator) -> lightgbm.Booster:
    """LambdaMART over rows of which a tenth of the values is missing."""
    features = rng.normal(size=(20_000, FEATURES)).astype(np.float32)
    wanted = features[:, :6].sum(axis=1) + rng.normal(size=20_000) > 3.0
    features[rng.random(features.shape) < 0.1] = np.nan
    parameters = {"objective": "lambdarank", "num_leaves": leaves, "verbose": -1, "seed": 0}
    data = lightgbm.Dataset(features, wanted.astype(int), group=[100] * 200)
    return lightgbm.train({**parameters, "num_threads": 1, "deterministic": True}, data, trees)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, nargs="+", default=[500, 20_000])
    parser.add_argument("--trees", type=int, default=160)
    parser.add_argument("--leaves", type=int, nargs="+", default=[15, 31, 63])
    parser.add_argument("--rounds", type=int, default=30)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    rng = np.random.default_rng(options.seed)
    print(
        f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}, "
        f"lightgbm {version('lightgbm')}, numba {version('numba')}; {options.trees} trees, "
        f"{FEATURES} features, one thread, median of {options.rounds} rounds, seed {options.seed}"
    )
    rows: list[dict[str, Any]] = []
    for leaves in options.leaves:
        booster = grow(leaves, options.trees, rng)
        scorer = QuickScorer.of(booster)
        if scorer is None:
            raise SystemExit(f"trees of {leaves} leaves are not scored by QuickScorer")
        for count in options.rows:
            features = rng.normal(size=(count, FEATURES)).astype(np.float32)
            features[rng.random(features.shape) < 0.1] = np.nan
            equal = bool(np.array_equal(scorer(features), booster.predict(features)))
            theirs, ours = [], []
            for _ in range(options.rounds):
                began = time.perf_counter()
                booster.predict(features, num_threads=1)
                middle = time.perf_counter()
                scorer(features)
                theirs.append(middle - began)
                ours.append(time.perf_counter() - middle)
            slow, fast = statistics.median(theirs) * 1e3, statistics.median(ours) * 1e3
            rows.append(
                {
                    "leaves": leaves,
                    "rows": count,
                    "LightGBM ms": round(slow, 3),
                    "QuickScorer ms": round(fast, 3),
                    "times as fast": round(slow / fast, 1),
                    "equal": equal,
                }
            )
    width = {name: max(len(name), *(len(str(row[name])) for row in rows)) for name in rows[0]}
    print("  ".join(name.rjust(width[name]) for name in rows[0]))
    for row in rows:
        print("  ".join(str(value).rjust(width[name]) for name, value in row.items()))
    print(json.dumps({"rows": rows, "equal": all(row["equal"] for row in rows)}))


if __name__ == "__main__":
    main()
