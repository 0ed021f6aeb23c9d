"""Retrieval by a sparse item-item matrix, asked with a recency-weighted history."""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar, Self

import numpy as np
from scipy.sparse import csr_array

from features.tables import Histories
from recsys.files.damage import telling_damage
from recsys.files.model_files import read_model, write_model
from recsys.retrieval.blocks import DenseRetriever
from recsys.retrieval.recency import recency_weights
from recsys.retrieval.sparse_scores import sparse_scores

__all__ = ["SparseItemRetriever"]


class SparseItemRetriever(DenseRetriever):
    """A history w, weighted by recency and weight, scores ``w M`` with M [N + 1, N + 1] sparse.

    Attributes:
        name: how answers name this source.
        num_items: N.
        half_life: of the asking history, in events; None: events count by their weight alone.
        weighted: events of the asking history count by their weight; not so in older models.
    """

    KIND: ClassVar[str]
    """What the files of a model say that they are."""

    def __init__(
        self,
        *,
        name: str,
        num_items: int,
        half_life: float | None,
        matrix: csr_array,
        weighted: bool = False,
    ) -> None:
        self.name = name
        self.num_items = num_items
        self.half_life = half_life
        self.weighted = weighted
        self._matrix = matrix

    def score_all(self, histories: Histories, moment: np.ndarray | None = None) -> np.ndarray:
        """[Q, N + 1] float32; ``moment`` is not used. An empty history scores 0 everywhere."""
        weight = recency_weights(histories, self.half_life, weighted=self.weighted)
        return sparse_scores(histories, weight, self._matrix)

    def save(self, directory: Path) -> None:
        """See `recsys.files.model_files.write_model`."""
        settings = {
            "name": self.name,
            "num_items": self.num_items,
            "half_life": self.half_life,
            "weighted": self.weighted,
        }
        tensors = {
            "data": self._matrix.data,
            "indices": self._matrix.indices,
            "indptr": self._matrix.indptr,
        }
        write_model(directory, self.KIND, settings, tensors)

    @classmethod
    def load(cls, directory: Path) -> Self:
        """Read what `save` wrote.

        Raises:
            ArtifactError: a file is missing, damaged, or of another kind or format.
        """
        with telling_damage(directory):
            settings, tensors = read_model(directory, cls.KIND)
            width = settings["num_items"] + 1
            matrix = csr_array(
                (tensors["data"], tensors["indices"], tensors["indptr"]), shape=(width, width)
            )
            return cls(**settings, matrix=matrix)
