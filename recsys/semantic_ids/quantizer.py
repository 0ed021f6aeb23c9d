"""What every quantiser offers: vectors to one code a level, and back."""

from __future__ import annotations

from pathlib import Path
from typing import Protocol, Self, runtime_checkable

import numpy as np
import torch

__all__ = ["Quantizer", "check_codes", "check_vectors"]


@runtime_checkable
class Quantizer(Protocol):
    """Turns content vectors into one code per level, coarse to fine.

    Codes are not unique: two close vectors may share all of them. `assign_unique` makes ids of
    them. A fitted quantiser is frozen; ``fingerprint`` names its codebooks, because codes of two
    fits must never be mixed.
    """

    num_levels: int
    num_codes: int

    @property
    def fingerprint(self) -> str:
        """Sha256 hex digest of everything that decides `assign`."""
        ...

    def fit(self, vectors: np.ndarray, *, generator: torch.Generator) -> Self:
        """Learn the codebooks from [N, D] float32 vectors."""
        ...

    def assign(self, vectors: np.ndarray) -> np.ndarray:
        """[N, L] int64 codes in ``0..num_codes - 1`` of [N, D] float32 vectors, new ones too."""
        ...

    def decode(self, codes: np.ndarray) -> np.ndarray:
        """[N, D] float32: what the codes stand for, in the space of the input vectors."""
        ...

    def level_distances(self, vectors: np.ndarray, level: int) -> np.ndarray:
        """[N, V] float32 squared distances by which `assign` decides at ``level``.

        They are those of the residual, what the assigned codes of the levels before leave, or of
        its direction, to each code; only those of one level compare.
        """
        ...

    def save(self, directory: Path) -> None:
        """Write the quantiser into ``directory``, without pickle."""
        ...

    @classmethod
    def load(cls, directory: Path) -> Self:
        """Read what `save` wrote."""
        ...


def check_vectors(vectors: np.ndarray, *, dim: int | None = None) -> np.ndarray:
    """Vectors as contiguous float32 [N, D].

    Raises:
        ValueError: not 2-D, another width than ``dim``, or not finite.
    """
    if vectors.ndim != 2 or (dim is not None and vectors.shape[1] != dim):
        wanted = "[N, D]" if dim is None else f"[N, {dim}]"
        raise ValueError(f"vectors must be {wanted}, got shape {vectors.shape}")
    checked = np.ascontiguousarray(vectors, dtype=np.float32)
    finite = np.isfinite(checked).all(axis=1)
    if not finite.all():
        raise ValueError(
            f"vectors must be finite: {(~finite).sum()} rows hold a NaN or infinity, "
            f"the first is row {int(np.argmin(finite))}"
        )
    return checked


def check_codes(codes: np.ndarray, *, num_levels: int, num_codes: int) -> np.ndarray:
    """Codes as int64 [N, L].

    Raises:
        ValueError: another shape, not integers, or a code outside ``0..num_codes - 1``.
    """
    if codes.ndim != 2 or codes.shape[1] != num_levels:
        raise ValueError(f"codes must be [N, {num_levels}], got shape {codes.shape}")
    if not np.issubdtype(codes.dtype, np.integer):
        raise ValueError(f"codes must be integers, got {codes.dtype}")
    if codes.size and (codes.min() < 0 or codes.max() >= num_codes):
        raise ValueError(f"codes must lie in 0..{num_codes - 1}, got {codes.min()}..{codes.max()}")
    return codes.astype(np.int64)
