"""How a training step feeds each loss: one small function a loss name."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from recsys.retrieval.losses import bpr, directau, in_batch_softmax, sampled_softmax, softmax_losses
from recsys.retrieval.negatives import KnownPositives

__all__ = ["OBJECTIVES", "Batch", "example_losses"]


@dataclass(frozen=True)
class Batch:
    """One step's vectors, already normalised where the score is a cosine.

    Attributes:
        query: [B, D] float.
        positive: [B, D] float, row i the positive of query i.
        negative: [C, D] float, shared by the batch.
        row: [B] int64 history row of each query.
        positive_index: [B] int64 items.
        negative_index: [C] int64 items.
        negative_log_q: [C] log probability that the sampler drew each negative.
        positive_log_q: [B] log share of the training events that each positive has.
        known: the pairs that must not serve as negatives.
        weight: [B] float >= 0.
        temperature: logits are divided by it.
        gamma: weight of DirectAU's uniformity.
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
    temperature: float
    gamma: float


def example_losses(batch: Batch) -> Tensor:
    """[B] loss of each example against the shared negatives, whatever loss trains.

    Denoising compares positives by it: within a user it orders them as BPR's would.
    """
    return softmax_losses(
        batch.query,
        batch.positive,
        batch.negative,
        temperature=batch.temperature,
        log_q=batch.negative_log_q,
        known_positive=batch.known.mask(batch.row, batch.negative_index),
    )


def _bpr(batch: Batch) -> Tensor:
    """Query i against negative ``i mod C``; a negative that is a known positive weighs 0."""
    place = torch.arange(len(batch.query)) % len(batch.negative)
    known = batch.known.contains(batch.row, batch.negative_index[place])
    return bpr(
        (batch.query * batch.positive).sum(dim=1) / batch.temperature,
        (batch.query * batch.negative[place]).sum(dim=1) / batch.temperature,
        weight=batch.weight * ~known,
    )


def _directau(batch: Batch) -> Tensor:
    return directau(batch.query, batch.positive, gamma=batch.gamma, weight=batch.weight)


def _in_batch_softmax(batch: Batch) -> Tensor:
    return in_batch_softmax(
        batch.query,
        batch.positive,
        temperature=batch.temperature,
        log_q=batch.positive_log_q,
        candidate_index=batch.positive_index,
        known_positive=batch.known.mask(batch.row, batch.positive_index),
        weight=batch.weight,
    )


def _sampled_softmax(batch: Batch) -> Tensor:
    return sampled_softmax(
        batch.query,
        batch.positive,
        batch.negative,
        temperature=batch.temperature,
        log_q=batch.negative_log_q,
        known_positive=batch.known.mask(batch.row, batch.negative_index),
        weight=batch.weight,
    )


OBJECTIVES: Mapping[str, Callable[[Batch], Tensor]] = {
    "bpr": _bpr,
    "directau": _directau,
    "in_batch_softmax": _in_batch_softmax,
    "sampled_softmax": _sampled_softmax,
}
