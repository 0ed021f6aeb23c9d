"""Vectors brought to length 1."""

from __future__ import annotations

import numpy as np

__all__ = ["unit_rows"]


def unit_rows(vectors: np.ndarray) -> np.ndarray:
    """Rows divided by their length; zero rows stay zero.

    Args:
        vectors: [N, D] finite floats.

    Returns:
        [N, D] of the same dtype.
    """
    # Brought near 1 first, so that no square is too small or too large for its type; by a power
    # of two, which rounds nothing.
    exponent = np.frexp(np.abs(vectors).max(axis=1, keepdims=True, initial=0.0))[1]
    scaled = np.ldexp(vectors, -exponent)
    length = np.linalg.norm(scaled, axis=1, keepdims=True)
    unit: np.ndarray = scaled / np.where(length > 0, length, length.dtype.type(1))
    return unit
