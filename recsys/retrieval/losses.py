"""Training losses of a retriever: tensors in, one scalar out.

Every loss takes ``weight`` [B] >= 0, one number per example: the mean becomes
``sum(weight * loss) / sum(weight)``. Masks are boolean and mean "leave this one out".
Scores are dot products: normalise the vectors first for a cosine.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping

import torch
import torch.nn.functional as F
from torch import Tensor

__all__ = [
    "LOSSES",
    "bpr",
    "directau",
    "in_batch_softmax",
    "sampled_softmax",
    "softmax_losses",
    "uniformity",
    "weighted_mean",
]


def weighted_mean(value: Tensor, weight: Tensor | None = None) -> Tensor:
    """Mean of ``value`` [B], weighted by ``weight`` [B] >= 0; weights that are all 0 give 0."""
    if weight is None:
        return value.mean()
    if weight.shape != value.shape:
        raise ValueError(
            f"weight must have one entry per example: got shape {tuple(weight.shape)} for "
            f"{tuple(value.shape)}"
        )
    total = weight.sum()
    return (value * weight).sum() / torch.where(total > 0, total, torch.ones_like(total))


def bpr(positive_score: Tensor, negative_score: Tensor, *, weight: Tensor | None = None) -> Tensor:
    """Mean of ``softplus(negative - positive)``: each positive against its own negative.

    Args:
        positive_score: [B] float.
        negative_score: [B] float.
        weight: [B] weights of the examples, >= 0. None: all equal.

    Returns:
        Scalar, in nats; log(2) when the two scores are equal.

    Raises:
        ValueError: shapes disagree.

    Source: Rendle et al., UAI 2009, BPR-OPT without its regulariser.
    """
    if positive_score.shape != negative_score.shape:
        raise ValueError(
            f"negative_score must have the shape of positive_score: got "
            f"{tuple(negative_score.shape)} for {tuple(positive_score.shape)}"
        )
    return weighted_mean(F.softplus(negative_score - positive_score), weight)


def softmax_losses(
    query: Tensor,
    candidate: Tensor,
    negative: Tensor,
    *,
    temperature: float = 1.0,
    log_q: Tensor | None = None,
    known_positive: Tensor | None = None,
) -> Tensor:
    """`sampled_softmax` before its mean: [B], for losses that are looked at one by one."""
    _check_pair(query, candidate, temperature)
    if negative.ndim != 2 or negative.shape[1] != query.shape[1]:
        raise ValueError(
            f"negative must be [C, {query.shape[1]}], got shape {tuple(negative.shape)}"
        )
    num_queries, num_negatives = query.shape[0], negative.shape[0]
    positive = (query * candidate).sum(dim=1, keepdim=True) / temperature  # [B, 1]
    logit = query @ negative.T / temperature  # [B, C]
    if log_q is not None:
        _check_shape("log_q", log_q, (num_negatives,))
        logit = logit + (F.log_softmax(-log_q, dim=0) + math.log(num_negatives)).to(logit)
    if known_positive is not None:
        _check_shape("known_positive", known_positive, (num_queries, num_negatives))
        logit = logit.masked_fill(known_positive, -torch.inf)
    both = torch.cat([positive, logit], dim=1)  # [B, 1 + C]
    return torch.logsumexp(both, dim=1) - positive[:, 0]


def sampled_softmax(
    query: Tensor,
    candidate: Tensor,
    negative: Tensor,
    *,
    temperature: float = 1.0,
    log_q: Tensor | None = None,
    known_positive: Tensor | None = None,
    weight: Tensor | None = None,
) -> Tensor:
    """Mean cross-entropy of each query's own candidate against negatives shared by the batch.

    Negatives drawn with unequal probabilities are re-weighted to a uniform draw: negative j counts
    ``exp(-log_q_j)``, scaled so that the C counts have mean 1. Only differences of ``log_q``
    matter, and a constant ``log_q`` is no correction. With one negative this is `bpr`.

    Args:
        query: [B, D] float.
        candidate: [B, D] float; row i is the positive of row i of ``query``.
        negative: [C, D] float, used by every query.
        temperature: logits are divided by it; > 0.
        log_q: [C] log probability that the sampler drew each negative. None: equal.
        known_positive: [B, C] bool, True = this negative is a positive of that query and is left
            out of its denominator. None: nothing is left out.
        weight: [B] weights of the examples, >= 0. None: all equal.

    Returns:
        Scalar, in nats. All-zero vectors give log(1 + C).

    Raises:
        ValueError: shapes disagree or temperature <= 0.

    Source: Wu et al., "On the effectiveness of sampled softmax loss for item recommendation",
        TOIS 2024; the correction is the self-normalised form of Bengio & Senecal, 2008.
    """
    loss = softmax_losses(
        query,
        candidate,
        negative,
        temperature=temperature,
        log_q=log_q,
        known_positive=known_positive,
    )
    return weighted_mean(loss, weight)


def in_batch_softmax(
    query: Tensor,
    candidate: Tensor,
    *,
    temperature: float = 1.0,
    log_q: Tensor | None = None,
    candidate_index: Tensor | None = None,
    known_positive: Tensor | None = None,
    weight: Tensor | None = None,
) -> Tensor:
    """Mean cross-entropy of each query's own candidate against all in the batch.

    Row i of ``candidate`` is the positive of row i of ``query``; the other rows, and rows from B
    on, are shared negatives. Popular items are drawn as negatives more often, so pass ``log_q``.

    Args:
        query: [B, D] float.
        candidate: [C, D] float, C >= B.
        temperature: logits are divided by it; > 0.
        log_q: [C] log probability that the sampler drew each candidate; subtracted from its
            logit, that of the positive included. None: no correction.
        candidate_index: [C] item indices; equal ones are accidental hits and are left out.
        known_positive: [B, C] bool, True = left out too; the query's own row is always kept.
        weight: [B] weights of the examples, >= 0. None: all equal.

    Returns:
        Scalar, in nats. All-zero vectors without corrections give log(C).

    Raises:
        ValueError: shapes disagree, C < B, or temperature <= 0.

    Source: Yi et al., RecSys 2019, eq. 4-5 (log-q correction).
    """
    if query.ndim != 2 or candidate.ndim != 2 or candidate.shape[0] < query.shape[0]:
        raise ValueError(
            f"candidate must be [C, D] with C >= B: got {tuple(candidate.shape)} for query "
            f"{tuple(query.shape)}"
        )
    num_queries, num_candidates = query.shape[0], candidate.shape[0]
    _check_pair(query, candidate[:num_queries], temperature)
    logit = query @ candidate.T / temperature  # [B, C]
    if log_q is not None:
        _check_shape("log_q", log_q, (num_candidates,))
        logit = logit - log_q.to(logit)
    own = torch.eye(num_queries, num_candidates, dtype=torch.bool, device=query.device)
    left_out = torch.zeros_like(own)
    if candidate_index is not None:
        _check_shape("candidate_index", candidate_index, (num_candidates,))
        left_out |= candidate_index[:num_queries, None] == candidate_index[None, :]
    if known_positive is not None:
        _check_shape("known_positive", known_positive, (num_queries, num_candidates))
        left_out |= known_positive
    logit = logit.masked_fill(left_out & ~own, -torch.inf)
    return weighted_mean(torch.logsumexp(logit, dim=1) - logit.diagonal(), weight)


def uniformity(vector: Tensor, *, t: float = 2.0, weight: Tensor | None = None) -> Tensor:
    """``log mean exp(-t ||x_a - x_b||^2)`` over the pairs a < b of normalised rows.

    Uses ``||x_a - x_b||^2 = 2 - 2 x_a . x_b``, one Gram product instead of B^2 D differences.

    Args:
        vector: [B, D] float with B >= 2; rows are normalised here.
        t: sharpness, > 0.
        weight: [B] >= 0: pair (a, b) counts weight_a * weight_b. None: all equal.

    Returns:
        Scalar in [-4 t, 0]; 0 when all rows point the same way (collapse).

    Raises:
        ValueError: fewer than two rows.

    Source: Wang & Isola, ICML 2020, eq. 2.
    """
    if vector.ndim != 2 or vector.shape[0] < 2:
        raise ValueError(f"vector must be [B >= 2, D], got shape {tuple(vector.shape)}")
    unit = F.normalize(vector, dim=1)
    near = torch.exp(2.0 * t * (unit @ unit.T - 1.0))  # [B, B]
    off = 1.0 - torch.eye(len(unit), dtype=unit.dtype, device=unit.device)
    if weight is not None:
        off = off * weight[:, None] * weight[None, :]
    return torch.log((near * off).sum() / off.sum())


def directau(
    query: Tensor, candidate: Tensor, *, gamma: float, weight: Tensor | None = None
) -> Tensor:
    """Alignment of the pairs plus gamma times the mean uniformity of both sides; no negatives.

    ``mean ||q - c||^2 + gamma * (uniformity(q) + uniformity(c)) / 2`` on normalised rows. The half
    is the official code's; without it gamma means twice as much. Too small a gamma collapses.

    Args:
        query: [B, D] float, B >= 2; rows are normalised here.
        candidate: [B, D] float; row i is the positive of row i of ``query``.
        gamma: weight of the uniformity, >= 0.
        weight: [B] weights of the examples, >= 0; pairs in the uniformity count their product.

    Returns:
        Scalar.

    Raises:
        ValueError: shapes disagree, B < 2, or gamma < 0.

    Source: Wang et al., KDD 2022, eq. 8 and the official implementation.
    """
    _check_pair(query, candidate, 1.0)
    if gamma < 0:
        raise ValueError(f"gamma must be >= 0, got {gamma}")
    apart = (F.normalize(query, dim=1) - F.normalize(candidate, dim=1)).square().sum(dim=1)
    spread = uniformity(query, weight=weight) + uniformity(candidate, weight=weight)
    return weighted_mean(apart, weight) + gamma * spread / 2


LOSSES: Mapping[str, Callable[..., Tensor]] = {
    "bpr": bpr,
    "directau": directau,
    "in_batch_softmax": in_batch_softmax,
    "sampled_softmax": sampled_softmax,
}


def _check_pair(query: Tensor, candidate: Tensor, temperature: float) -> None:
    if query.ndim != 2 or query.shape != candidate.shape:
        raise ValueError(
            f"query and candidate must both be [B, D]: got {tuple(query.shape)} and "
            f"{tuple(candidate.shape)}"
        )
    if not temperature > 0:
        raise ValueError(f"temperature must be > 0, got {temperature}")


def _check_shape(name: str, value: Tensor, shape: tuple[int, ...]) -> None:
    if tuple(value.shape) != shape:
        raise ValueError(f"{name} must have shape {shape}, got {tuple(value.shape)}")
