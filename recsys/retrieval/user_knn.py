"""What the users with the likest histories met."""

from __future__ import annotations

from pathlib import Path
from typing import Self

import numpy as np
from scipy.sparse import csr_array

from features.tables import Histories
from recsys.files.damage import telling_damage
from recsys.files.model_files import read_model, write_model
from recsys.retrieval.blocks import DenseRetriever
from recsys.retrieval.options import CountingOptions
from recsys.retrieval.recency import check_half_life, recency_weights, weighted_cells
from recsys.retrieval.source_options import GraphOptions
from recsys.topk import top_k

__all__ = ["UserKnnRetriever"]

_KIND = "user_knn"


class UserKnnRetriever(DenseRetriever):
    """Adds up the histories of the nearest users, weighted by how near they are.

    With the matrix X [U, N] of `weighted_cells` and ``f_i = log(1 + U / d_i)``, d_i the users who
    met item i, a history w, weighted by recency and weight, is as near to user u as

        ``cos(w f, X_u f)``

    and scores the sum of ``cos * X_u`` over the ``neighbours`` nearest users of positive nearness;
    of equals those of the lower row are taken.

    A user all of whose items are in the asking history is no neighbour: nothing new is to be had of
    them. So nobody's own row of the training data, which today's history holds, takes a place or
    votes for what they had already, whether it is known who asks or not.

    Attributes:
        name: how answers name this source.
        num_items: N.
        neighbours: users added up.
        half_life: of the asking history, in events; None: events count by their weight alone.

    Source: Resnick et al., GroupLens, CSCW 1994; inverse user frequency as in Breese et al.,
    Empirical Analysis of Predictive Algorithms for Collaborative Filtering, UAI 1998, section 2.2.
    """

    def __init__(
        self,
        *,
        name: str,
        num_items: int,
        neighbours: int,
        half_life: float | None,
        users: csr_array,
    ) -> None:
        if users.shape[1] != num_items + 1:
            raise ValueError(f"users must be of {num_items + 1} items, got {users.shape[1]}")
        self.name = name
        self.num_items = num_items
        self.neighbours = neighbours
        self.half_life = half_life
        self._users = users  # [U + 1, N + 1], row 0 empty: `top_k` never gives place 0
        self._size = np.diff(users.indptr)
        num_rows = users.shape[0]
        row = np.repeat(np.arange(num_rows), self._size)
        met = np.bincount(users.indices, minlength=num_items + 1)
        self._rarity = np.log1p((num_rows - 1) / np.maximum(met, 1)).astype(np.float32)
        scaled = users.data * self._rarity[users.indices]
        norm = np.sqrt(np.bincount(row, scaled**2, num_rows)).astype(np.float32)
        directions = csr_array((scaled / norm[row], users.indices, users.indptr), users.shape)
        self._directions = directions.T.tocsr()
        self._met = self._directions.astype(np.bool_).astype(np.float32)

    @classmethod
    def fit(
        cls,
        histories: Histories,
        num_items: int,
        *,
        neighbours: int = GraphOptions.default("user_neighbours"),
        half_life: float | None = CountingOptions.default("half_life"),
        name: str = _KIND,
    ) -> Self:
        """Keep the ``histories`` [U rows].

        Raises:
            ValueError: neighbours < 1, half_life <= 0, or an item index exceeds ``num_items``.
        """
        if neighbours < 1:
            raise ValueError(f"neighbours must be >= 1, got {neighbours}; 50 to 500 is usual")
        check_half_life(half_life)
        cells = weighted_cells(histories, num_items).astype(np.float32)
        indptr = np.concatenate([[0], cells.indptr])
        users = csr_array((cells.data, cells.indices, indptr), (len(histories) + 1, num_items + 1))
        return cls(
            name=name, num_items=num_items, neighbours=neighbours, half_life=half_life, users=users
        )

    def score_all(self, histories: Histories, moment: np.ndarray | None = None) -> np.ndarray:
        """[Q, N + 1] float32 >= 0; ``moment`` is not used. No neighbours: 0 everywhere."""
        height = max(1, self.block_bytes // (4 * self._users.shape[0]))
        score = np.zeros((len(histories), self.num_items + 1), dtype=np.float32)
        for start in range(0, len(histories), height):
            rows = np.arange(start, min(start + height, len(histories)))
            score[rows] = (self._nearest(histories.take(rows)) @ self._users).toarray()
        return score

    def _nearest(self, histories: Histories) -> csr_array:
        """[Q, U + 1] float32 nearness of the nearest users; the others are 0."""
        asked = histories.to_csr(self.num_items, recency_weights(histories, self.half_life))
        asked.data *= self._rarity[asked.indices]
        norm = np.sqrt((asked**2).sum(axis=1))
        cosine = (asked @ self._directions).toarray()
        cosine /= np.where(norm > 0, norm, 1.0)[:, None]
        shared = (histories.to_csr(self.num_items) @ self._met).toarray()
        near = top_k(cosine, self.neighbours, excluded=(cosine <= 0) | (shared >= self._size))
        found = near.item_index > 0
        return csr_array(
            (near.score[found], (np.nonzero(found)[0], near.item_index[found])), cosine.shape
        )

    def save(self, directory: Path) -> None:
        """See `recsys.files.model_files.write_model`."""
        settings = {
            "name": self.name,
            "num_items": self.num_items,
            "neighbours": self.neighbours,
            "half_life": self.half_life,
        }
        tensors = {
            "data": self._users.data,
            "indices": self._users.indices,
            "indptr": self._users.indptr,
        }
        write_model(directory, _KIND, settings, tensors)

    @classmethod
    def load(cls, directory: Path) -> Self:
        """Read what `save` wrote.

        Raises:
            ArtifactError: a file is missing, damaged, or of another kind or format.
        """
        with telling_damage(directory):
            settings, tensors = read_model(directory, _KIND)
            users = csr_array(
                (tensors["data"], tensors["indices"], tensors["indptr"]),
                shape=(tensors["indptr"].size - 1, settings["num_items"] + 1),
            )
            return cls(**settings, users=users)
