"""A live model for tests of what is around it, held to the word of the real one by `contracts`."""

from __future__ import annotations

import threading
from collections.abc import Collection, Mapping, Sequence

import numpy as np

from recsys.recommender.explanation import ExplainedItem
from serving.models.live import LiveQuestion


class FakeModel:
    """A `LiveModel` that likes given items and ranks by the item's number.

    Attributes:
        liked: what it recommends, best first.
        slope: what each further row number adds to a score; 0: all alike.
        asked: every question.
        calls: recent items, k, user id and limits of every `recommend`.
        threshold: whether the last `recommend` was to hold back what is unlikely.
        values: item values of every `rank`.
        error: raised instead of an answer.
        gate: answers wait for it.
    """

    def __init__(
        self,
        liked: Sequence[str] = ("i12", "i11", "i3"),
        *,
        generation: str = "g1",
        as_of_us: int = 0,
        item_fields: tuple[str, ...] = (),
        source: str = "tower",
        slope: float = 1.0,
    ) -> None:
        self.liked = tuple(liked)
        self.generation = generation
        self.as_of_us = as_of_us
        self.item_fields = item_fields
        self.source = source
        self.slope = slope
        self.asked: list[LiveQuestion] = []
        self.calls: list[tuple[list[str], int, str | None, set[str], Collection[str] | None]] = []
        self.threshold = False
        self.values: list[Mapping[str, np.ndarray] | None] = []
        self.error: Exception | None = None
        self.gate = threading.Event()
        self.gate.set()

    def recommend(
        self,
        asked: LiveQuestion,
        k: int,
        *,
        exclude: Collection[str],
        only: Collection[str] | None,
        threshold: bool = False,
    ) -> list[tuple[str, float, str]]:
        self.threshold = threshold
        self.calls.append((list(asked.recent_items), k, asked.user_id, set(exclude), only))
        self._take(asked)
        left = [one for one in self.liked if one not in exclude and (only is None or one in only)]
        return [(one, 1.0 - at / 10, self.source) for at, one in enumerate(left[:k])]

    def rank(
        self,
        asked: LiveQuestion,
        item_index: np.ndarray,
        item_values: Mapping[str, np.ndarray] | None = None,
    ) -> np.ndarray:
        self.values.append(item_values)
        self._take(asked)
        return self.slope * item_index.astype(np.float64)

    def explain(self, asked: LiveQuestion, item_index: np.ndarray) -> list[ExplainedItem]:
        self._take(asked)
        score = self.slope * item_index
        return [
            ExplainedItem(
                item_index=int(one),
                score=self.slope * float(one),
                place=1 + int((score > self.slope * one).sum()),
                candidate=int(one) != 4,
                seen=int(one) == 3,
                retrieval={"tower": (0.5, 2)},
                features={"price": 1.0, "age": None},
                contributions={"price": 0.4, "age": -0.1},
                base=0.2,
                trees=0.5,
            )
            for one in item_index
        ]

    def _take(self, asked: LiveQuestion) -> None:
        self.asked.append(asked)
        self.gate.wait(5)
        if self.error:
            raise self.error
