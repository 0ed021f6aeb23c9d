"""What a data scientist would put on a shop's log by hand: plain scores, and LightGBM over them.

All is computed from what came before a moment; customers are rows 0..U-1, items 0..N-1.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import lightgbm as lgb
import numpy as np
from scipy.linalg import cho_factor, cho_solve
from scipy.sparse import csr_array

DAY = 86_400.0
POOL = 200
"""Candidates of each score for LightGBM, beside what was bought."""
EASE_L2, EASE_FADE, NEIGHBOURS = 200.0, 90.0, 300
LIGHTGBM = {
    "objective": "lambdarank",
    "learning_rate": 0.05,
    "num_leaves": 31,
    "min_data_in_leaf": 50,
    "feature_fraction": 0.7,
    "bagging_fraction": 0.8,
    "bagging_freq": 1,
    "lambda_l2": 5.0,
    "lambdarank_truncation_level": 20,
    "num_threads": 1,
    "deterministic": True,
    "verbose": -1,
}
ROUNDS = 250


class Log(NamedTuple):
    """Purchases, oldest first.

    Attributes:
        user: [E] int64.
        item: [E] int64.
        day: [E] float64 days since the epoch.
        basket: [E] int64 number of the invoice.
        num_users: U.
        num_items: N.
    """

    user: np.ndarray
    item: np.ndarray
    day: np.ndarray
    basket: np.ndarray
    num_users: int
    num_items: int

    def between(self, begin: float, end: float) -> Log:
        """The purchases from ``begin`` on and before ``end``, in days."""
        kept = (self.day >= begin) & (self.day < end)
        return Log(self.user[kept], self.item[kept], self.day[kept], self.basket[kept], *self[-2:])

    def matrix(self, value: np.ndarray | None = None) -> csr_array:
        """[U, N] float32 sums of ``value`` [E]; None: numbers of purchases."""
        ones = np.ones(self.user.size, dtype=np.float32)
        values = ones if value is None else value.astype(np.float32)
        return csr_array((values, (self.user, self.item)), (self.num_users, self.num_items))


def scores(log: Log, now: float) -> Mapping[str, np.ndarray]:
    """The references of the data's README: name -> [U, N] float32."""
    age = now - log.day
    recent = np.bincount(log.item[age <= 30], minlength=log.num_items)
    popular = recent / max(recent.max(), 1)
    count = log.matrix()
    owned = count.copy()
    owned.data[:] = 1.0
    fading = log.matrix(np.exp(-age / EASE_FADE))
    ties = (1e-3 * popular).astype(np.float32)
    dense = owned.toarray().astype(np.float64)
    gram = dense.T @ dense
    gram[np.diag_indices_from(gram)] += EASE_L2
    inverse = cho_solve(cho_factor(gram, lower=True), np.eye(log.num_items))
    weights = -inverse / np.diag(inverse)
    np.fill_diagonal(weights, 0.0)
    personal = count.toarray() + ties
    norm = np.sqrt(np.asarray(fading.multiply(fading).sum(axis=1))).clip(1e-9)
    unit = fading.toarray() / norm[:, None]
    near = unit @ unit.T
    np.fill_diagonal(near, 0.0)
    cut = -np.partition(-near, NEIGHBOURS, axis=1)[:, NEIGHBOURS, None]
    near[near <= cut] = 0.0
    voted = near @ fading.toarray() / np.maximum(near.sum(axis=1, keepdims=True), 1e-9)
    return {
        "popular, last 30 days": np.broadcast_to(popular.astype(np.float32), personal.shape),
        "EASE, fading history": (fading.toarray() @ weights).astype(np.float32),
        "personal frequency": personal.astype(np.float32),
        "user kNN + .3 x personal": (voted + 0.3 * fading.toarray() + 1e-3 * ties).astype(
            np.float32
        ),
    }


