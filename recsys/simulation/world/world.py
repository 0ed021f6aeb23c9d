"""A world whose truth is known: users with tastes and items with factors, fitted to a real log.

The last events of each user are held out of the tastes. What share of the pairs with a score were
met there gives the probability that an item attracts a user who looks at it::

    attraction = (1 - known) * rate(score) + known * 1{met in the held-out part}

The second part is taste that no factor explains: a pipeline that finds what people really met
later is better here, too. Pairs with one score are met at its rate, so their mean attraction is
that rate whatever ``known`` is. What share of the held-out events with a score were good ones gives
the probability that a click converts.

It is still a model: what nobody met in the log is as unattractive as its factors say.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from recsys.simulation.world.calibration import RateCurve

__all__ = ["World", "pair_features", "weighted"]

_EPS = 3e-3
"""Added to an affinity before its logarithm."""


@dataclass(frozen=True)
class World:
    """Who likes what. Row u of the users is row u of the histories it was fitted to.

    Attributes:
        user_factor: [U, D] float32 tastes.
        item_factor: [N + 1, D] float32; row 0 is nothing.
        user_events: [U] float32 events of each user in the part the factors are from.
        item_events: [N + 1] float32 likewise.
        period: [U] int64 when each user was last here, a row of ``item_events_then``.
        item_events_then: [P, N + 1] float32 events of each item per period, the same part.
        coefficient: [F] float64 of the pair features, the first is the constant.
        attraction_curve: score of a pair -> probability of a click when looked at.
        later: [E] int64, rising: ``user * (N + 1) + item_index`` of the held-out events.
        known: share of the attraction that is what was met later, in [0, 1].
        user_level: [U] float32 how much better than usual a user finds what it meets.
        item_level: [N + 1] float32 how much better than usual an item is found.
        conversion_curve: sum of the two levels -> probability that a click converts. None: the
            log has no weights.
        conversion_rate: where there is no curve.
    """

    user_factor: np.ndarray
    item_factor: np.ndarray
    user_events: np.ndarray
    item_events: np.ndarray
    period: np.ndarray
    item_events_then: np.ndarray
    coefficient: np.ndarray
    attraction_curve: RateCurve
    later: np.ndarray
    known: float
    user_level: np.ndarray
    item_level: np.ndarray
    conversion_curve: RateCurve | None
    conversion_rate: float

    @property
    def num_users(self) -> int:
        """U."""
        return len(self.user_factor)

    @property
    def num_items(self) -> int:
        """N."""
        return len(self.item_factor) - 1

    def score(self, user: np.ndarray, item_index: np.ndarray) -> np.ndarray:
        """[n, M] float64 scores of pairs; higher attracts more.

        Args:
            user: [n] int64 rows.
            item_index: [n, M] int64 in 1..N.
        """
        affinity = np.einsum("nd,nmd->nm", self.user_factor[user], self.item_factor[item_index])
        features = pair_features(
            affinity,
            self.user_events[user][:, None],
            self.item_events[item_index],
            self.item_events_then[self.period[user][:, None], item_index],
        )
        return weighted(features, self.coefficient)

    def attraction(self, user: np.ndarray, item_index: np.ndarray) -> np.ndarray:
        """[n, M] float64 probability of a click once looked at; arguments as of `score`.

        An index below 1 is nothing and attracts nobody.
        """
        item_index = np.asarray(item_index)
        rate = self.attraction_curve(self.score(user, np.maximum(item_index, 0)))
        if self.known > 0 and self.later.size:
            pair = user[:, None] * np.int64(self.num_items + 1) + item_index
            at = np.minimum(np.searchsorted(self.later, pair), self.later.size - 1)
            rate = (1.0 - self.known) * rate + self.known * (self.later[at] == pair)
        return np.where(item_index > 0, rate, 0.0)

    def conversion(self, user: np.ndarray, item_index: np.ndarray) -> np.ndarray:
        """[n, M] float64 probability that a click converts; arguments as of `score`."""
        if self.conversion_curve is None:
            return np.full(item_index.shape, self.conversion_rate)
        level = self.user_level[user][:, None] + self.item_level[np.maximum(item_index, 0)]
        return self.conversion_curve(level)


def pair_features(
    affinity: np.ndarray, people: np.ndarray, items: np.ndarray, then: np.ndarray
) -> np.ndarray:
    """[..., 10] float32 features of pairs.

    Args:
        affinity: [...] product of taste and factor.
        people: [...] events of the user.
        items: [...] events of the item.
        then: [...] events of the item when the user was here.
    """
    met, unlike = np.maximum(affinity, 0.0), np.minimum(affinity, 0.0)
    people, items = np.broadcast_arrays(np.log1p(people), np.log1p(items))
    unlike = -np.log1p(-unlike / _EPS)
    then = np.log1p(then)
    both = [np.log(met + _EPS), met, unlike, items, people, items**2, people**2, items * people]
    both += [then, then**2]
    return np.stack(both, axis=-1).astype(np.float32)


def weighted(features: np.ndarray, coefficient: np.ndarray) -> np.ndarray:
    """[...] scores of [..., F - 1] features; the first coefficient is the constant."""
    score: np.ndarray = features @ coefficient[1:] + coefficient[0]
    return score
