"""The item-item model solved exactly: by the items' equations or by the users', both the same."""

from __future__ import annotations

import numpy as np
from scipy.linalg import cho_factor, cho_solve
from scipy.linalg.lapack import dpotrf, dpotri
from scipy.sparse import csr_array, diags_array

from recsys.retrieval.linear.system import ItemSystem

__all__ = ["solve_by_items", "solve_by_users"]


def solve_by_items(system: ItemSystem) -> np.ndarray:
    """[N + 1, N + 1] float32 weights W: ``B = I - P / diag(P)``, ``P = (X'X + penalty)^-1``.

    Time is cubic in N. Memory is 12 bytes a pair of items, 8 of them while solving.

    Source: Steck, WWW 2019, equation 8.
    """
    gram = np.asfortranarray((system.matrix.T @ system.matrix).toarray())
    gram[np.diag_indices_from(gram)] += system.penalty
    factor, _ = dpotrf(gram, lower=True, overwrite_a=True)
    inverse, _ = dpotri(factor, lower=True, overwrite_c=True)
    diagonal = np.diag(inverse).copy()
    scale = np.ones(diagonal.size) if system.item_scale is None else system.item_scale
    weights = np.empty(inverse.shape, dtype=np.float32)
    for item in range(diagonal.size):  # of a symmetric matrix the upper half is not there
        column = -inverse[item:, item]
        below, right = weights[item:, item], weights[item, item:]
        ratio = scale[item:] / scale[item]
        below[:] = column / diagonal[item] * ratio
        right[:] = column / diagonal[item:] / ratio
        weights[item, item] = 0.0
    return weights


def solve_by_users(system: ItemSystem) -> dict[str, np.ndarray]:
    """The same model as ``w B = w - (w - (w A') S) / d``, with matrices [U, N + 1] alone.

    By Woodbury's identity ``P penalty = I - penalty^-1 X' (I + X penalty^-1 X')^-1 X``, so that
    ``A = X penalty^-1``, ``S = (I + A X')^-1 X`` and ``d = 1 - diag(A' S)``. Time is quadratic in U
    and linear in N.

    Returns:
        "solved" S [U, N + 1] float32; "scaled_diagonal" d [N + 1] float32; A as "value" [E]
        float32, "column" [E] int64 and "indptr" [U + 1] int64; "item_scale" [N + 1] float32 where
        there is one.
    """
    matrix = system.matrix
    num_users = matrix.shape[0]
    weighted = csr_array(matrix @ diags_array(1.0 / system.penalty))
    weighted.sort_indices()
    gram = (weighted @ matrix.T).toarray()
    gram[np.diag_indices(num_users)] += 1.0
    dense = matrix.toarray()
    solved = cho_solve(cho_factor(gram, lower=True), dense) if num_users else dense
    explained = np.asarray((weighted.multiply(solved)).sum(axis=0)).ravel()
    tensors = {
        "solved": solved.astype(np.float32),
        "scaled_diagonal": (1.0 - explained).astype(np.float32),
        "value": weighted.data.astype(np.float32),
        "column": weighted.indices.astype(np.int64),
        "indptr": weighted.indptr.astype(np.int64),
    }
    if system.item_scale is not None:
        tensors["item_scale"] = system.item_scale.astype(np.float32)
    return tensors
