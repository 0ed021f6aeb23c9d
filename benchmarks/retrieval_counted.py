"""Retrievers that are counted or solved, as contenders: one alone, or the sum of some.

A sum adds each one's scores with every user's row standardised over all items: minus its mean,
divided by its standard deviation. Our towers may be among them. The histories of the benchmark have
no order, so they are asked without recency.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

import numpy as np
from retrieval_data import K
from retrieval_ours import QUALITY, Ours
from retrieval_peers import OnEpoch

from features.tables import Histories
from recsys.pipeline.source_choice import AXES
from recsys.retrieval.graph_filter import GraphFilterRetriever
from recsys.retrieval.item_item import ItemItemRetriever
from recsys.retrieval.rp3beta import Rp3BetaRetriever
from recsys.retrieval.source_options import GraphOptions
from recsys.retrieval.user_knn import UserKnnRetriever
from recsys.topk import stacked, top_k

__all__ = ["COUNTED", "Counted", "standardised_sum"]

Settings = Mapping[str, Any]


class Scorer(Protocol):
    """What a sum adds up: a `DenseRetriever` asked about train rows ``users`` [Q]."""

    def score_all(self, histories: Histories, users: np.ndarray) -> np.ndarray:
        """[Q, N + 1]."""


class Towers:
    """Our towers, whose users are rows of the table that was trained.

    Args:
        settings: "like": a row of `QUALITY` and its data.
    """

    def __init__(self, train: Histories, num_items: int, settings: Settings) -> None:
        row, data = settings["like"]
        options = QUALITY[row][data]
        own = Ours(train, num_items, options)
        own.fit(options["epochs"], lambda epoch, seconds: False)
        self._users, self._items = own.user_vectors, own.item_vectors

    def score_all(self, histories: Histories, users: np.ndarray) -> np.ndarray:
        """See `Scorer`."""
        return np.asarray(self._users[users] @ self._items.T)


FITS: Mapping[str, Callable[[Histories, int, Settings], Scorer]] = {
    "towers": Towers,
    "item_item": lambda train, num_items, settings: ItemItemRetriever.fit(
        train, num_items, half_life=None, **settings
    ),
    "graph_filter": lambda train, num_items, settings: GraphFilterRetriever.fit(
        train,
        num_items,
        half_life=None,
        options=GraphOptions(**{f"graph_{name}": value for name, value in settings.items()}),
    ),
    "rp3beta": lambda train, num_items, settings: Rp3BetaRetriever.fit(
        train, num_items, half_life=None, **settings
    ),
    "user_knn": lambda train, num_items, settings: UserKnnRetriever.fit(
        train, num_items, half_life=None, **settings
    ),
}


def dan(l2: float, item_power: float, user_power: float, dropout: float, **more: Any) -> Settings:
    """Settings of item-item retrieval with DAN's normalisation."""
    powers = {"item_power": item_power, "user_power": user_power, "dropout": dropout}
    return {"l2": l2, **powers, **more}


_ML_1M = {"degree": 8, "plateau": 10.0, "rank": 160, "ideal_weight": 1.0, "degree_power": 0.3}
_GOWALLA = {"degree": 8, "plateau": 1.5, "rank": 512, "ideal_weight": 0.2, "degree_power": 0.4}


def _grid(best: Settings, **others: Sequence[Any]) -> list[Settings]:
    """The best settings, then each of the others in its place alone."""
    return [best, *({**best, name: value} for name in others for value in others[name])]


