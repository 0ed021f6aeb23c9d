"""Item-item retrieval in closed form (EASE), asked with a recency-weighted history."""

from __future__ import annotations

from pathlib import Path
from typing import Self

import numpy as np
from scipy.linalg import cho_factor, cho_solve
from scipy.sparse import csr_array

from features.tables import Histories
from recsys.files.damage import telling_damage
from recsys.files.model_files import read_model, write_model
from recsys.retrieval.blocks import DenseRetriever
from recsys.retrieval.options import CountingOptions
from recsys.retrieval.recency import recency_weights, weighted_cells

__all__ = ["ItemItemRetriever"]


class ItemItemRetriever(DenseRetriever):
    """EASE: the linear item-item model with a zero diagonal that minimises squared error.

    With the matrix X [U, N] of what users met and ``P = (X'X + l2 I)^-1`` the model is
    ``B = I - P / diag(P)`` and a history w scores ``w B``. Two equal forms are kept, whichever is
    smaller: items (B itself, [N, N]) or users, by the identity
    ``P = (I - X' (X X' + l2 I)^-1 X) / l2``, which needs a [U, N] matrix only.

    X holds the square root of the largest weight of the events of a cell, in terms of the mean
    weight, so that X'X counts a pair of items by the geometric mean of their weights; it is 0 and 1
    where all weigh the same. The *asking* history is weighted by recency and weight. On MovieLens
    recency is worth +10% recall@20 over asking with ones (`benchmarks/funnel_quality.py`).

    Attributes:
        name: how answers name this source.
        num_items: N.
        half_life: of the asking history, in events; None: events count by their weight alone.
        weighted: events of the asking history count by their weight; not so in older models.

    Source: Steck, Embarrassingly Shallow Autoencoders for Sparse Data, WWW 2019, equation 8; the
    users' form is the Woodbury identity.
    """

    def __init__(
        self,
        *,
        name: str,
        num_items: int,
        half_life: float | None,
        tensors: dict[str, np.ndarray],
        weighted: bool = False,
    ) -> None:
        width = tensors["solved" if "solved" in tensors else "weights"].shape[1]
        if width != num_items + 1:
            raise ValueError(f"tensors must be of {num_items + 1} items, got {width}")
        self.name = name
        self.num_items = num_items
        self.half_life = half_life
        self.weighted = weighted
        self._tensors = tensors
        self._items_by_users: csr_array | None = None
        if "solved" in tensors:
            ones = np.ones(tensors["column"].size, dtype=np.float32)  # before weights counted
            users_by_items = csr_array(
                (
                    tensors.get("value", ones),
                    tensors["column"],
                    tensors["indptr"],
                ),
                shape=(tensors["indptr"].size - 1, num_items + 1),
            )
            self._items_by_users = users_by_items.T.tocsr()

    @classmethod
    def fit(
        cls,
        histories: Histories,
        num_items: int,
        *,
        l2: float = CountingOptions.default("item_item_l2"),
        half_life: float | None = CountingOptions.default("half_life"),
        name: str = "item_item",
    ) -> Self:
        """Solve for the model of ``histories`` [U rows].

        Time is cubic and memory quadratic in min(U, N).

        Raises:
            ValueError: l2 <= 0 or half_life <= 0.
        """
        if l2 <= 0:
            raise ValueError(f"l2 must be > 0, got {l2}; 100 to 1000 is usual")
        recency_weights(histories.take([]), half_life)
        matrix = weighted_cells(histories, num_items)
        num_users = matrix.shape[0]
        if num_users <= num_items:
            gram = (matrix @ matrix.T).toarray()
            gram[np.diag_indices(num_users)] += l2
            dense = matrix.toarray()
            solved = cho_solve(cho_factor(gram, lower=True), dense) if num_users else dense
            diagonal = 1.0 - np.asarray((dense * solved).sum(axis=0))  # l2 * diag(P)
            return cls(
                name=name,
                num_items=num_items,
                half_life=half_life,
                weighted=True,
                tensors={
                    "solved": solved.astype(np.float32),
                    "scaled_diagonal": diagonal.astype(np.float32),
                    "value": matrix.data.astype(np.float32),
                    "column": matrix.indices.astype(np.int64),
                    "indptr": matrix.indptr.astype(np.int64),
                },
            )
        gram = (matrix.T @ matrix).toarray()
        gram[np.diag_indices(num_items + 1)] += l2
        inverse = cho_solve(cho_factor(gram, lower=True), np.eye(num_items + 1))
        weights = -inverse / np.diag(inverse)
        np.fill_diagonal(weights, 0.0)
        return cls(
            name=name,
            num_items=num_items,
            half_life=half_life,
            weighted=True,
            tensors={"weights": weights.astype(np.float32)},
        )

    def score_all(self, histories: Histories, moment: np.ndarray | None = None) -> np.ndarray:
        """[Q, N + 1] float32; ``moment`` is not used. An empty history scores 0 everywhere."""
        asked = histories.to_csr(
            self.num_items, recency_weights(histories, self.half_life, weighted=self.weighted)
        )
        if self._items_by_users is None:
            return np.asarray(asked @ self._tensors["weights"], dtype=np.float32)
        weight = asked.toarray()
        explained = (asked @ self._items_by_users).toarray() @ self._tensors["solved"]
        return np.asarray(
            weight - (weight - explained) / self._tensors["scaled_diagonal"], dtype=np.float32
        )

    def save(self, directory: Path) -> None:
        """See `recsys.files.model_files.write_model`."""
        settings = {
            "name": self.name,
            "num_items": self.num_items,
            "half_life": self.half_life,
            "weighted": self.weighted,
        }
        write_model(directory, "item_item", settings, self._tensors)

    @classmethod
    def load(cls, directory: Path) -> Self:
        """Read what `save` wrote.

        Raises:
            ArtifactError: a file is missing, damaged, or of another kind or format.
        """
        with telling_damage(directory):
            settings, tensors = read_model(directory, "item_item")
            return cls(**settings, tensors=tensors)
