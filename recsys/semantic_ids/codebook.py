"""Codebooks of one level: k-means centres, nearest codes, and residual stacks of them."""

from __future__ import annotations

import hashlib
import warnings
from collections.abc import Mapping

import numpy as np
import torch
from sklearn.cluster import KMeans
from sklearn.exceptions import ConvergenceWarning
from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]

__all__ = [
    "draw_seed",
    "fingerprint_arrays",
    "kmeans_codebook",
    "nearest_codes",
    "squared_distances",
]

_BLOCK_ROWS = 4096


def draw_seed(generator: torch.Generator) -> int:
    """A seed for a library that takes integers, drawn from ``generator``."""
    return int(torch.randint(0, 2**31 - 1, (1,), generator=generator))


def kmeans_codebook(
    vectors: np.ndarray, num_codes: int, *, seed: int, num_init: int = 1, max_epochs: int = 50
) -> np.ndarray:
    """Centres of a k-means++ / Lloyd clustering, bit-equal for the same seed.

    One thread: with more, scikit-learn adds partial sums in the order in which threads finish
    (scikit-learn issue 27518), and centres differ in their last bits from run to run.

    Args:
        vectors: [N, D] float32.
        num_codes: V, at most N.
        seed: of the initial draw.
        num_init: restarts; the one with the least residual is kept.
        max_epochs: passes over the data at most.

    Returns:
        [V, D] float32. Fewer distinct vectors than V leave some centres equal.
    """
    with threadpool_limits(limits=1), warnings.catch_warnings():
        # Raised for fewer distinct points than centres: exact duplicates in the catalogue.
        warnings.simplefilter("ignore", ConvergenceWarning)
        model = KMeans(
            num_codes, n_init=num_init, max_iter=max_epochs, random_state=seed, copy_x=True
        )
        model.fit(vectors)
    return np.ascontiguousarray(model.cluster_centers_, dtype=np.float32)


def squared_distances(vectors: np.ndarray, codebook: np.ndarray) -> np.ndarray:
    """[N, V] float32 squared distances of [N, D] vectors to [V, D] codes."""
    product = vectors @ codebook.T  # [N, V]
    squares = np.einsum("nd,nd->n", vectors, vectors)[:, None]
    distances: np.ndarray = squares - 2 * product + np.einsum("vd,vd->v", codebook, codebook)
    return distances.clip(min=0)


def nearest_codes(vectors: np.ndarray, codebook: np.ndarray) -> np.ndarray:
    """[N] int64 nearest code of each vector, ties to the lower code."""
    half_squares = np.einsum("vd,vd->v", codebook, codebook) / 2
    nearest = np.empty(len(vectors), dtype=np.int64)
    for start in range(0, len(vectors), _BLOCK_ROWS):
        stop = start + _BLOCK_ROWS
        nearest[start:stop] = np.argmax(vectors[start:stop] @ codebook.T - half_squares, axis=1)
    return nearest


def fingerprint_arrays(arrays: Mapping[str, np.ndarray]) -> str:
    """Sha256 hex digest of names, dtypes, shapes and bytes."""
    digest = hashlib.sha256()
    for name in sorted(arrays):
        array = np.ascontiguousarray(arrays[name])
        digest.update(f"{name} {array.dtype} {array.shape}".encode())
        digest.update(array.tobytes())
    return digest.hexdigest()
