"""Drawing negatives, and knowing which of them are positives after all."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

__all__ = ["KnownPositives", "NegativeSampler"]


class NegativeSampler:
    """Draws items with probability proportional to ``max(count, 1) ** power``.

    Attributes:
        log_q: [N + 1] float32 log probability of each item; -inf for the padding row 0.

    Args:
        counts: [N + 1] interactions of each item; entry 0 is ignored.
        power: 0 draws uniformly, 1 by popularity; >= 0.

    Raises:
        ValueError: no item, a negative count, or a negative power.
    """

    def __init__(self, counts: np.ndarray, *, power: float = 0.0) -> None:
        if counts.ndim != 1 or counts.size < 2:
            raise ValueError(f"counts must be [N + 1] with N >= 1, got shape {counts.shape}")
        if bool((counts[1:] < 0).any()):
            raise ValueError(f"counts must be >= 0, got {counts[1:].min()}")
        if power < 0:
            raise ValueError(f"power must be >= 0, got {power}")
        mass = np.maximum(counts[1:].astype(np.float64), 1.0) ** power
        share = mass / mass.sum()
        self._cumulative = torch.from_numpy(np.cumsum(share))
        log_q = np.concatenate([[-np.inf], np.log(share)]).astype(np.float32)
        self.log_q = torch.from_numpy(log_q)

    def sample(self, size: int, *, generator: torch.Generator) -> Tensor:
        """[size] int64 item indices 1..N, drawn with replacement."""
        point = torch.rand(size, dtype=torch.float64, generator=generator)
        drawn = torch.searchsorted(self._cumulative, point, right=True)
        return drawn.clamp_(max=len(self._cumulative) - 1) + 1


class KnownPositives:
    """The (row, item) pairs that must never serve as negatives.

    Args:
        indptr: [U + 1] int64, compressed rows as in `features.tables.Histories`.
        item_index: [E] int64, >= 1.
        num_items: N.

    Raises:
        ValueError: an item index is outside 1..N.
    """

    def __init__(self, indptr: np.ndarray, item_index: np.ndarray, num_items: int) -> None:
        if item_index.size and not 1 <= item_index.min() <= item_index.max() <= num_items:
            raise ValueError(
                f"item_index must be 1..{num_items}, got {item_index.min()}..{item_index.max()}"
            )
        row = np.repeat(np.arange(len(indptr) - 1, dtype=np.int64), np.diff(indptr))
        key = np.unique(row * (num_items + 1) + item_index)
        self.num_items = num_items
        self._key = torch.from_numpy(key)
        self._item = torch.from_numpy(key % (num_items + 1))
        counts = np.bincount(key // (num_items + 1), minlength=len(indptr) - 1)
        self._indptr = torch.from_numpy(np.concatenate([[0], np.cumsum(counts)]).astype(np.int64))
        self._column = torch.full((num_items + 1,), -1, dtype=torch.int32)  # scratch of `pairs`

    def contains(self, row: Tensor, item_index: Tensor) -> Tensor:
        """Whether each pair is known; ``row`` and ``item_index`` are int64 of one shape."""
        if not len(self._key):
            return torch.zeros(item_index.shape, dtype=torch.bool)
        wanted = row * (self.num_items + 1) + item_index
        place = torch.searchsorted(self._key, wanted).clamp_(max=len(self._key) - 1)
        return self._key[place] == wanted

    def pairs(self, row: Tensor, item_index: Tensor) -> tuple[Tensor, Tensor]:
        """Where known pairs stand among the rows [B] and the distinct items [C].

        Walks the known items of the rows instead of searching B * C pairs.

        Args:
            row: [B] int64; may repeat.
            item_index: [C] int64, distinct.

        Returns:
            Two int64 vectors of one length: places in ``row``, ascending, and in ``item_index``.
        """
        self._column[item_index] = torch.arange(len(item_index), dtype=torch.int32)
        start = self._indptr[row]
        counts = self._indptr[row + 1] - start
        shift = start - torch.cumsum(counts, 0) + counts
        event = torch.arange(int(counts.sum())) + torch.repeat_interleave(shift, counts)
        column = self._column[self._item[event]]
        hit = (column >= 0).nonzero()[:, 0]
        line = torch.searchsorted(torch.cumsum(counts, 0), hit, right=True)
        self._column[item_index] = -1
        return line, column[hit].long()

    def mask(self, row: Tensor, item_index: Tensor) -> Tensor:
        """[B, C] bool: is item c known for row b, for every pair of ``row`` [B] and item [C]."""
        distinct, place = torch.unique(item_index, return_inverse=True)
        known = torch.zeros(len(row), len(distinct), dtype=torch.bool)
        known[self.pairs(row, distinct)] = True
        return known[:, place]
