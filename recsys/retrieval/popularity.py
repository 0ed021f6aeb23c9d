"""What was popular in the time just before the moment of the request."""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar, Self

import numpy as np

from features.tables import Histories
from recsys.files.damage import telling_damage
from recsys.files.model_files import read_model, write_model
from recsys.retrieval.blocks import DenseRetriever
from recsys.retrieval.options import CountingOptions

__all__ = ["PopularityRetriever"]

DAY_US = 86_400 * 1_000_000
_KEPT_COUNTS = 4


class PopularityRetriever(DenseRetriever):
    """Weight of the events of each item in the ``window_days`` strictly before the moment.

    Point-in-time: a request of 1998 is answered with what was popular in 1998. Items that tie
    (most have no event in the window) are ordered by their share of all earlier weight.

    Attributes:
        name: how answers name this source.
        num_items: N.
        window_days: length of the window; None: everything before the moment.
    """

    KIND: ClassVar[str] = "popularity"
    """What the files of a model say that they are."""

    def __init__(
        self,
        *,
        name: str,
        num_items: int,
        window_days: float | None,
        timestamp: np.ndarray,
        item_index: np.ndarray,
        weight: np.ndarray,
    ) -> None:
        self.name = name
        self.num_items = num_items
        self.window_days = window_days
        self._timestamp = timestamp  # [E] int64 microseconds, sorted
        self._item_index = item_index  # [E] int64
        # In double precision: sums of single-precision weights are exact, whatever their order.
        self._weight = weight.astype(np.float64)  # [E]
        self._known_counts: tuple[tuple[int, np.ndarray], ...] = ((0, _no_counts(num_items)),)
        self._known_scores: tuple[tuple[tuple[int, ...], np.ndarray], ...] = ()

    @classmethod
    def fit(
        cls,
        histories: Histories,
        num_items: int,
        *,
        window_days: float | None = CountingOptions.default("popularity_window_days"),
        name: str = "popularity",
    ) -> Self:
        """Keep the events of all ``histories``, sorted by time.

        Raises:
            ValueError: window_days <= 0.
        """
        if window_days is not None and window_days <= 0:
            raise ValueError(f"window_days must be > 0, got {window_days}; None for all time")
        return cls(
            name=name, num_items=num_items, window_days=window_days, **cls._by_time(histories)
        )

    @staticmethod
    def _by_time(histories: Histories) -> dict[str, np.ndarray]:
        order = np.argsort(histories.timestamp, kind="stable")
        names = ("timestamp", "item_index", "weight")
        return {name: getattr(histories, name)[order] for name in names}

    def score_all(self, histories: Histories, moment: np.ndarray) -> np.ndarray:
        """[Q, N + 1] float32: weight in the window, plus a share of all before in [0, 1)."""
        if moment.size == 1:
            return self._at_one(moment)[None]
        back = [self._counts_before(moment - days_us) for days_us in self._days_back_us]
        return self._scored(self._counts_before(moment), *back)

    @property
    def _days_back_us(self) -> tuple[int, ...]:
        """How long before the moment the counts are taken as well that `_scored` compares."""
        return () if self.window_days is None else (int(self.window_days * DAY_US),)

    def _scored(self, until: np.ndarray, *before: np.ndarray) -> np.ndarray:
        """[Q, N + 1] float32 from weights [Q, N + 1] float64 up to the moment and before it."""
        if not before:
            everything: np.ndarray = until.astype(np.float32)
            return everything
        share = until / (until.sum(axis=1, keepdims=True) + 1.0)
        score: np.ndarray = (until - before[0] + share).astype(np.float32)
        return score

    def _at_one(self, moment: np.ndarray) -> np.ndarray:
        """[N + 1] scores at one moment, kept until a few others were asked for; read-only."""
        times = moment - np.array([0, *self._days_back_us])
        places = tuple(np.searchsorted(self._timestamp, times, side="left").tolist())
        score = dict(self._known_scores).get(places)
        if score is None:
            score = self._scored(*(self._first(place)[None] for place in places))[0]
            score.flags.writeable = False
            kept = self._known_scores[-_KEPT_COUNTS + 1 :]
            self._known_scores = (*kept, (places, score))
        return score

    def _counts_before(self, moment: np.ndarray) -> np.ndarray:
        """[Q, N + 1] float64 weight of each item strictly before each moment."""
        distinct, which = np.unique(moment, return_inverse=True)
        end = np.searchsorted(self._timestamp, distinct, side="left")
        if distinct.size == 1:
            return np.repeat(self._first(int(end[0]))[None], which.size, axis=0)
        # Event e enters the first distinct moment whose end is beyond it.
        bucket = np.searchsorted(end, np.arange(self._timestamp.size), side="right")
        known = bucket < distinct.size
        width = self.num_items + 1
        cell = bucket[known] * width + self._item_index[known]
        added = np.bincount(cell, self._weight[known], minlength=distinct.size * width)
        counts: np.ndarray = np.cumsum(added.reshape(-1, width), axis=0)[which]
        return counts

    def _first(self, end: int) -> np.ndarray:
        """[N + 1] float64: weight of each item among the first ``end`` events.

        Live requests ask for much the same moments again and again; only the events between this
        one and the nearest one asked for before are counted.
        """
        known = self._known_counts
        nearest, counts = min(known, key=lambda each: abs(each[0] - end))
        if nearest == end:
            return counts
        between = slice(min(nearest, end), max(nearest, end))
        change = np.bincount(
            self._item_index[between], self._weight[between], minlength=self.num_items + 1
        )
        counts = counts + change if end > nearest else counts - change
        self._known_counts = (known[0], *known[1:][-_KEPT_COUNTS + 1 :], (end, counts))
        return counts

    def save(self, directory: Path) -> None:
        """See `recsys.files.model_files.write_model`."""
        tensors = {
            "timestamp": self._timestamp,
            "item_index": self._item_index,
            "weight": self._weight.astype(np.float32),
        }
        write_model(directory, self.KIND, self._settings(), tensors)

    def _settings(self) -> dict[str, Any]:
        return {"name": self.name, "num_items": self.num_items, "window_days": self.window_days}

    @classmethod
    def load(cls, directory: Path) -> Self:
        """Read what `save` wrote.

        Raises:
            ArtifactError: a file is missing, damaged, or of another kind or format.
        """
        with telling_damage(directory):
            settings, tensors = read_model(directory, cls.KIND)
            ones = np.ones(tensors["timestamp"].size, dtype=np.float32)  # before weights counted
            return cls(
                **settings,
                timestamp=tensors["timestamp"],
                item_index=tensors["item_index"],
                weight=tensors.get("weight", ones),
            )


def _no_counts(num_items: int) -> np.ndarray:
    return np.zeros(num_items + 1)
