"""A world learned from a log, and what it does against what the log says."""

from __future__ import annotations

from dataclasses import replace
from typing import NamedTuple

import numpy as np

from features.tables import Histories
from recsys.simulation.world.calibration import DecileRate, RateCurve, decile_rates
from recsys.simulation.world.clicks import ClickModel, draw_clicks
from recsys.simulation.world.world import World, pair_features, weighted

__all__ = ["Honesty", "fit_world"]

_BLOCK = 512
"""Users whose pairs with all items are scored together."""
_PERIODS = 24
"""Periods of the log; each has its own popular items."""
_SHRINKAGE = 5.0
"""Events that a user's or an item's mean weight is shrunk by."""
_NEGATIVES = 400_000
"""Pairs that were not met, in the regression; each counts for as many as it stands for."""


class Honesty(NamedTuple):
    """What the log says against what the world does.

    Each half of the users is simulated with maps learned from the other half, and by their scores
    alone: what was really met is left out of the attraction.

    Attributes:
        clicks: per decile of rate over all pairs of users with items outside the part the tastes
            are from: share met in the held-out part, against simulated clicks on a place that is
            always looked at.
        conversions: per decile of rate over the held-out events: share that were good, against
            simulated conversions. Empty without weights.
    """

    clicks: list[DecileRate]
    conversions: list[DecileRate]


def fit_world(
    histories: Histories,
    num_items: int,
    *,
    rng: np.random.Generator,
    dim: int = 24,
    held_out: float = 0.2,
    known: float = 0.5,
    good_weight: float = 4.0,
) -> tuple[World, Honesty]:
    """Learn a world from a log, and say how honest it is.

    Args:
        histories: U rows of the whole log. An item met twice counts once.
        num_items: N.
        rng: splits the users, and simulates for the check.
        dim: D of tastes and factors, below min(U, N).
        held_out: share of each user's events that tastes do not see, the last ones, in (0, 1).
        known: share of a pair's attraction that is whether it was met there, in [0, 1].
        good_weight: an event of this weight or more is a good one.

    Raises:
        ValueError: a setting is out of range, or the log is too small for it.

    Source: factors: Cremonesi et al., Performance of recommender algorithms on top-n
    recommendation tasks, RecSys 2010 (PureSVD), on counts scaled by activity.
    """
    num_users = len(histories)
    if not 0.0 <= known <= 1.0:
        raise ValueError(f"known must be in [0, 1], got {known}")
    if not 0.0 < held_out < 1.0:
        raise ValueError(f"held_out must be above 0 and below 1, got {held_out}")
    if not 1 <= dim < min(num_users, num_items):
        raise ValueError(
            f"dim must be in 1..{min(num_users, num_items) - 1}, fewer than users and items, "
            f"got {dim}"
        )
    _, first = np.unique(histories.rows * (num_items + 1) + histories.item_index, return_index=True)
    user, item = histories.rows[first], histories.item_index[first]
    weight = histories.weight[first].astype(np.float64)
    held = _later(histories, held_out)[first]
    good = weight >= good_weight
    draft = World(
        **_periods(histories, user[~held], item[~held], first[~held], num_items),
        **_factors(user[~held], item[~held], num_users, num_items, dim, rng),
        coefficient=np.zeros(0),
        attraction_curve=RateCurve(np.zeros(1), np.full(1, 0.5)),
        later=np.sort(user[held] * (num_items + 1) + item[held]),
        known=known,
        **_levels(user[~held], item[~held], good[~held], num_users, num_items),
        conversion_curve=None,
        conversion_rate=float(good.mean()) if good.any() and not good.all() else 0.5,
    )
    log = _Log(user, item, good, held)
    halves = rng.random(num_users) < 0.5
    checks = [_check(draft, log, np.nonzero(halves == half)[0], rng) for half in (True, False)]
    return _with_maps(draft, log, np.arange(num_users), rng), Honesty(
        _joined([check.clicks for check in checks]),
        _joined([check.conversions for check in checks]),
    )


