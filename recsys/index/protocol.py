"""What every index offers, whatever it is made of."""

from __future__ import annotations

from pathlib import Path
from typing import Literal, Protocol, Self, runtime_checkable

import numpy as np

from recsys.topk import TopK

__all__ = ["Index", "Metric"]

Metric = Literal["dot", "angular"]


@runtime_checkable
class Index(Protocol):
    """Finds the items whose vectors fit a query best, among those that may be returned.

    A score is the dot product of query and item for metric "dot" and their cosine for "angular"
    (0 where either is all zero); higher is better, and scores of different indexes over the same
    vectors can be compared. Results are `TopK`: best first, equal scores by the lower item index,
    -1 / -inf where fewer than k items may be returned.

    Attributes:
        is_exact: the k results are always the k best.
        metric: "dot" or "angular".
    """

    is_exact: bool
    metric: Metric

    @property
    def num_items(self) -> int:
        """N, the number of items indexed (row 0 not counted)."""
        ...

    @property
    def dim(self) -> int:
        """D, the length of a vector."""
        ...

    def build(self, vectors: np.ndarray) -> Self:
        """Index ``vectors``, replacing what was there; returns the index itself.

        Args:
            vectors: [N + 1, D] float, one row per vocabulary index; row 0 is ignored. N = 0 is an
                empty catalogue.

        Raises:
            ValueError: not two-dimensional, no row 0, D = 0, or a value that is not finite.
        """
        ...

    def search(
        self,
        query: np.ndarray,
        k: int,
        *,
        excluded: np.ndarray | None = None,
        allowed: np.ndarray | None = None,
    ) -> TopK:
        """Best ``k`` items for each query.

        Args:
            query: [Q, D] float; Q = 0 gives an empty result.
            k: results per query, >= 1; what the catalogue cannot fill is padded.
            excluded: [Q, N + 1] bool, True = not for this query. None: nothing excluded.
            allowed: [N + 1] bool, False = for no query. None: all allowed.

        Raises:
            NotFittedError: nothing was built or loaded.
            ValueError: k < 1, a wrong shape or type, or a query that is not finite.
        """
        ...

    def save(self, directory: Path) -> None:
        """Write the index into ``directory`` (made if missing), without pickle."""
        ...

    @classmethod
    def load(cls, directory: Path) -> Self:
        """Read what `save` wrote.

        Raises:
            ArtifactError: a file is missing, or of another kind or format version.
        """
        ...
