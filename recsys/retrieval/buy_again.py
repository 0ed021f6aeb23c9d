"""What a user met before and is likely to want again."""

from __future__ import annotations

from pathlib import Path
from typing import Self

import numpy as np

from features.tables import Histories
from recsys.files.damage import telling_damage
from recsys.files.model_files import read_model, write_model
from recsys.retrieval.blocks import DenseQuestion, DenseRetriever
from recsys.retrieval.options import CountingOptions
from recsys.retrieval.popularity import DAY_US, PopularityRetriever
from recsys.topk import TopK

__all__ = ["BuyAgainRetriever"]

_EDGES = np.concatenate([[0.0], 2.0 ** np.arange(-5, 5.5, 0.5), [np.inf]])
"""[B + 1] ends of the bins of the hazard, in intervals of the item."""
_PRIOR_GAPS = 10.0
"""Gaps between two purchases that the common interval is worth in an item's own."""


class BuyAgainRetriever(DenseRetriever):
    """Personal frequency, what is popular now, and how due the item is; nothing of other items.

    With w the weights of a user's events with item i, p_i the weight of all events of i in the
    newest ``recent_days`` before the moment as a share of the most popular item's, and a the time
    since the user's last one:

        score = (sum w + prior * p_i) * h(a / g_i) ** due

    The first factor is the mean of a Gamma distribution of the user's rate, whose prior is the rate
    of everybody. g_i is the interval of the item, the geometric mean of the times between two
    purchases of one user, drawn towards that of all items; h is the hazard: the purchases in each
    bin of a / g over the time spent in it, those that did not come back counted until the log's
    end, divided by its largest value. Items a user never met score 0 and are never found.

    Attributes:
        name: how answers name this source.
        num_items: N.
        prior: weight of everybody's purchases.
        due: exponent of the hazard; 0: how long ago it was does not count.
        interval_days: [N + 1] float32 g.
        hazard: [B] float32 h, at most 1.

    Source: Bhagat, Muralidharan, Lobzhanidze and Vishwanath, Buy It Again: Modeling Repeat Purchase
    Recommendations, KDD 2018 (the Poisson-Gamma model and repeat intervals).
    """

    def __init__(
        self,
        *,
        name: str,
        num_items: int,
        prior: float,
        due: float,
        popularity: PopularityRetriever,
        interval_days: np.ndarray,
        hazard: np.ndarray,
    ) -> None:
        self.name = name
        self.num_items = num_items
        self.prior = prior
        self.due = due
        self.interval_days = interval_days
        self.hazard = hazard
        self._popularity = popularity

    @classmethod
    def fit(
        cls,
        histories: Histories,
        num_items: int,
        *,
        prior: float = CountingOptions.default("buy_again_prior"),
        due: float = CountingOptions.default("buy_again_due"),
        recent_days: float = CountingOptions.default("buy_again_recent_days"),
        name: str = "buy_again",
    ) -> Self:
        """Learn intervals and hazard of ``histories`` [U rows], and keep what is popular when.

        Raises:
            ValueError: prior < 0, due < 0, recent_days <= 0, or an item index exceeds
                ``num_items``.
        """
        for what, value in (("prior", prior), ("due", due)):
            if value < 0:
                raise ValueError(f"{what} must be >= 0, got {value}; 0 leaves it out")
        histories.check_width(num_items)
        interval, hazard = _repurchases(histories, num_items)
        return cls(
            name=name,
            num_items=num_items,
            prior=prior,
            due=due,
            popularity=PopularityRetriever.fit(histories, num_items, window_days=recent_days),
            interval_days=interval.astype(np.float32),
            hazard=hazard.astype(np.float32),
        )

    def score_all(self, histories: Histories, moment: np.ndarray) -> np.ndarray:
        """[Q, N + 1] float32 >= 0; 0 for what was not met."""
        histories.check_width(self.num_items)
        shape = (len(histories), self.num_items + 1)
        cell = histories.rows * shape[1] + histories.item_index
        different, which = np.unique(cell, return_inverse=True)
        row, item = np.divmod(different, shape[1])
        rate = np.bincount(which, histories.weight, minlength=different.size)
        last = np.full(different.size, np.iinfo(np.int64).min)
        np.maximum.at(last, which, histories.timestamp)
        popular = self._popularity.score_all(histories, moment)
        best = np.maximum(popular.max(axis=1, initial=0.0), 1e-9)
        value = rate + self.prior * popular[row, item] / best[row]
        if self.due:
            age = (moment[row] - last) / DAY_US / self.interval_days[item]
            value = value * self.hazard[_bin_of(age)] ** self.due
        score = np.zeros(shape, dtype=np.float32)
        score[row, item] = value
        return score

    def ask(
        self,
        histories: Histories,
        *,
        moment: np.ndarray | None = None,
        user_index: np.ndarray | None = None,
    ) -> DenseQuestion:
        """See `recsys.retrieval.protocol.Retriever`; ``user_index`` is ignored."""
        return _OwnQuestion(self, histories, moment)

    def save(self, directory: Path) -> None:
        """See `recsys.files.model_files.write_model`."""
        settings = {
            "name": self.name,
            "num_items": self.num_items,
            "prior": self.prior,
            "due": self.due,
        }
        tensors = {"interval_days": self.interval_days, "hazard": self.hazard}
        write_model(directory, "buy_again", settings, tensors)
        self._popularity.save(directory / "popularity")

    @classmethod
    def load(cls, directory: Path) -> Self:
        """Read what `save` wrote.

        Raises:
            ArtifactError: a file is missing, damaged, or of another kind or format.
        """
        with telling_damage(directory):
            settings, tensors = read_model(directory, "buy_again")
            popularity = PopularityRetriever.load(directory / "popularity")
            interval, hazard = tensors["interval_days"], tensors["hazard"]
            return cls(**settings, popularity=popularity, interval_days=interval, hazard=hazard)


