"""Scores of `QuickScorer` are LightGBM's, bit for bit."""

from __future__ import annotations

from typing import Any

import lightgbm
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from recsys.ranking.gbdt import GbdtRanker
from recsys.ranking.options import GbdtOptions
from recsys.ranking.quick_scorer import QuickScorer

WIDTH = 5


def grow(seed: int = 0, *, rows: int = 900, zeros: bool = False, **parameters: Any) -> Any:
    """A model over columns with and without missing values, some of them whole numbers."""
    rng = np.random.default_rng(seed)
    features = rng.normal(size=(rows, WIDTH))
    features[:, 1] = rng.integers(-2, 4, rows)
    features[rng.random(rows) < 0.3, 2] = np.nan
    features[features[:, 0] > 0.4, 3] = np.nan  # missing means something
    label = features[:, 0] + (features[:, 1] > 1) * np.nan_to_num(features[:, 2], nan=2.0)
    label = label + rng.normal(size=rows) * 0.1
    if zeros:
        features[rng.random(rows) < 0.5, 4] = 0.0
    given = {"objective": "regression", "verbose": -1, "min_data_in_leaf": 2, "seed": seed}
    return lightgbm.train({**given, **parameters}, lightgbm.Dataset(features, label), 20)


def asked(booster: Any, rows: int, seed: int = 1) -> np.ndarray:
    """Rows on the thresholds, next to them, missing, infinite and far away."""
    rng = np.random.default_rng(seed)
    scorer = QuickScorer.of(booster)
    assert scorer is not None
    features = rng.normal(size=(rows, WIDTH)).astype(np.float32)
    for column in range(WIDTH):
        limits = scorer.threshold[scorer.feature == column]
        if limits.size:
            on = rng.choice(limits, rows)
            side = rng.choice(np.array([-np.inf, np.inf], dtype=np.float32), rows)
            with np.errstate(over="ignore"):
                near = np.where(rng.random(rows) < 0.5, on, np.nextafter(on, side))
            features[:, column] = np.where(rng.random(rows) < 0.7, near, features[:, column])
    odd = np.array([np.nan, np.inf, -np.inf, 0.0, -0.0, 1e-36, 3e38], dtype=np.float32)
    strange = rng.random(features.shape) < 0.2
    features[strange] = rng.choice(odd, int(strange.sum()))
    return features


@pytest.mark.parametrize("leaves", [2, 7, 31, 32, 33, 64])
@pytest.mark.parametrize("rows", [1, 511, 512, 513, 1100])
def test_scores_are_those_of_lightgbm(leaves: int, rows: int) -> None:
    booster = grow(leaves, num_leaves=leaves)
    features = asked(booster, rows)
    scorer = QuickScorer.of(booster)
    assert scorer is not None
    assert scorer.kept.dtype == (np.uint32 if leaves <= 32 else np.uint64)
    assert np.array_equal(scorer(features), booster.predict(features))


def test_missing_values_fail_some_nodes_and_pass_others() -> None:
    scorer = QuickScorer.of(grow(3, num_leaves=31))
    assert scorer is not None
    assert 0 < scorer.nan_fails.sum() < scorer.nan_fails.size
    assert 0 < scorer.nan_is_zero.sum() < WIDTH


@settings(max_examples=30, deadline=None)
@given(
    seed=st.integers(0, 10_000),
    leaves=st.integers(2, 64),
    depth=st.sampled_from([-1, 1, 3, 12]),
    use_missing=st.booleans(),
)
def test_any_trees(seed: int, leaves: int, depth: int, use_missing: bool) -> None:
    booster = grow(seed, rows=200, num_leaves=leaves, max_depth=depth, use_missing=use_missing)
    features = asked(booster, 64, seed)
    scorer = QuickScorer.of(booster)
    assert scorer is not None
    assert np.array_equal(scorer(features), booster.predict(features))


def test_trees_that_cannot_split_are_their_one_leaf() -> None:
    booster = grow(0, rows=40, min_data_in_leaf=30)
    scorer = QuickScorer.of(booster)
    assert scorer is not None
    features = np.zeros((3, WIDTH), dtype=np.float32)
    assert np.array_equal(scorer(features), booster.predict(features))


@pytest.mark.parametrize(
    "parameters",
    [
        {"num_leaves": 65, "min_data_in_leaf": 1},
        {"zero_as_missing": True, "zeros": True},
        {"linear_tree": True, "zeros": False},
        {"objective": "multiclass", "num_class": 2},
        {"boosting": "rf", "bagging_freq": 1, "bagging_fraction": 0.5},
        {"categorical_feature": [1]},
    ],
)
def test_what_only_lightgbm_scores(parameters: dict[str, Any]) -> None:
    rng = np.random.default_rng(0)
    if "num_class" in parameters or "categorical_feature" in parameters:
        features = np.abs(rng.integers(0, 5, (400, WIDTH))).astype(float)
        data = lightgbm.Dataset(
            features,
            (features[:, 1] % 2).astype(int),
            categorical_feature=parameters.pop("categorical_feature", "auto"),
        )
        booster = lightgbm.train({"verbose": -1, **parameters}, data, 3)
    else:
        booster = grow(0, **parameters)
    assert QuickScorer.of(booster) is None


def test_a_compiled_ranker_gives_the_same_scores() -> None:
    rng = np.random.default_rng(0)
    features = rng.normal(size=(600, 3)).astype(np.float32)
    features[rng.random(600) < 0.2, 1] = np.nan
    label = (features[:, 0] > 0.8).astype(int)
    ranker = GbdtRanker.fit(
        features,
        label,
        np.repeat(np.arange(30), 20),
        feature_names=["a", "b", "c"],
        options=GbdtOptions(num_trees=30, min_data_in_leaf=5),
    )
    before, part = ranker.predict(features), ranker.predict(features, num_trees=7)
    ranker.compile()
    assert np.array_equal(ranker.predict(features), before)
    assert np.array_equal(ranker.predict(features, num_trees=7), part)
    assert ranker.predict(features[:0]).shape == (0,)
    with pytest.raises(ValueError, match=r"features must be \[R, 3\], got shape \(600, 2\)"):
        ranker.predict(features[:, :2])
    assert np.array_equal(ranker.predict(features[:, ::-1][:, ::-1]), before), "any memory layout"
