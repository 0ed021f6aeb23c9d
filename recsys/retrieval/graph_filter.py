"""A low-pass filter on the graph of users and items, with nothing to train."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Self

import numpy as np
from scipy.linalg import eigh
from scipy.sparse import csr_array, diags_array
from scipy.sparse.linalg import LinearOperator, eigsh

from features.tables import Histories
from recsys.files.damage import telling_damage
from recsys.files.model_files import read_model, write_model
from recsys.retrieval.blocks import DenseRetriever
from recsys.retrieval.options import CountingOptions
from recsys.retrieval.recency import check_half_life, recency_weights, weighted_cells
from recsys.retrieval.source_options import GraphOptions

__all__ = ["GraphFilterRetriever"]

log = logging.getLogger(__name__)

Operator = Callable[[np.ndarray], np.ndarray]

_KIND = "graph_filter"
_DENSE_SIDE = 4096
"""Up to here a matrix of all pairs is made: of the smaller side's products, which is decomposed
exactly (128 MB at most), and of the filter itself (64 MB)."""
_USUAL_RANK = 256
"""Fewer of a small graph: 256 of 671 lost 6% on MovieLens latest-small, a tenth did not."""
_LEAST_EIGENVALUE = 1e-6
"""In terms of the largest; below, a vector is rounding."""


class GraphFilterRetriever(DenseRetriever):
    """ChebyCF: what varies smoothly over the graph of users and items passes, the rest does not.

    With the matrix X [U, N] of `weighted_cells`, its row sums d_u, its column sums d_i and
    ``R = D_u^-1/2 X D_i^-1/2``, a history w, weighted by recency and weight, scores

        ``x = w d_i^-degree_power``
        ``s = (sum over k <= degree of c_k T_k(2 (I - R'R) - I) + ideal_weight V V') x``
        ``score = s d_i^degree_power``

    with the Chebyshev polynomials T_k, the coefficients c_k of a plateau (`chebyshev_weights`) and
    V [N, rank] the first right singular vectors of R. All in float32; items without an event score
    0. It is kept in one of two forms:

        filter    all of it as one matrix [N + 1, N + 1]   catalogues of up to 4,096 items: a row
                                                           for each event of a history
        data      the E cells of R as compressed rows, V   others: 2 * degree products with them an
                                                           answer, and R'R is never made

    A filter that has more entries than such an answer multiplies is not made.

    Attributes:
        name: how answers name this source.
        num_items: N.
        half_life: of the asking history, in events; None: events count by their weight alone.
        ideal_weight: of V.
        degree_power: of the items' degrees.

    Source: Kim et al., Graph Spectral Filtering with Chebyshev Interpolation for Recommendation,
    SIGIR 2025.
    """

    def __init__(
        self,
        *,
        name: str,
        num_items: int,
        half_life: float | None,
        ideal_weight: float,
        degree_power: float,
        tensors: dict[str, np.ndarray],
    ) -> None:
        form = "filter" if "filter" in tensors else "vectors"
        if tensors[form].shape[0] != num_items + 1:
            raise ValueError(
                f"{form} must be of {num_items + 1} items, got {tensors[form].shape[0]}"
            )
        self.name = name
        self.num_items = num_items
        self.half_life = half_life
        self.ideal_weight = ideal_weight
        self.degree_power = degree_power
        self._tensors = tensors
        if form == "filter":
            return
        self._graph = csr_array(
            (tensors["data"], tensors["indices"], tensors["indptr"]),
            shape=(tensors["indptr"].size - 1, num_items + 1),
        )
        self._back = self._graph.T  # the same arrays
        known = tensors["degree"] > 0
        scale = np.where(known, tensors["degree"], 1.0) ** degree_power
        self._before = np.where(known, 1.0 / scale, 0.0).astype(np.float32)
        self._after = np.where(known, scale, 0.0).astype(np.float32)

    @classmethod
    def fit(
        cls,
        histories: Histories,
        num_items: int,
        *,
        half_life: float | None = CountingOptions.default("half_life"),
        options: GraphOptions | None = None,
        name: str = _KIND,
    ) -> Self:
        """Find the singular vectors of the graph of ``histories`` [U rows].

        Their number is cut to min(U, N) - 1, and to what a search within ``graph_memory_gb``
        finds: about 16 bytes for each vector and row of the smaller side, 4 for each item.

        Raises:
            ValueError: half_life <= 0, or an item index exceeds ``num_items``.
        """
        options = options or GraphOptions()
        check_half_life(half_life)
        cells = weighted_cells(histories, num_items)
        degree = cells.sum(axis=0)
        users, items = (
            diags_array(np.power(one, -0.5, out=np.zeros_like(one), where=one > 0))
            for one in (cells.sum(axis=1), degree)
        )
        graph = csr_array(users @ cells @ items)
        del cells
        rank = _affordable(graph.shape, options)
        vectors = _right_vectors(graph, rank)
        vectors[degree == 0] = 0.0
        made = partial(
            cls,
            name=name,
            num_items=num_items,
            half_life=half_life,
            ideal_weight=options.graph_ideal_weight,
            degree_power=options.graph_degree_power,
        )
        model = made(
            tensors={
                "data": graph.data.astype(np.float32),
                "indices": graph.indices.astype(np.int32),
                "indptr": graph.indptr.astype(np.int32 if graph.nnz < 2**31 else np.int64),
                "degree": degree,
                "vectors": vectors,
                "weights": chebyshev_weights(options.graph_degree, options.graph_plateau),
            },
        )
        width = num_items + 1
        if num_items > _DENSE_SIDE or width**2 > 2 * options.graph_degree * graph.nnz:
            return model
        return made(tensors={"filter": model._whole()})

    def score_all(self, histories: Histories, moment: np.ndarray | None = None) -> np.ndarray:
        """[Q, N + 1] float32; ``moment`` is not used. An empty history scores 0 everywhere.

        Takes four arrays as large as the answer and one [U, Q].
        """
        asked = histories.to_csr(self.num_items, recency_weights(histories, self.half_life))
        if "filter" in self._tensors:
            return np.asarray(asked @ self._tensors["filter"])
        asked.data *= self._before[asked.indices]
        signal = asked.toarray().T
        signal = signal[:, 0] if len(histories) == 1 else np.ascontiguousarray(signal)
        score = self._filtered(signal, self._operated).reshape(self.num_items + 1, len(histories))
        vectors = self._tensors["vectors"]
        if self.ideal_weight and vectors.size:
            score += vectors @ (np.float32(self.ideal_weight) * (asked @ vectors).T)
        return np.ascontiguousarray(score.T * self._after)

    def _whole(self) -> np.ndarray:
        """[N + 1, N + 1] float32: what each item alone scores, row by row."""
        gram = (self._back @ self._graph).toarray()

        def operated(signal: np.ndarray) -> np.ndarray:
            moved: np.ndarray = gram @ signal
            moved *= -2
            moved += signal
            return moved

        score = self._filtered(np.eye(self.num_items + 1, dtype=np.float32), operated)
        vectors = self._tensors["vectors"]
        score += (np.float32(self.ideal_weight) * vectors) @ vectors.T
        return np.asarray(self._before[:, None] * score * self._after)

    def _filtered(self, signal: np.ndarray, operated: Operator) -> np.ndarray:
        """The polynomial of ``signal`` [N + 1] or [N + 1, Q], by the recurrence of T_k."""
        weights = self._tensors["weights"].astype(np.float32)
        older, newer = signal, operated(signal)
        score: np.ndarray = weights[0] * older + weights[1] * newer
        for weight in weights[2:]:
            newest = operated(newer)
            newest *= 2
            newest -= older
            score += weight * newest
            older, newer = newer, newest
        return score

    def _operated(self, signal: np.ndarray) -> np.ndarray:
        """``signal - 2 R'(R signal)``: the Laplacian with its eigenvalues moved to -1..1."""
        moved: np.ndarray = self._back @ (self._graph @ signal)
        moved *= -2
        moved += signal
        return moved

    def save(self, directory: Path) -> None:
        """See `recsys.files.model_files.write_model`."""
        settings = {
            "name": self.name,
            "num_items": self.num_items,
            "half_life": self.half_life,
            "ideal_weight": self.ideal_weight,
            "degree_power": self.degree_power,
        }
        write_model(directory, _KIND, settings, self._tensors)

    @classmethod
    def load(cls, directory: Path) -> Self:
        """Read what `save` wrote.

        Raises:
            ArtifactError: a file is missing, damaged, or of another kind or format.
        """
        with telling_damage(directory):
            settings, tensors = read_model(directory, _KIND)
            return cls(**settings, tensors=tensors)


def chebyshev_weights(degree: int, plateau: float) -> np.ndarray:
    """[degree + 1] float64 weights of T_0..T_degree for a low-pass filter with a plateau.

    The wanted response at p is ``.5 + .5 (-p)^plateau`` below 0 and ``.5 - .5 p^plateau`` above. As
    in the authors' code it is taken at the extrema of T_degree, rounded to three digits, and paired
    with the roots of T_(degree + 1): their numbers come out with this pairing alone.
    """
    place = np.arange(degree + 1)
    extremum = np.round(np.cos((degree - place) / degree * math.pi), 3)
    size = np.abs(extremum) ** plateau
    wanted = np.round(np.where(extremum < 0, 0.5 + 0.5 * size, 0.5 - 0.5 * size), 3)
    angle = (degree + 0.5 - place) / (degree + 1) * math.pi
    weights: np.ndarray = 2 / (degree + 1) * np.cos(place[:, None] * angle) @ wanted
    weights[0] /= 2
    return weights


def _affordable(shape: tuple[int, int], options: GraphOptions) -> int:
    """How many of the wanted singular vectors there are and memory allows; says what it cuts."""
    side, width = min(shape), shape[1]
    wanted = options.graph_rank
    if wanted is None:
        wanted = min(_USUAL_RANK, min(shape[0], width - 1) // 10)
    found = min(wanted, min(shape[0], width - 1) - 1)
    if side > _DENSE_SIDE:
        found = min(found, int(options.graph_memory_gb * 1e9 / (16 * side + 4 * width)))
    found = max(found, 0)
    if found < wanted:
        log.info(
            "graph_filter: %d of %d singular vectors, for %d users, %d items and %.3g GB",
            found, wanted, shape[0], width - 1, options.graph_memory_gb,
        )  # fmt: skip
    return found


def _right_vectors(graph: csr_array, rank: int) -> np.ndarray:
    """[N + 1, <= rank] float32 right singular vectors of the largest values; the same every time.

    They are eigenvectors of the smaller Gram matrix, or what the graph makes of them.
    """
    num_users, width = graph.shape
    if rank < 1 or graph.nnz == 0:
        return np.zeros((width, 0), dtype=np.float32)
    rows = graph.T.tocsr() if width <= num_users else graph
    side = rows.shape[0]
    if side <= _DENSE_SIDE:
        value, vector = eigh((rows @ rows.T).toarray(), subset_by_index=[side - rank, side - 1])
    else:
        rows = rows.astype(np.float32)
        columns = rows.T
        gram = LinearOperator(
            (side, side), matvec=lambda one: rows @ (columns @ one), dtype=np.float32
        )
        start = np.random.default_rng(0).standard_normal(side).astype(np.float32)
        value, vector = eigsh(gram, k=rank, v0=start)
    kept = value > _LEAST_EIGENVALUE * value.max()
    value, vector = value[kept], vector[:, kept]
    if width > num_users:
        vector = rows.T @ (vector / np.sqrt(value))
    return np.ascontiguousarray(vector, dtype=np.float32)