def _with_maps(draft: World, log: _Log, users: np.ndarray, rng: np.random.Generator) -> World:
    """The same world with coefficients and curves learned from held-out events of ``users``."""
    world = replace(draft, coefficient=_fit_coefficient(_Pairs(draft, log), users, rng))
    score, label = _Pairs(world, log).scored(users)
    curve = RateCurve.fit(score, label)
    teaches = log.held & np.isin(log.user, users)
    good = log.good[teaches]
    conversion_curve = None
    if good.size and 0 < int(good.sum()) < good.size:
        level = draft.user_level[log.user[teaches]] + draft.item_level[log.item[teaches]]
        conversion_curve = RateCurve.fit(level, good, num_knots=20)
    return replace(world, attraction_curve=curve, conversion_curve=conversion_curve)


def _check(draft: World, log: _Log, users: np.ndarray, rng: np.random.Generator) -> _Check:
    """What the log holds of ``users`` against what a world learned from the others does."""
    others = np.setdiff1d(np.arange(draft.num_users), users)
    world = _with_maps(draft, log, others, rng)
    score, label = _Pairs(world, log).scored(users)
    rate = world.attraction_curve(score)
    looked = ClickModel("position", theta=(1.0,))
    unit = np.repeat(users, _Pairs(world, log).num_pairs(users))
    clicks = _Drawn(rate, label, draw_clicks(looked, rate[:, None], rng)[:, 0], unit)
    asked = log.held & np.isin(log.user, users)
    user, item = log.user[asked], log.item[asked][:, None]
    chance = world.conversion(user, item)[:, 0]
    bought = _Drawn(chance, log.good[asked], rng.random(chance.size) < chance, user)
    return _Check(clicks, bought)


class _Log(NamedTuple):
    """[E] events: user row, item index, whether it was a good one, whether it is held out."""

    user: np.ndarray
    item: np.ndarray
    good: np.ndarray
    held: np.ndarray


class _Drawn(NamedTuple):
    """[n] predicted rate, logged event, simulated event and user."""

    rate: np.ndarray
    logged: np.ndarray
    simulated: np.ndarray
    unit: np.ndarray


class _Check(NamedTuple):
    clicks: _Drawn
    conversions: _Drawn


def _joined(parts: list[_Drawn]) -> list[DecileRate]:
    whole = _Drawn(*(np.concatenate(arrays) for arrays in zip(*parts, strict=True)))
    if whole.rate.size < 10 or whole.rate.min() == whole.rate.max():
        return []
    return decile_rates(*whole)