def features(
    log: Log, now: float, found: Mapping[str, np.ndarray], user: np.ndarray, item: np.ndarray
) -> np.ndarray:
    """[R, F] float32 of pairs: the scores, and 21 plain features of pair, item and customer."""
    age = now - log.day
    pair = log.user * log.num_items + log.item
    different, which = np.unique(pair, return_inverse=True)
    times = np.bincount(which).astype(np.float64)
    last, first = np.full(different.size, np.inf), np.zeros(different.size)
    np.minimum.at(last, which, age)
    np.maximum.at(first, which, age)
    gap = np.where(times > 1, (first - last) / np.maximum(times - 1, 1), np.nan)
    of_item = different % log.num_items
    again = times > 1
    item_gap = np.bincount(of_item[again], gap[again], log.num_items) / np.maximum(
        np.bincount(of_item[again], minlength=log.num_items), 1
    )
    buyers = np.bincount(of_item, minlength=log.num_items)
    repeat_share = np.bincount(of_item[again], minlength=log.num_items) / np.maximum(buyers, 1)
    counts = {
        days: np.bincount(log.item[age <= days], minlength=log.num_items)
        for days in (7, 14, 30, 90, 1e9)
    }
    item_last, item_first = np.full(log.num_items, np.inf), np.zeros(log.num_items)
    np.minimum.at(item_last, log.item, age)
    np.maximum.at(item_first, log.item, age)
    baskets = np.unique(log.basket, return_index=True)[1]
    visits = np.bincount(log.user[baskets], minlength=log.num_users).astype(np.float64)
    user_last, user_first = np.full(log.num_users, np.inf), np.zeros(log.num_users)
    np.minimum.at(user_last, log.user, age)
    np.maximum.at(user_first, log.user, age)
    events = np.bincount(log.user, minlength=log.num_users)
    owns = np.bincount(different // log.num_items, minlength=log.num_users)
    place = np.searchsorted(different, user * log.num_items + item).clip(max=different.size - 1)
    known = different[place] == user * log.num_items + item

    def of_pair(values: np.ndarray) -> np.ndarray:
        return np.where(known, values[place], np.nan)

    plain = [
        np.where(known, times[place], 0.0),
        of_pair(last),
        of_pair(first),
        of_pair(gap),
        np.where(known, times[place], 0.0) / np.maximum(visits[user], 1),
        of_pair(last) / np.maximum(item_gap[item], 1.0),
        item_gap[item],
        repeat_share[item],
        buyers[item],
        *(each[item] for each in counts.values()),
        counts[7][item] / (counts[30][item] + 1),
        item_last[item],
        item_first[item],
        visits[user],
        user_last[user],
        (user_first - user_last)[user] / np.maximum(visits[user] - 1, 1),
        owns[user] / np.maximum(events[user], 1),
    ]
    own = [values[user, item] for values in found.values()]
    best = [values.max(axis=1)[user] for values in found.values()]
    share = [one / np.maximum(most, 1e-9) for one, most in zip(own, best, strict=True)]
    return np.stack([*own, *share, *plain], axis=1).astype(np.float32)


def candidates(found: Mapping[str, np.ndarray], log: Log, users: np.ndarray) -> np.ndarray:
    """[Q, N] bool: the best of each score, and what each of ``users`` [Q] bought."""
    pool = log.matrix().toarray()[users] > 0
    for values in found.values():
        top = np.argpartition(-values[users], POOL, axis=1)[:, :POOL]
        np.put_along_axis(pool, top, True, axis=1)
    return pool


def stacked(log: Log, cut: float, now: float, users: np.ndarray, seeds: int) -> np.ndarray:
    """[Q, N] float32 scores of LightGBM lambdarank over the plain scores, -inf elsewhere.

    Args:
        log: everything before ``now``.
        cut: labels are from then to ``now``, inputs from before.
        now: when ``users`` are asked.
        users: [Q] rows.
        seeds: models whose scores are averaged.
    """
    past, later = log.between(-np.inf, cut), log.between(cut, now)
    wanted = later.matrix().toarray() > 0
    asked = np.intersect1d(np.unique(later.user), np.unique(past.user))
    found = scores(past, cut)
    query, item = np.nonzero(candidates(found, past, asked))
    label = wanted[asked[query], item]
    kept = np.bincount(query, label, asked.size)[query] > 0
    rows = features(past, cut, found, asked[query[kept]], item[kept])
    groups = np.bincount(query[kept])
    data = lgb.Dataset(rows, label[kept].astype(int), group=groups[groups > 0])
    models = [lgb.train({**LIGHTGBM, "seed": seed}, data, ROUNDS) for seed in range(seeds)]
    found = scores(log, now)
    query, item = np.nonzero(candidates(found, log, users))
    rows = features(log, now, found, users[query], item)
    score = np.full((users.size, log.num_items), -np.inf, dtype=np.float32)
    score[query, item] = np.mean([model.predict(rows, num_threads=1) for model in models], axis=0)
    return score
