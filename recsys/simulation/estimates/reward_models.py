"""Reward models for `dm` and `dr`, each round predicted by a model that has not seen its unit."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple, Protocol

import numpy as np

from recsys.simulation.estimates.logged_feedback import LoggedFeedback

__all__ = [
    "CrossFitted",
    "LightGbmRewards",
    "LookupRewards",
    "Predicted",
    "RewardModel",
    "cross_fit",
]

# Entries of one [rounds, K] table that are held at once.
BLOCK_ENTRIES = 2_000_000


class RewardModel(Protocol):
    """What `cross_fit` asks of a model."""

    def rewards(self, log: LoggedFeedback) -> np.ndarray:
        """[n, K] float64 expected reward of every action at the rounds of ``log``, or [1, K]."""


class Predicted(NamedTuple):
    """What the models say of a log and a policy.

    Attributes:
        predicted: [n] float64 reward of the logged action.
        expected: [n] float64 expected reward under the policy.
    """

    predicted: np.ndarray
    expected: np.ndarray


class CrossFitted(NamedTuple):
    """Models and the rounds each has not seen.

    Attributes:
        models: one a fold.
        fold: [n] int64, the model of each round.
        log: the rounds.
    """

    models: tuple[RewardModel, ...]
    fold: np.ndarray
    log: LoggedFeedback

    def predict(self, policy: np.ndarray) -> Predicted:
        """Rewards of the logged actions, and those expected under ``policy`` [n, K] or [K].

        Raises:
            ValueError: the policy has another shape.
        """
        log = self.log
        n, num_actions = len(log), log.num_actions
        if policy.shape not in ((n, num_actions), (num_actions,)):
            raise ValueError(
                f"policy must be [{n}, {num_actions}] or [{num_actions}], got {policy.shape}"
            )
        predicted, expected = np.empty(n), np.empty(n)
        block = max(1, BLOCK_ENTRIES // num_actions)
        for fold, model in enumerate(self.models):
            rows = np.flatnonzero(self.fold == fold)
            for first in range(0, rows.size, block):
                part = rows[first : first + block]
                table = model.rewards(log.take(part))  # [b, K] or [1, K]
                table = np.broadcast_to(table, (part.size, num_actions))
                predicted[part] = table[np.arange(part.size), log.action[part]]
                chances = policy if policy.ndim == 1 else policy[part]
                if chances.ndim == 1:
                    expected[part] = table @ chances
                else:
                    expected[part] = np.einsum("bk,bk->b", table, chances)
        return Predicted(predicted, expected)


def cross_fit(
    log: LoggedFeedback,
    fit: Callable[[LoggedFeedback], RewardModel],
    *,
    rng: np.random.Generator,
    folds: int = 2,
) -> CrossFitted:
    """Fit on the other folds; units stay whole.

    Args:
        log: the rounds.
        fit: makes a model from rounds, such as `LookupRewards.fit`.
        rng: draws the folds.
        folds: >= 2; more give each model more rounds and cost more time.

    Raises:
        ValueError: fewer units than folds.

    Source: Chernozhukov et al., Double/debiased machine learning, 2018.
    """
    units = np.arange(len(log)) if log.unit is None else np.unique(log.unit, return_inverse=True)[1]
    num_units = int(units.max()) + 1 if len(log) else 0
    if folds < 2 or num_units < folds:
        raise ValueError(f"folds must be 2..{num_units}, the number of units, got {folds}")
    fold = (rng.permutation(num_units) % folds)[units].astype(np.int64)
    models = tuple(fit(log.take(fold != one)) for one in range(folds))
    return CrossFitted(models, fold, log)


class LookupRewards:
    """The mean reward of each action at each position, drawn towards that of all rounds.

    A plain table has the right level where it has rounds: on the Open Bandit Dataset it is nearer
    to the truth as direct method than a logistic model with a better AUC.

    Attributes:
        table: [P, K] float64, row p - 1 for position p.
    """

    def __init__(self, table: np.ndarray) -> None:
        self.table = table

    @classmethod
    def fit(cls, log: LoggedFeedback, *, prior_rounds: float = 10.0) -> LookupRewards:
        """Means of ``log``, with ``prior_rounds`` rounds of the mean of the position added."""
        if prior_rounds < 0:
            raise ValueError(f"prior_rounds must be >= 0, got {prior_rounds}")
        place = np.zeros(len(log), dtype=np.int64) if log.position is None else log.position - 1
        places = int(place.max()) + 1
        key = place * log.num_actions + log.action
        size = places * log.num_actions
        count = np.bincount(key, minlength=size).reshape(places, -1).astype(np.float64)
        total = np.bincount(key, weights=log.reward, minlength=size).reshape(places, -1)
        overall = float(log.reward.mean())
        rounds = count.sum(axis=1, keepdims=True)
        mean = np.divide(
            total.sum(axis=1, keepdims=True), rounds, out=np.full_like(rounds, overall),
            where=rounds > 0,
        )  # fmt: skip
        below = count + prior_rounds
        table = np.divide(
            total + prior_rounds * mean, below, out=np.repeat(mean, log.num_actions, axis=1),
            where=below > 0,
        )  # fmt: skip
        return cls(table)

    def rewards(self, log: LoggedFeedback) -> np.ndarray:
        """[n, K], or [1, K] without positions; a position that was not seen has the last one's."""
        if log.position is None:
            return self.table[:1]
        found: np.ndarray = self.table[np.minimum(log.position, len(self.table)) - 1]
        return found


