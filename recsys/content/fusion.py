"""Fusing modalities: blocks of equal standing, weighted, then reduced by a PCA."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Self

import numpy as np

from recsys.unit_rows import unit_rows

__all__ = ["Fusion", "NothingVariesError"]


class NothingVariesError(ValueError):
    """All rows of all blocks are equal: there is nothing to tell items apart by."""


class Fusion:
    """Blocks of vectors, one per modality, to one vector per item.

    Each block is centred and scaled on the catalogue so that its total variance is 1, then
    multiplied by its weight: ``weight**2`` is its share of what the PCA sees, however wide or
    loud it was. A zero row of a block means "this modality is missing" and stays zero, that is at
    the block's mean: missing text neither attracts nor repels. The PCA's axes have a fixed sign
    (largest component positive), so results repeat bit for bit.

    Args:
        dim: width of the output; beyond the rank of the blocks the rest are zeros.
    """

    def __init__(self, *, dim: int) -> None:
        if dim < 1:
            raise ValueError(f"dim must be >= 1, got {dim}")
        self.dim = dim
        self._mean = np.zeros(0, dtype=np.float32)
        self._scale = np.zeros(0, dtype=np.float32)
        self._basis = np.zeros((0, dim), dtype=np.float32)
        self.explained = 0.0

    def fit(self, blocks: Sequence[np.ndarray], weights: Sequence[float]) -> Self:
        """Learn centre and scale of each block and the principal axes of all together.

        Args:
            blocks: [N, D_b] float each.
            weights: one >= 0 per block.

        Raises:
            ValueError: no blocks, other lengths, or a weight that is negative.
            NothingVariesError: no variation at all.
        """
        if not blocks or len(blocks) != len(weights):
            raise ValueError(
                f"weights must be one per block, at least one: got {len(weights)} weights "
                f"for {len(blocks)} blocks"
            )
        if any(weight < 0 or not np.isfinite(weight) for weight in weights):
            raise ValueError(f"weights must be finite and >= 0, got {list(weights)}")
        means, scales = [], []
        for block, weight in zip(blocks, weights, strict=True):
            present = block[np.any(block != 0, axis=1)].astype(np.float64)
            mean = present.mean(axis=0) if len(present) else np.zeros(block.shape[1])
            variance = float(((present - mean) ** 2).sum()) / max(len(block), 1)
            scale = weight / np.sqrt(variance) if variance > 1e-12 else 0.0
            means.append(mean)
            scales.append(np.full(block.shape[1], scale))
        self._mean = np.concatenate(means).astype(np.float32)
        self._scale = np.concatenate(scales).astype(np.float32)
        joined = self._join(blocks).astype(np.float64)
        values, axes = np.linalg.eigh(joined.T @ joined)
        values, axes = values[::-1], axes[:, ::-1]
        total = float(values.clip(min=0).sum())
        if total <= 0:
            raise NothingVariesError("blocks must vary between items: all rows are equal")
        kept = int(min(self.dim, (values > 1e-9 * values[0]).sum()))
        axes = axes[:, :kept]
        largest = np.abs(axes).argmax(axis=0)
        axes = axes * np.sign(axes[largest, np.arange(kept)])
        self.explained = float(values[:kept].sum()) / total
        self._basis = np.zeros((joined.shape[1], self.dim), dtype=np.float32)
        self._basis[:, :kept] = axes
        return self

    def transform(self, blocks: Sequence[np.ndarray]) -> np.ndarray:
        """[N, dim] float32 unit rows; a zero row where every block's row is zero."""
        return unit_rows(self._join(blocks) @ self._basis)

    def _join(self, blocks: Sequence[np.ndarray]) -> np.ndarray:
        present = np.concatenate(
            [np.repeat(np.any(b != 0, axis=1)[:, None], b.shape[1], axis=1) for b in blocks], axis=1
        )
        joined = np.concatenate([np.asarray(b, dtype=np.float32) for b in blocks], axis=1)
        scaled: np.ndarray = np.where(present, (joined - self._mean) * self._scale, np.float32(0))
        return scaled

    def state(self) -> dict[str, np.ndarray]:
        """Arrays for `from_state`."""
        return {"mean": self._mean, "scale": self._scale, "basis": self._basis}

    @classmethod
    def from_state(cls, arrays: dict[str, np.ndarray]) -> Self:
        """The fusion that `state` described."""
        fusion = cls(dim=arrays["basis"].shape[1])
        fusion._mean, fusion._scale = arrays["mean"], arrays["scale"]
        fusion._basis = arrays["basis"]
        return fusion