class _Pairs:
    """All pairs of a user with items it did not meet in the part the factors are from."""

    def __init__(self, world: World, log: _Log) -> None:
        self._world = world
        held = log.held
        self._seen = _by_user(log.user[~held], log.item[~held], world.num_users)
        self._held = _by_user(log.user[held], log.item[held], world.num_users)

    @property
    def num_items(self) -> int:
        """N."""
        return self._world.num_items

    def num_pairs(self, users: np.ndarray) -> np.ndarray:
        """[n] int64 pairs of each of ``users``."""
        return np.asarray([self._world.num_items - self._seen[u].size for u in users.tolist()])

    def features(self, users: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """([n, F] float32 features, [n] bool held-out event) of the pairs of ``users``."""
        world = self._world
        width = world.num_items
        affinity = world.user_factor[users] @ world.item_factor[1:].T
        label, left = np.zeros((users.size, width), bool), np.ones((users.size, width), bool)
        for row, each in enumerate(users.tolist()):
            left[row, self._seen[each] - 1] = False
            label[row, self._held[each] - 1] = True
        people = np.broadcast_to(world.user_events[users][:, None], left.shape)
        items = np.broadcast_to(world.item_events[1:], left.shape)
        then = world.item_events_then[world.period[users], 1:]
        return pair_features(affinity[left], people[left], items[left], then[left]), label[left]

    def scored(self, users: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """([n] float64 scores, [n] bool held-out event) of all pairs of ``users``."""
        scores, labels = [], []
        for start in range(0, users.size, _BLOCK):
            features, label = self.features(users[start : start + _BLOCK])
            scores.append(weighted(features, self._world.coefficient))
            labels.append(label)
        return np.concatenate(scores), np.concatenate(labels)


def _factors(
    user: np.ndarray,
    item: np.ndarray,
    num_users: int,
    num_items: int,
    dim: int,
    rng: np.random.Generator,
) -> dict[str, np.ndarray]:
    import scipy.sparse
    from scipy.sparse.linalg import svds

    people = np.bincount(user, minlength=num_users).astype(np.float64)
    items = np.bincount(item, minlength=num_items + 1).astype(np.float64)
    value = 1.0 / np.sqrt(people[user] * items[item])
    matrix = scipy.sparse.csr_matrix((value, (user, item)), (num_users, num_items + 1))
    start = rng.standard_normal(min(matrix.shape))
    left, strength, right = svds(matrix, k=dim, v0=start)
    # Scaled back, the product of the two is close to 1 where the two met and to 0 elsewhere.
    return {
        "user_factor": (left * strength * np.sqrt(people + 1)[:, None]).astype(np.float32),
        "item_factor": (right.T * np.sqrt(items + 1)[:, None]).astype(np.float32),
        "user_events": people.astype(np.float32),
        "item_events": items.astype(np.float32),
    }


def _periods(
    histories: Histories, user: np.ndarray, item: np.ndarray, event: np.ndarray, num_items: int
) -> dict[str, np.ndarray]:
    """What was met when, in periods with as many events each; users are in that of their last."""
    num_users = len(histories)
    time = histories.timestamp
    edges = np.unique(np.quantile(time, np.linspace(0.0, 1.0, _PERIODS + 1)[1:-1]))
    period = np.searchsorted(edges, time[event], side="right")
    counts = np.zeros((edges.size + 1, num_items + 1), dtype=np.float32)
    np.add.at(counts, (period, item), 1.0)
    last = np.zeros(num_users, dtype=np.int64)
    asked = histories.counts > 0
    last[asked] = np.searchsorted(edges, time[histories.indptr[1:][asked] - 1], side="right")
    around = counts.copy()  # what the neighbouring periods hold counts half
    around[1:] += 0.5 * counts[:-1]
    around[:-1] += 0.5 * counts[1:]
    return {"period": last, "item_events_then": around}


def _later(histories: Histories, share: float) -> np.ndarray:
    """[E] bool: the last ``share`` of each user's events."""
    counts = histories.counts
    within = np.arange(histories.item_index.size) - np.repeat(histories.indptr[:-1], counts)
    kept: np.ndarray = np.ceil(counts * (1.0 - share)).astype(np.int64)
    later: np.ndarray = within >= np.repeat(kept, counts)
    return later


def _levels(
    user: np.ndarray, item: np.ndarray, good: np.ndarray, num_users: int, num_items: int
) -> dict[str, np.ndarray]:
    """How much better than usual users find items and items are found, shrunk towards usual."""
    value = good.astype(np.float64) - (float(good.mean()) if good.size else 0.0)
    item_level = _shrunk_mean(item, value, num_items + 1)
    user_level = _shrunk_mean(user, value - item_level[item], num_users)
    return {
        "user_level": user_level.astype(np.float32),
        "item_level": item_level.astype(np.float32),
    }


def _fit_coefficient(pairs: _Pairs, users: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Logistic regression on every held-out event and some of the other pairs."""
    from sklearn.linear_model import LogisticRegression

    kept_features, kept_label = [], []
    share = min(1.0, _NEGATIVES / max(users.size * pairs.num_items, 1))
    for start in range(0, users.size, _BLOCK):
        features, label = pairs.features(users[start : start + _BLOCK])
        keep = label | (rng.random(label.size) < share)
        kept_features.append(features[keep])
        kept_label.append(label[keep])
    features, label = np.concatenate(kept_features), np.concatenate(kept_label)
    if label.min() == label.max():
        raise ValueError(
            "histories must hold held-out events of several users; take a longer log or a larger "
            "held_out"
        )
    weight = np.where(label, 1.0, 1.0 / share)
    centre, spread = features.mean(axis=0), np.maximum(features.std(axis=0), 1e-6)
    model = LogisticRegression(max_iter=300, tol=1e-5)
    model.fit((features - centre) / spread, label, sample_weight=weight)
    slope = model.coef_[0] / spread
    return np.concatenate([[float(model.intercept_[0] - (slope * centre).sum())], slope])


def _by_user(user: np.ndarray, item: np.ndarray, num_users: int) -> list[np.ndarray]:
    order = np.argsort(user, kind="stable")
    ends = np.cumsum(np.bincount(user, minlength=num_users))[:-1]
    return np.split(item[order], ends)


def _shrunk_mean(row: np.ndarray, value: np.ndarray, size: int) -> np.ndarray:
    total = np.bincount(row, weights=value, minlength=size)
    mean: np.ndarray = total / (np.bincount(row, minlength=size) + _SHRINKAGE)
    return mean