# Row -> data -> settings of each retriever tried, the ones that a full search chose first.
# On Gowalla item-item is the sparse form by itself: more items than ``item_item_dense_items``.
COUNTED: Mapping[str, Mapping[str, Sequence[Settings]]] = {
    "ours: EASE": {
        "ml-1m-lcfn": [{"item_item": {"l2": l2}} for l2 in (800.0, 500.0, 1200.0)],
        "gowalla": [{"item_item": {"l2": l2}} for l2 in (80.0, 30.0, 200.0)],
    },
    "ours: DAN-EASE": {
        "ml-1m-lcfn": [
            {"item_item": dan(5.0, item_power, 0.3, dropout)}
            for item_power in (0.2, 0.3)
            for dropout in (0.4, 0.5)
        ],
        "gowalla": [
            {"item_item": dan(20.0, item_power, 0.3, dropout)}
            for item_power, dropout in ((0.1, 0.3), (0.1, 0.5), (0.2, 0.5))
        ],
    },
    "ours: sparse EASE": {
        "ml-1m-lcfn": [
            {"item_item": dan(5.0, 0.3, 0.3, 0.5, dense_items=0, neighbours=number)}
            for number in (400, 200)
        ],
        "gowalla": [
            {"item_item": dan(20.0, 0.1, 0.3, 0.3, neighbours=number)} for number in (400, 200)
        ],
    },
    "ours: what recsys train chooses": {
        data: [
            {"graph_filter": {name.removeprefix("graph_"): tried[name] for name in tried}}
            for tried in AXES["graph_filter"][0]
        ]
        for data in ("ml-1m-lcfn", "gowalla")
    },
    "ours: graph filter": {
        "ml-1m-lcfn": [
            {"graph_filter": each}
            for each in _grid(_ML_1M, ideal_weight=[3.0, 0.3], rank=[256], degree_power=[0.0])
        ],
        "gowalla": [
            {"graph_filter": each} for each in _grid(_GOWALLA, plateau=[10.0], ideal_weight=[0.5])
        ],
    },
    "ours: item-item + graph filter": {
        "ml-1m-lcfn": [
            {
                "item_item": own,
                "graph_filter": {**_ML_1M, "ideal_weight": 3.0, "weight": weight},
            }
            for own in ({"l2": 800.0}, dan(5.0, 0.2, 0.3, 0.4))
            for weight in (1.0, 0.5, 0.25)
        ],
        "gowalla": [
            {
                "item_item": dan(20.0, 0.1, 0.3, 0.3),
                "graph_filter": {**_GOWALLA, "weight": weight},
            }
            for weight in (2.0, 1.0)
        ],
    },
    "ours: towers + item-item + graph filter": {
        "ml-1m-lcfn": [
            {
                "item_item": {"l2": 800.0},
                "graph_filter": {**_ML_1M, "ideal_weight": 3.0, "weight": 1.0},
                "towers": {"like": ("ours: softmax", "ml-1m-lcfn"), "weight": weight},
            }
            for weight in (1.0, 0.5, 0.25, 2.0)
        ],
        "gowalla": [
            {
                "item_item": dan(20.0, 0.1, 0.3, 0.3),
                "graph_filter": {**_GOWALLA, "weight": 2.0},
                "towers": {"like": ("ours: softmax", "gowalla"), "weight": weight},
            }
            for weight in (1.0, 0.5, 2.0)
        ],
    },
}


class Counted:
    """Some retrievers, fitted on a train part; their standardised sum ranks.

    Args:
        train: events.
        num_items: N.
        settings: by retriever, of its fit; "weight" is that in the sum, 1 where it is not given.
        fitted: those of before, for others of the same row, so that a search of weights fits each
            of a train part once; None: of this one alone.
    """

    def __init__(
        self,
        train: Histories,
        num_items: int,
        settings: Mapping[str, Settings],
        fitted: dict[str, Scorer] | None = None,
    ) -> None:
        self._train, self._num_items, self._settings = train, num_items, settings
        self._known = {} if fitted is None else fitted
        self._fitted: list[tuple[float, Scorer]] = []

    def fit(self, epochs: int, on_epoch: OnEpoch) -> None:
        """Fit each; there is one epoch whatever ``epochs`` says."""
        begin = time.perf_counter()
        for name, given in self._settings.items():
            weight = float(given.get("weight", 1.0))
            options = {key: value for key, value in given.items() if key != "weight"}
            known = f"{name}, {len(self._train.item_index)} events, {sorted(options.items())}"
            if known not in self._known:
                self._known[known] = FITS[name](self._train, self._num_items, options)
            self._fitted.append((weight, self._known[known]))
        on_epoch(1, time.perf_counter() - begin)

    def lists(self, users: np.ndarray, *, height: int = 256) -> np.ndarray:
        """[n, K] int64 items of train rows ``users`` [n], best first, those of the row left out."""
        parts = []
        for start in range(0, len(users), height):
            rows = users[start : start + height]
            asked = self._train.take(rows)
            score = standardised_sum(self._fitted, asked, self._num_items, rows)
            parts.append(top_k(score, K, excluded=asked.seen_mask(self._num_items)))
        return stacked(parts, K).item_index


def standardised_sum(
    scorers: Sequence[tuple[float, Scorer]],
    histories: Histories,
    num_items: int,
    users: np.ndarray,
) -> np.ndarray:
    """[Q, N + 1] float32: by weight, the scores of all items with each row's mean 0 and spread 1.

    A row of equal scores says nothing and adds nothing.
    """
    total = np.zeros((len(histories), num_items + 1), dtype=np.float32)
    for weight, scorer in scorers:
        score = scorer.score_all(histories, users)[:, 1:]
        spread = score.std(axis=1, keepdims=True)
        score = score - score.mean(axis=1, keepdims=True)
        total[:, 1:] += weight * score / np.where(spread > 0, spread, 1.0)
    return total
