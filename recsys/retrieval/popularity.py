"""What was popular in the time just before the moment of the request."""

from __future__ import annotations

from pathlib import Path
from typing import Self

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
        self._known_scores: tuple[tuple[tuple[int, int], np.ndarray], ...] = ()

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
        order = np.argsort(histories.timestamp, kind="stable")
        return cls(
            name=name,
            num_items=num_items,
            window_days=window_days,
            timestamp=histories.timestamp[order],
            item_index=histories.item_index[order],
            weight=histories.weight[order],
        )

    def score_all(self, histories: Histories, moment: np.ndarray) -> np.ndarray:
        """[Q, N + 1] float32: weight in the window, plus a share of all before in [0, 1)."""
        if moment.size == 1:
            return self._at_one(moment)[None]
        if self.window_days is None:
            until: np.ndarray = self._counts_before(moment).astype(np.float32)
            return until
        return _windowed(self._counts_before(moment), self._counts_before(moment - self._window_us))

    @property
    def _window_us(self) -> int:
        return 0 if self.window_days is None else int(self.window_days * DAY_US)

    def _at_one(self, moment: np.ndarray) -> np.ndarray:
        """[N + 1] scores at one moment, kept until a few others were asked for; read-only."""
        begin, end = np.searchsorted(
            self._timestamp, np.append(moment - self._window_us, moment), side="left"
        ).tolist()
        score = dict(self._known_scores).get((begin, end))
        if score is None:
            until = self._first(end)[None]
            score = until[0].astype(np.float32)
            if self.window_days is not None:
                score = _windowed(until, self._first(begin)[None])[0]
            score.flags.writeable = False
            kept = self._known_scores[-_KEPT_COUNTS + 1 :]
            self._known_scores = (*kept, ((begin, end), score))
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
        settings = {"name": self.name, "num_items": self.num_items, "window_days": self.window_days}
        tensors = {
            "timestamp": self._timestamp,
            "item_index": self._item_index,
            "weight": self._weight.astype(np.float32),
        }
        write_model(directory, "popularity", settings, tensors)

    @classmethod
    def load(cls, directory: Path) -> Self:
        """Read what `save` wrote.

        Raises:
            ArtifactError: a file is missing, damaged, or of another kind or format.
        """
        with telling_damage(directory):
            settings, tensors = read_model(directory, "popularity")
            ones = np.ones(tensors["timestamp"].size, dtype=np.float32)  # before weights counted
            return cls(
                **settings,
                timestamp=tensors["timestamp"],
                item_index=tensors["item_index"],
                weight=tensors.get("weight", ones),
            )


def _windowed(until: np.ndarray, before: np.ndarray) -> np.ndarray:
    """[Q, N + 1] float32 from the weight [Q, N + 1] up to the moment and up to the window."""
    share = until / (until.sum(axis=1, keepdims=True) + 1.0)
    score: np.ndarray = (until - before + share).astype(np.float32)
    return score


def _no_counts(num_items: int) -> np.ndarray:
    return np.zeros(num_items + 1)
