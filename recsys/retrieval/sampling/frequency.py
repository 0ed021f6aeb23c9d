"""How often each item is drawn into a batch: from counts, or from the stream as it passes."""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor

from recsys.retrieval.sampling.negatives import NegativeSampler

__all__ = ["StreamingFrequency", "counted_log_q", "item_counts"]


def item_counts(item_index: np.ndarray, num_items: int) -> np.ndarray:
    """[N + 1] int64 events of each item, 0 for items without any.

    Raises:
        ValueError: an index is outside 0..N.
    """
    if item_index.size and not 0 <= item_index.min() <= item_index.max() <= num_items:
        raise ValueError(
            f"item_index must be 0..{num_items}, got {item_index.min()}..{item_index.max()}"
        )
    return np.bincount(item_index, minlength=num_items + 1).astype(np.int64)


def counted_log_q(counts: np.ndarray) -> Tensor:
    """[N + 1] float32 log share of the events of each item; a count of 0 counts 1, row 0 is -inf.

    Args:
        counts: [N + 1] events of each item, >= 0; entry 0 is ignored.

    Raises:
        ValueError: no item, or a negative count.
    """
    return NegativeSampler(counts, power=1.0).log_q


class StreamingFrequency:
    """Estimates each item's share of a stream of events from the gaps between its events.

    For a stream too long to count, or one that drifts. Each slot of a table keeps when it was last
    hit and the mean gap between its hits; an item's probability is one over its gap. Time advances
    with every event, not with every batch: an item that is in every batch would else be told to
    have probability 1, however many times it occurs. A slot's first ``1 / rate`` gaps are averaged
    evenly, then older ones fade. Two items in one slot look more frequent than they are; of several
    tables with hashes of their own the one with the largest gap is believed.

    Args:
        num_slots: slots a table, >= 1. Items of index below it need no hash with one table.
        rate: share of the newest gap in the mean once it has settled, in (0, 1].
        num_tables: tables with hashes of their own, >= 1.

    Attributes:
        time: events seen.

    Raises:
        ValueError: a value is out of range.

    Source: Yi et al., "Sampling-bias-corrected neural modeling for large corpus item
        recommendations", RecSys 2019, algorithms 2 and 3 (arrays A and B), with each event as a
        step of its own.
    """

    def __init__(self, num_slots: int, *, rate: float = 0.01, num_tables: int = 1) -> None:
        if num_slots < 1 or num_tables < 1:
            raise ValueError(
                f"num_slots and num_tables must be >= 1, got {num_slots} and {num_tables}"
            )
        if not 0.0 < rate <= 1.0:
            raise ValueError(f"rate must be in (0, 1], got {rate}")
        self.time = 0
        self._rate = rate
        self._settled = math.floor(1.0 / rate)  # hits after which the mean fades
        self._num_slots = num_slots
        # Odd multipliers: the first leaves small indices where they are.
        self._multiplier = torch.tensor([1 + 2 * 0x9E3779B1 * h for h in range(num_tables)])
        slots = num_slots * num_tables
        self._last = torch.zeros(slots, dtype=torch.int64)  # A: time of the last hit
        self._gap = torch.zeros(slots, dtype=torch.float64)  # B: mean gap
        self._hits = torch.zeros(slots, dtype=torch.int64)

    def update(self, item_index: Tensor) -> None:
        """Take in a batch's events, ``item_index`` [B] int64 >= 0, in their order."""
        _check_items(item_index)
        size = len(item_index)
        when = self.time + 1 + torch.arange(size)
        self.time += size
        for slots in self._slots(item_index):
            self._update_table(slots, when)

    def log_q(self, item_index: Tensor) -> Tensor:
        """Log probability of each item at the next event; never seen: that of a gap as long as all.

        Args:
            item_index: [C] int64 >= 0.

        Returns:
            [C] float32, <= 0.
        """
        _check_items(item_index)
        slots = self._slots(item_index)  # [H, C]
        unseen = self._hits[slots] == 0
        gap = self._gap[slots].masked_fill(unseen, self.time + 1.0)
        return -gap.amax(dim=0).log().float()

    def _slots(self, item_index: Tensor) -> Tensor:
        """[H, B] places in the tables, which lie one after another."""
        mixed = item_index[None, :] * self._multiplier[:, None]  # wraps around
        mixed[1:] ^= mixed[1:] >> 29
        table = torch.arange(len(self._multiplier))[:, None] * self._num_slots
        return torch.remainder(mixed, self._num_slots) + table

    def _update_table(self, slots: Tensor, when: Tensor) -> None:
        """All hits of ``slots`` [B] at once, as if they came one after another."""
        slot, order = torch.sort(slots, stable=True)
        when = when[order]
        hit, place, count = torch.unique_consecutive(slot, return_inverse=True, return_counts=True)
        first = torch.cumsum(count, 0) - count
        before = when.roll(1)
        before[first] = self._last[hit]
        seen = self._hits[hit]
        number = seen[place] + torch.arange(len(slot)) - first[place] + 1  # from 1 in each slot
        after = seen + count
        share = (1.0 / number.double()).clamp(min=self._rate)
        part = (when - before) * share * self._kept(number, after[place])
        gap = self._gap[hit] * self._kept(seen, after)
        self._gap[hit] = gap.index_add_(0, place, part)
        self._last[hit] = when[first + count - 1]
        self._hits[hit] = after

    def _kept(self, number: Tensor, after: Tensor) -> Tensor:
        """What is left of the mean of ``number`` gaps in the mean of ``after`` gaps."""
        even = number.clamp(max=self._settled).double() / after.clamp(max=self._settled)
        fading = after.clamp(min=self._settled) - number.clamp(min=self._settled)
        return even * (1.0 - self._rate) ** fading.double()


def _check_items(item_index: Tensor) -> None:
    if item_index.ndim != 1 or (len(item_index) and int(item_index.min()) < 0):
        raise ValueError(
            f"item_index must be [B] and >= 0, got shape {tuple(item_index.shape)}"
            + (f" from {int(item_index.min())} on" if item_index.numel() else "")
        )