class _OwnQuestion(DenseQuestion):
    """Finds nothing that scores 0."""

    def retrieve(self, k: int, *, excluded: np.ndarray | None = None) -> TopK:
        """See `recsys.retrieval.protocol.Question`."""
        top = super().retrieve(k, excluded=excluded)
        none = top.score <= 0
        top.item_index[none], top.score[none] = -1, -np.inf
        return top


def _repurchases(histories: Histories, num_items: int) -> tuple[np.ndarray, np.ndarray]:
    """[N + 1] days between two purchases of each item, and [B] the hazard over its largest."""
    order = np.lexsort((histories.timestamp, histories.item_index, histories.rows))
    row, item = histories.rows[order], histories.item_index[order]
    time = histories.timestamp[order]
    newest = int(time.max(initial=0))
    again = np.zeros(order.size, dtype=bool)
    again[:-1] = (row[1:] == row[:-1]) & (item[1:] == item[:-1])
    until = np.append(time[1:], newest)
    gap = np.where(again, until - time, newest - time) / DAY_US
    came = again & (gap > 0)
    spell = came | (~again & (gap > 0))
    logs, count = np.log(gap[came]), np.bincount(item[came], minlength=num_items + 1)
    common = float(logs.mean()) if logs.size else np.log(30.0)
    total = np.bincount(item[came], logs, minlength=num_items + 1)
    interval = np.exp((total + _PRIOR_GAPS * common) / (count + _PRIOR_GAPS))
    age = gap[spell] / interval[item[spell]]
    bin_ = _bin_of(age)
    events = np.bincount(bin_[came[spell]], minlength=_EDGES.size - 1)
    width = np.diff(_EDGES)
    inside = np.bincount(bin_, age - _EDGES[bin_], minlength=width.size)
    beyond = np.cumsum(np.bincount(bin_, minlength=width.size)[::-1])[::-1]
    passed = np.append(beyond[1:], 0)
    exposure = inside + np.where(passed > 0, passed * np.where(np.isfinite(width), width, 0.0), 0.0)
    hazard = (events + 1.0) / (exposure + 1.0)
    return interval, hazard / hazard.max()


def _bin_of(age: np.ndarray) -> np.ndarray:
    """[E] int64 bin of each age >= 0, in intervals."""
    return np.asarray(np.clip(np.searchsorted(_EDGES, age, side="right") - 1, 0, _EDGES.size - 2))
