"""Our retrievers that are solved, not trained, as contenders; and their settings.

On Gowalla all three are the sparse form: a matrix of all pairs of its items is above the default of
``item_item_dense_items``.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from retrieval_data import K
from retrieval_peers import OnEpoch

from features.tables import Histories
from recsys.retrieval.blocks import DenseRetriever, moments_of
from recsys.retrieval.item_item import ItemItemRetriever
from recsys.topk import top_k

ROWS_AT_ONCE = 256
Settings = Mapping[str, Any]


def dan(l2: float, item_power: float, user_power: float, dropout: float, **more: Any) -> Settings:
    powers = {"item_power": item_power, "user_power": user_power, "dropout": dropout}
    return {"l2": l2, **powers, **more}


# Row -> data -> settings tried on validation, the one that it chose first.
CLOSED: Mapping[str, Mapping[str, Sequence[Settings]]] = {
    "ours: EASE": {
        "ml-1m-lcfn": [{"l2": l2} for l2 in (800.0, 500.0, 1200.0)],
        "gowalla": [{"l2": l2} for l2 in (80.0, 30.0, 200.0)],
    },
    "ours: DAN-EASE": {
        "ml-1m-lcfn": [
            dan(5.0, item_power, 0.3, dropout)
            for item_power in (0.2, 0.3)
            for dropout in (0.4, 0.5)
        ],
        "gowalla": [dan(20.0, 0.1, 0.3, 0.3), dan(20.0, 0.1, 0.3, 0.5), dan(20.0, 0.2, 0.3, 0.5)],
    },
    "ours: sparse EASE": {
        "ml-1m-lcfn": [
            dan(5.0, 0.3, 0.3, 0.5, dense_items=0, neighbours=number) for number in (400, 200)
        ],
        "gowalla": [dan(20.0, 0.1, 0.3, 0.3, neighbours=number) for number in (400, 200)],
    },
}


class ClosedForm:
    """A retriever that scores every item of a history.

    Args:
        solve: makes it.
    """

    def __init__(self, solve: Callable[[], DenseRetriever]) -> None:
        self._solve = solve
        self._retriever: DenseRetriever | None = None

    def fit(self, epochs: int, on_epoch: OnEpoch) -> None:
        """Solve; there is one epoch."""
        start = time.perf_counter()
        self._retriever = self._solve()
        on_epoch(1, time.perf_counter() - start)

    def scores(self, asked: Histories) -> np.ndarray:
        """[Q, N + 1] float32.

        Raises:
            RuntimeError: `fit` was not called.
        """
        if self._retriever is None:
            raise RuntimeError("call fit first")
        return self._retriever.score_all(asked, moments_of(asked, None))

    def lists(self, users: np.ndarray, seen: Histories) -> np.ndarray:
        """[Q, K] int64: what the rows ``users`` of ``seen``, from which they ask, get."""
        found = [np.zeros((0, K), dtype=np.int64)]
        for start in range(0, users.size, ROWS_AT_ONCE):
            asked = seen.take(users[start : start + ROWS_AT_ONCE])
            score = self.scores(asked)
            score[asked.rows, asked.item_index] = -np.inf
            found.append(top_k(score, K).item_index)
        return np.concatenate(found)


def item_item(train: Histories, num_items: int, settings: Settings, _: int) -> ClosedForm:
    return ClosedForm(lambda: ItemItemRetriever.fit(train, num_items, half_life=None, **settings))
