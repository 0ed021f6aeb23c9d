"""Logits of negatives that the whole batch shares, and their sums."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from recsys.retrieval.losses.inputs import check_shape

__all__ = ["kept_mass", "left_out", "log_counts", "log_total", "negative_logits"]


def log_counts(log_q: Tensor) -> Tensor:
    """[C] log of ``exp(-log_q)`` scaled to mean 1: how often each negative counts."""
    return F.log_softmax(-log_q, dim=0) + math.log(len(log_q))


def negative_logits(
    query: Tensor,
    negative: Tensor,
    *,
    temperature: float,
    log_q: Tensor | None,
    known_positive: Tensor | None,
) -> Tensor:
    """[B, C] logits, corrected for the sampler, -inf where a negative is left out."""
    scaled = query / temperature
    if log_q is None:
        logit = scaled @ negative.T
    else:
        check_shape("log_q", log_q, (negative.shape[0],))
        logit = torch.addmm(log_counts(log_q).to(scaled), scaled, negative.T)
    return logit if known_positive is None else logit.masked_fill_(known_positive, -torch.inf)


def log_total(logit: Tensor) -> Tensor:
    """[B] ``log sum exp`` of the rows of ``logit`` [B, C], which is overwritten.

    A row of nothing but -inf gives a very small number without a gradient, where torch's own
    ``logsumexp`` has NaN for a gradient; one array of B * C less, too.
    """
    limit = torch.finfo(logit.dtype)
    top = logit.detach().amax(dim=1, keepdim=True).clamp_(min=limit.min)
    total = logit.sub_(top).exp_().sum(dim=1)  # >= 1 unless the row is empty
    return total.clamp(min=limit.tiny).log() + top[:, 0]


def kept_mass(negative: Tensor, *, log_q: Tensor | None, known_positive: Tensor | None) -> Tensor:
    """[B], or [] without a mask: the counts of the negatives left to each query, summed."""
    if log_q is None:
        counts = negative.new_ones(len(negative))
    else:
        counts = log_counts(log_q).exp().to(negative)
    if known_positive is None:
        return counts.sum()
    return (~known_positive).to(counts) @ counts


def left_out(known_positive: Tensor | None, loss: Tensor) -> Tensor:
    """``loss`` [B] with 0 for the queries that have no negative left."""
    if known_positive is None:
        return loss
    return loss.masked_fill(known_positive.all(dim=1), 0.0)
