"""What every retriever offers to the funnel."""

from __future__ import annotations

from pathlib import Path
from typing import Protocol, runtime_checkable

import numpy as np

from features.tables import Histories
from recsys.topk import TopK

__all__ = ["Question", "Retriever"]


class Question(Protocol):
    """Q queries put to a retriever: what it works out for them serves both answers."""

    def retrieve(self, k: int, *, excluded: np.ndarray | None = None) -> TopK:
        """Best ``k`` items per query; ``excluded`` [Q, N + 1] bool must not be returned."""
        ...

    def score(self, item_index: np.ndarray) -> np.ndarray:
        """[Q, C] float32 scores of ``item_index`` [Q, C] (0 and -1 entries score -inf)."""
        ...


@runtime_checkable
class Retriever(Protocol):
    """Finds candidates for users given by their histories, and scores given candidates.

    A retriever answers from the history alone (inductive): a user who was not in the training data
    is served as soon as there is one event. One that also learned a row for each user of the
    training data may use it where it is told whose history it is. Items are vocabulary indices,
    1..N.
    """

    name: str

    def ask(
        self,
        histories: Histories,
        *,
        moment: np.ndarray | None = None,
        user_index: np.ndarray | None = None,
    ) -> Question:
        """Put the queries of Q histories; cheaper than `retrieve` and `score` apart.

        Args:
            histories: Q rows.
            moment: see `retrieve`.
            user_index: [Q] int64, the user's row in the training data + 1, 0 = unknown. Ignored
                by retrievers that learned nothing about single users. None: all unknown.
        """
        ...

    def retrieve(
        self,
        histories: Histories,
        k: int,
        *,
        moment: np.ndarray | None = None,
        excluded: np.ndarray | None = None,
    ) -> TopK:
        """Best ``k`` items per history row.

        Args:
            histories: Q rows.
            k: results per query, >= 1.
            moment: [Q] int64 microseconds since the epoch at which the answer is given; only
                events strictly before it are seen. None: just after the newest event of each row.
            excluded: [Q, N + 1] bool, True = must not be returned.

        Raises:
            ValueError: an item of the histories is above N, k < 1, or an array has another shape.
        """
        ...

    def score(
        self, histories: Histories, item_index: np.ndarray, *, moment: np.ndarray | None = None
    ) -> np.ndarray:
        """[Q, C] float32 scores of ``item_index`` [Q, C] (0 and -1 entries score -inf)."""
        ...

    def save(self, directory: Path) -> None:
        """Write the retriever below ``directory`` without pickle."""
        ...
