"""What one training step hands to a loss."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor

from recsys.retrieval.sampling.negatives import KnownPositives
from recsys.retrieval.training.options import LossSettings

__all__ = ["Batch"]


@dataclass(frozen=True)
class Batch:
    """One step's vectors, already normalised where the score is a cosine.

    Vectors, weights and ``query_of`` are on the training's device; rows and items are on the CPU,
    where what is known about them is.

    Attributes:
        query: [B, D] float.
        positive: [B, D] float, row i the positive of query i.
        negative: [C, D] float, shared by the batch.
        row: [B] int64 row of ``known`` of each query: of its history, or of the query
            itself where a sequence is read.
        positive_index: [B] int64 items.
        negative_index: [C] int64 items, distinct.
        negative_log_q: [C] log probability that the sampler drew each negative.
        positive_log_q: [B] log share of the training events that each positive has.
        known: the pairs that must not serve as negatives.
        weight: [B] float >= 0.
        settings: what single losses are set with.
        user_margin: [B] float learned margin of each row's user (`mawu`).
        item_margin: [B] float learned margin of each row's positive (`mawu`).
        content: [B, F] float content of the positives (`cm3`).
        negative_content: [C, F] float content of the negatives; `cm3` then spreads these instead
            of the positives.
        generator: source of what a loss draws (`bpr`, the AUC term).
        low_precision: multiply in bfloat16 (`sampled_softmax`, `bsl`, `directau`, `mawu`).
        normalised: whether the rows of ``query`` and ``positive`` have length 1.
        distinct_query: [Q, D] float, each query once, where several rows of ``query`` are one.
        distinct_row: [Q] int64 row of ``known`` of each of them; with it.
        query_of: [B] int64 row of ``distinct_query`` of each row, ascending; with it.
    """

    query: Tensor
    positive: Tensor
    negative: Tensor
    row: Tensor
    positive_index: Tensor
    negative_index: Tensor
    negative_log_q: Tensor
    positive_log_q: Tensor
    known: KnownPositives
    weight: Tensor
    settings: LossSettings = field(default_factory=LossSettings)
    user_margin: Tensor | None = None
    item_margin: Tensor | None = None
    content: Tensor | None = None
    negative_content: Tensor | None = None
    generator: torch.Generator | None = None
    low_precision: bool = False
    normalised: bool = False
    distinct_query: Tensor | None = None
    distinct_row: Tensor | None = None
    query_of: Tensor | None = None

    def known_negatives(self) -> Tensor:
        """[B, C] bool: the negatives that are positives of the query after all."""
        return self.known.mask(self.row, self.negative_index).to(self.query.device)
