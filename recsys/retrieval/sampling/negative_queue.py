"""Negatives from recent batches, and negatives of two sources as one sample."""

from __future__ import annotations

import torch
from torch import Tensor

from recsys.retrieval.losses.inputs import check_at_least, check_shape

__all__ = ["NegativeQueue", "merge_repeats", "mixed_negatives"]


class NegativeQueue:
    """The positives of the newest batches, first in, first out: negatives for the next batch.

    It holds items, not vectors, so a step encodes them as the model stands and none is stale.
    What comes in are training events in random order, so an item is in it with the probability of
    its share of the events: pass that as ``log_q``, e.g. of `recsys.retrieval.sampling.frequency.
    counted_log_q`. An item's share of the queue itself is not that probability: items that are not
    in the queue would be taken for items that cannot be drawn.

    >>> queue = NegativeQueue(3)
    >>> queue.push(torch.tensor([5, 6]))
    >>> queue.push(torch.tensor([7, 5]))
    >>> queue.items()
    tensor([6, 7, 5])

    Args:
        capacity: most items held, >= 1.

    Raises:
        ValueError: capacity < 1.

    Source: Wang et al., "Cross-batch negative sampling for training two-tower recommenders",
        SIGIR 2021, which keeps vectors.
    """

    def __init__(self, capacity: int) -> None:
        check_at_least(1, capacity=capacity)
        self.capacity = capacity
        self._ring = torch.zeros(capacity, dtype=torch.int64)
        self._pushed = 0

    def __len__(self) -> int:
        return min(self._pushed, self.capacity)

    def push(self, item_index: Tensor) -> None:
        """Append the items [B] int64 >= 1 of a batch, in their order; the oldest fall out.

        Raises:
            ValueError: not one-dimensional, or an item is < 1.
        """
        if item_index.ndim != 1 or (len(item_index) and int(item_index.min()) < 1):
            raise ValueError(
                f"item_index must be [B] and >= 1, got shape {tuple(item_index.shape)}"
                + (f" from {int(item_index.min())} on" if item_index.numel() else "")
            )
        newest = item_index[-self.capacity :]
        self._pushed += len(item_index)
        place = torch.arange(self._pushed - len(newest), self._pushed) % self.capacity
        self._ring[place] = newest

    def items(self) -> Tensor:
        """[C] int64 items held, C <= capacity, oldest first, repeats and all."""
        place = torch.arange(self._pushed - len(self), self._pushed) % self.capacity
        return self._ring[place]


def merge_repeats(item_index: Tensor, log_q: Tensor) -> tuple[Tensor, Tensor]:
    """Each item of a sample once, with its count in its ``log_q``.

    A loss weighs a negative by ``exp(-log_q)``; one that was drawn n times has to weigh n times
    that, which is ``log_q - log(n)``. Nothing is encoded or scored twice. The losses scale the
    weights of the M negatives they get to mean 1, so M of them, not C, face the positive.

    Args:
        item_index: [C] int64 items of a sample, with repeats.
        log_q: [N + 1] log probability of each item of the catalogue.

    Returns:
        [M] int64 distinct items in rising order, and [M] their log_q.
    """
    distinct, count = torch.unique(item_index, return_counts=True)
    return distinct, log_q[distinct] - count.to(log_q.dtype).log()


def mixed_negatives(
    drawn: Tensor, drawn_log_q: Tensor, recent: Tensor, recent_log_q: Tensor
) -> tuple[Tensor, Tensor]:
    """A sampler's negatives and the batch's (or a queue's) own positives as one sample.

    Popular items come from the positives, rare ones from the uniform sampler, and every item is
    corrected for the mixture it was drawn from, whichever part drew it:

        q = a * q_drawn + (1 - a) * q_recent        a = C1 / (C1 + C2)

    The sample stays one of the whole catalogue, and no weight exceeds ``1 / a`` times that of the
    uniform sampler, where that of positives alone has no bound.

    Args:
        drawn: [C1] int64 items of a sampler, C1 >= 1.
        drawn_log_q: [N + 1] its log probability of each item.
        recent: [C2] int64 positives, may be empty.
        recent_log_q: [N + 1] log share of the training events of each item, e.g. of
            `recsys.retrieval.sampling.frequency.counted_log_q`.

    Returns:
        [M] int64 distinct items in rising order, and [M] log_q with the counts of repeats in it,
        as `merge_repeats` does.

    Raises:
        ValueError: nothing was drawn, or the two tables differ in length.

    Source: Yang et al., "Mixed negative sampling for learning two-tower neural networks in
        recommendations", WWW 2020 companion.
    """
    if not len(drawn):
        raise ValueError("drawn must hold at least one item, got none")
    check_shape("recent_log_q", recent_log_q, tuple(drawn_log_q.shape))
    item_index = torch.cat([drawn, recent])
    distinct, count = torch.unique(item_index, return_counts=True)
    share = len(drawn) / len(item_index)
    q = share * drawn_log_q[distinct].exp() + (1.0 - share) * recent_log_q[distinct].exp()
    return distinct, (q / count.to(q.dtype)).log()
