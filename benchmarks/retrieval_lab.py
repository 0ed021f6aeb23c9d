"""What the gates of retrieval_gates.py share: the data, the models trained once, a row."""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
from retrieval_data import Measured, Split, measure, topk_lists
from retrieval_matrix import judged, rows_of_users, train_matrix
from torch import Tensor

from features.tables import Histories
from recsys.evaluation import RetrieverDiagnostics, Truth, diagnose_retriever
from recsys.retrieval.towers import TwoTowerRetriever
from recsys.retrieval.training.batch import Batch
from recsys.retrieval.training.objectives import OBJECTIVES, Objective

DIM = 64
SEED = 0
SOFTMAX: dict[str, Any] = {
    "loss": "sampled_softmax",
    "temperature": 0.15,
    "negatives": 1024,
    "table_learning_rate": 0.2,
}
# Learning rate chosen among .1, .3 and 1 on validation events, users drawn alike.
BPR: dict[str, Any] = {
    "loss": "bpr",
    "score": "dot",
    "temperature": 1.0,
    "table_learning_rate": 0.1,
}
FINE_TUNING = 0.05  # learning rate of the tables where a trained model is trained on


class Row(NamedTuple):
    """One expectation.

    Attributes:
        gate: its number in the list of gates.
        measured: what the value is.
        value: the measurement.
        bar: what it is held against.
        at_least: whether it must reach the bar, or stay below.
        known: the number the expectation comes from. None: there is none.
        detail: what the value was made of.
    """

    gate: int
    measured: str
    value: float
    bar: float
    at_least: bool = True
    known: float | None = None
    detail: str = ""

    @property
    def holds(self) -> bool:
        """Whether the value is on the right side."""
        return self.value >= self.bar if self.at_least else self.value <= self.bar


class Lab:
    """The split, and the models that several gates look at; each is trained once, when asked for.

    Args:
        split: the data.
        epochs: of a full training.
    """

    def __init__(self, split: Split, epochs: int) -> None:
        self.split, self.epochs = split, epochs
        self.train, self.num_items = split.whole_train, split.num_items

    def fit(self, name: str, train: Histories | None = None, **options: Any) -> TwoTowerRetriever:
        """Train on the whole train part, or on ``train``."""
        chosen = {"seed": SEED, "epochs": self.epochs, **options}
        return train_matrix(name, self.train if train is None else train, self.num_items, **chosen)

    def test(self, retriever: TwoTowerRetriever) -> Measured:
        """What its lists are worth on test."""
        return judged(retriever, self.train, self.split.test, self.split.popularity)

    def recall(self, users: np.ndarray, items: np.ndarray) -> float:
        """recall@20 of user vectors [U, D] against item vectors [N + 1, D] on test."""
        lists = topk_lists(users, items, self.train)
        return float(measure(lists, self.split.test, self.split.popularity).recall.mean())

    def users(self, retriever: TwoTowerRetriever) -> np.ndarray:
        """[U, D]."""
        return rows_of_users(retriever, self.train)

    @cached_property
    def softmax(self) -> TwoTowerRetriever:
        """The base of everything."""
        return self.fit("softmax", **SOFTMAX)

    @cached_property
    def softmax_test(self) -> Measured:
        """What it is worth on test."""
        return self.test(self.softmax)

    @cached_property
    def base(self) -> float:
        """Its recall@20."""
        return float(self.softmax_test.recall.mean())

    @cached_property
    def half(self) -> int:
        """Epochs of half a training."""
        return max(2, self.epochs // 2)

    @cached_property
    def half_base(self) -> float:
        """recall@20 of half a training of `softmax`."""
        model = self.fit("half of softmax", **SOFTMAX, epochs=self.half)
        return float(self.test(model).recall.mean())

    @cached_property
    def other_start(self) -> TwoTowerRetriever:
        """Half a training from other initial weights."""
        return self.fit("other start", **SOFTMAX, seed=SEED + 1, epochs=self.half)

    @cached_property
    def lists(self) -> np.ndarray:
        """[U, 200] the best unseen items of `softmax`."""
        return self.best_200(self.softmax)

    def best_200(self, retriever: TwoTowerRetriever) -> np.ndarray:
        """[U, 200] the best unseen items."""
        return topk_lists(self.users(retriever), retriever.item_vectors, self.train, k=200)

    def labels(self, lists: np.ndarray) -> np.ndarray:
        """[U, k] bool: which of the listed items are test items."""
        wanted = self.split.test.seen_mask(self.num_items)
        return np.take_along_axis(wanted, np.maximum(lists, 0), axis=1) & (lists > 0)

    def diagnose(self, retriever: TwoTowerRetriever) -> RetrieverDiagnostics:
        """How the vectors lie."""
        users = self.users(retriever)
        return diagnose_retriever(
            users,
            retriever.item_vectors,
            topk_lists(users, retriever.item_vectors, self.train),
            self.split.popularity,
            rng=np.random.default_rng(SEED),
            truth=Truth.from_histories(self.split.test),
        )


def ratio(
    gate: int,
    measured: str,
    value: float,
    other: float,
    bar: float,
    known: float | None,
    detail: str = "",
    *,
    least: bool = True,
) -> Row:
    """``value / other`` against the bar; an ``other`` of 0 counts as a millionth."""
    shown = f"{value:.4f} and {other:.4f}" + (f"; {detail}" if detail else "")
    return Row(gate, measured, value / max(other, 1e-6), bar, least, known, shown)


def below(
    gate: int, measured: str, value: float, other: float, bar: float, known: float | None
) -> Row:
    """``value / other``, which must not reach the bar."""
    return ratio(gate, measured, value, other, bar, known, least=False)


def register(name: str, objective: Callable[[Batch], Tensor]) -> None:
    """Let the trainer train by a loss that only this benchmark has."""
    OBJECTIVES[name] = Objective(objective)
