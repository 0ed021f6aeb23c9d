"""What is met more than was to be expected, just before the moment of the request."""

from __future__ import annotations

from typing import Any, Self

import numpy as np

from features.tables import Histories
from recsys.retrieval.popularity import DAY_US, PopularityRetriever
from recsys.retrieval.source_options import PopularOptions

__all__ = ["TrendingRetriever"]


class TrendingRetriever(PopularityRetriever):
    """By how many standard deviations an item's newest weight exceeds its share of the time before.

    With n_i the weight of the events of item i in the ``window_days`` strictly before the moment,
    p_i that in the ``past_days`` before those, and n and p their sums over all items,

        ``score_i = (n_i - e_i) / sqrt(e_i + 1)``,  ``e_i = n p_i / p``

    e is what the window would hold had nothing changed but how much is going on, as a Poisson count
    scatters. Where nothing came before (p = 0), e is 0. Items that fall score below those without
    an event.

    Attributes:
        name: how answers name this source.
        num_items: N.
        window_days: length of the window.
        past_days: length of the time before it.
    """

    KIND = "trending"

    def __init__(self, *, past_days: float, **popularity: Any) -> None:
        super().__init__(**popularity)
        self.past_days = past_days

    @classmethod
    def fit(
        cls,
        histories: Histories,
        num_items: int,
        *,
        window_days: float | None = PopularOptions.default("trending_days"),
        past_days: float = PopularOptions.default("trending_past_days"),
        name: str = "trending",
    ) -> Self:
        """Keep the events of all ``histories``, sorted by time.

        Raises:
            ValueError: window_days or past_days is not a number > 0.
        """
        for argument, days in (("window_days", window_days), ("past_days", past_days)):
            if days is None or days <= 0:
                raise ValueError(f"{argument} must be > 0, got {days}; 14 and 56 are usual")
        return cls(
            name=name,
            num_items=num_items,
            window_days=window_days,
            past_days=past_days,
            **cls._by_time(histories),
        )

    @property
    def _days_back_us(self) -> tuple[int, ...]:
        (window_us,) = super()._days_back_us
        return window_us, window_us + int(self.past_days * DAY_US)

    def _scored(self, until: np.ndarray, *before: np.ndarray) -> np.ndarray:
        newest, past = until - before[0], before[0] - before[1]
        total = past.sum(axis=1, keepdims=True)
        growth = newest.sum(axis=1, keepdims=True) / np.where(total > 0, total, 1.0)
        expected = past * growth
        score: np.ndarray = ((newest - expected) / np.sqrt(expected + 1.0)).astype(np.float32)
        return score

    def _settings(self) -> dict[str, Any]:
        return {**super()._settings(), "past_days": self.past_days}