class LightGbmRewards:
    """Gradient-boosted trees over context, position and action features.

    Attributes:
        booster: ``lightgbm.Booster``.
        action_features: [K, F] float64; None: the action's number as a category.
    """

    def __init__(self, booster: Any, action_features: np.ndarray | None) -> None:
        self.booster = booster
        self.action_features = action_features

    @classmethod
    def fit(
        cls,
        log: LoggedFeedback,
        *,
        action_features: np.ndarray | None = None,
        num_trees: int = 100,
        num_leaves: int = 15,
        learning_rate: float = 0.05,
        min_data_in_leaf: int = 20,
        seed: int = 0,
    ) -> LightGbmRewards:
        """Grow the trees with squared error, whose prediction is a mean.

        Args:
            log: the rounds.
            action_features: [K, F]; NaN = missing.
            num_trees: >= 1.
            num_leaves: of a tree, >= 2.
            learning_rate: > 0.
            min_data_in_leaf: >= 1.
            seed: same seed, same trees.

        Raises:
            ValueError: action_features is not one row an action.
        """
        import lightgbm

        if action_features is not None and (
            action_features.ndim != 2 or len(action_features) != log.num_actions
        ):
            raise ValueError(
                f"action_features must be [K, F] with K = {log.num_actions}, got "
                f"{action_features.shape}"
            )
        rows = _features(log, log.action, np.arange(len(log)), action_features)
        categories = [rows.shape[1] - 1] if action_features is None else "auto"
        data = lightgbm.Dataset(rows, log.reward, categorical_feature=categories)
        parameters = {
            "objective": "regression",
            "num_leaves": num_leaves,
            "learning_rate": learning_rate,
            "min_data_in_leaf": min_data_in_leaf,
            "max_cat_to_onehot": 1,
            "seed": seed,
            "deterministic": True,
            "num_threads": 1,
            "verbose": -1,
        }
        return cls(lightgbm.train(parameters, data, num_trees), action_features)

    def rewards(self, log: LoggedFeedback) -> np.ndarray:
        """[n, K] float64; n * K rows go through the trees."""
        n, num_actions = len(log), log.num_actions
        action = np.tile(np.arange(num_actions), n)
        rows = np.repeat(np.arange(n), num_actions)
        features = _features(log, action, rows, self.action_features)
        table: np.ndarray = self.booster.predict(features, num_threads=1)
        return table.reshape(n, num_actions)


def _features(
    log: LoggedFeedback, action: np.ndarray, rows: np.ndarray, action_features: np.ndarray | None
) -> np.ndarray:
    """[m, D + P + F] float64 of the rounds ``rows`` [m] with the actions [m]."""
    parts: list[np.ndarray] = []
    if log.context is not None:
        parts.append(log.context[rows].astype(np.float64))
    if log.position is not None:
        parts.append(log.position[rows, None].astype(np.float64))
    last = action[:, None] if action_features is None else action_features[action]
    parts.append(last.astype(np.float64))
    return np.concatenate(parts, axis=1)
