from __future__ import annotations

import numpy as np


def planted_clusters() -> tuple[np.ndarray, np.ndarray]:
    """Unit-norm [600, 16] vectors in 8 clusters of clusters, and each vector's cluster."""
    draw = np.random.default_rng(0)
    cluster = np.arange(600) % 8
    fine = draw.integers(0, 6, 600)
    centres = 4 * draw.normal(size=(8, 16))
    sub = draw.normal(size=(8, 6, 16))
    vectors = centres[cluster] + sub[cluster, fine] + 0.2 * draw.normal(size=(600, 16))
    return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32), cluster
