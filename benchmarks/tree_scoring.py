"""How fast are trained trees scored, and are the scores LightGBM's?

The floor of a ranking stage: rows of one request (or of a batch) through a LambdaMART model, by
LightGBM's own predict on one thread and by `recsys.ranking.quick_scorer`, in turns in one process.

    python benchmarks/tree_scoring.py [--rows 500 20000] [--trees 160] [--leaves 15 31 63]
"""

from __future__ import annotations

import argparse
import statistics
import time
from typing import Any

import lightgbm
import numpy as np
from reporting import Report

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
    report = Report("tree_scoring", options, ("lightgbm", "numba"))
    report.data(f"rows of {FEATURES} features, a tenth missing; one thread")
    rng = np.random.default_rng(options.seed)
    rows: list[dict[str, Any]] = []
    differing = 0
    for leaves in options.leaves:
        booster = grow(leaves, options.trees, rng)
        scorer = QuickScorer.of(booster)
        if scorer is None:
            raise SystemExit(f"trees of {leaves} leaves are not scored by QuickScorer")
        for count in options.rows:
            features = rng.normal(size=(count, FEATURES)).astype(np.float32)
            features[rng.random(features.shape) < 0.1] = np.nan
            differing += int((scorer(features) != booster.predict(features)).sum())
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
                }
            )
    report.table(rows)
    report.bar("scores that differ from LightGBM's", differing, equal_to=0)
    report.close(rows=rows)


if __name__ == "__main__":
    main()
