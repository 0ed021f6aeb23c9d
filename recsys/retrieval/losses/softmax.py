"""Softmax losses: a positive against sampled negatives, or against the rest of its batch."""

from __future__ import annotations

import torch
from torch import Tensor

from recsys.retrieval.losses.inputs import (
    check_at_least,
    check_negative,
    check_pair,
    check_shape,
    weighted_mean,
)
from recsys.retrieval.losses.shared_negatives import left_out, log_total, negative_logits

__all__ = ["focal_weight", "in_batch_softmax", "sampled_softmax", "softmax_losses"]


def softmax_losses(
    query: Tensor,
    candidate: Tensor,
    negative: Tensor,
    *,
    temperature: float = 1.0,
    log_q: Tensor | None = None,
    known_positive: Tensor | None = None,
    include_positive: bool = True,
    query_of: Tensor | None = None,
) -> Tensor:
    """`sampled_softmax` before its mean: [B], for losses that are looked at one by one.

    With ``query_of`` [B] the candidates share [Q, D] queries, and ``known_positive`` is [Q, C].
    """
    own_query = query if query_of is None else query[query_of]
    check_pair(own_query, candidate)
    check_negative(query, negative, known_positive)
    check_at_least(0, above=True, temperature=temperature)
    positive = (own_query * candidate).sum(dim=1) / temperature  # [B]
    logit = negative_logits(
        query, negative, temperature=temperature, log_q=log_q, known_positive=known_positive
    )
    total = log_total(logit)  # [Q]
    if query_of is not None:
        total = total[query_of]
        known_positive = None if known_positive is None else known_positive[query_of]
    if include_positive:
        return torch.logaddexp(total, positive) - positive
    return left_out(known_positive, total - positive)


def sampled_softmax(
    query: Tensor,
    candidate: Tensor,
    negative: Tensor,
    *,
    temperature: float = 1.0,
    log_q: Tensor | None = None,
    known_positive: Tensor | None = None,
    include_positive: bool = True,
    focal_gamma: float = 0.0,
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
        include_positive: whether the positive stands in its own denominator. False is the softmax
            loss (SL) of the recommendation papers, which `bsl`, `psl` and `sl_at_k` start from;
            it may fall below 0, and a query with no negative left has loss 0.
        focal_gamma: the examples are weighted by `focal_weight` as well; 0 is no such weight.
        weight: [B] weights of the examples, >= 0. None: all equal.

    Returns:
        Scalar, in nats. All-zero vectors give log(1 + C), without the positive log(C).

    Raises:
        ValueError: shapes disagree, temperature <= 0 or focal_gamma < 0.

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
        include_positive=include_positive,
    )
    if focal_gamma:
        focal = focal_weight(loss, focal_gamma)
        weight = focal if weight is None else focal * weight
    return weighted_mean(loss, weight)


def focal_weight(loss: Tensor, gamma: float) -> Tensor:
    """[B] weights ``(1 - p) ** gamma`` of the examples, ``p = exp(-loss)``, without a gradient.

    Well-ranked positives count less. Mislabelled positives are ill ranked and count more, so this
    goes with denoising.

    Args:
        loss: [B] cross-entropies, e.g. of `softmax_losses`; below 0 counts as 0.
        gamma: >= 0; 0 gives ones.

    Raises:
        ValueError: gamma < 0.

    Source: Lin et al., ICCV 2017; used with gamma .5 for retrieval in KaLM-Embedding-V2, 2025.
    """
    check_at_least(0, gamma=gamma)
    return (-torch.expm1(-loss.detach().clamp(min=0.0))) ** gamma


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

    Source: Yi et al., RecSys 2019, eq. 4-5 (log-q correction);
        `recsys.retrieval.sampling.frequency` estimates ``log_q`` from counts or from the stream.
    """
    if query.ndim != 2 or candidate.ndim != 2 or candidate.shape[0] < query.shape[0]:
        raise ValueError(
            f"candidate must be [C, D] with C >= B: got {tuple(candidate.shape)} for query "
            f"{tuple(query.shape)}"
        )
    num_queries, num_candidates = query.shape[0], candidate.shape[0]
    check_pair(query, candidate[:num_queries])
    check_at_least(0, above=True, temperature=temperature)
    scaled = query / temperature
    if log_q is None:
        logit = scaled @ candidate.T  # [B, C]
    else:
        check_shape("log_q", log_q, (num_candidates,))
        logit = torch.addmm(-log_q.to(scaled), scaled, candidate.T)
    positive = logit.diagonal().clone()  # the logits are overwritten below
    masked = None
    if candidate_index is not None:
        check_shape("candidate_index", candidate_index, (num_candidates,))
        masked = candidate_index[:num_queries, None] == candidate_index[None, :]
    if known_positive is not None:
        check_shape("known_positive", known_positive, (num_queries, num_candidates))
        masked = known_positive.clone() if masked is None else masked.logical_or_(known_positive)
    if masked is not None:
        logit = logit.masked_fill_(masked.fill_diagonal_(False), -torch.inf)
    return weighted_mean(log_total(logit) - positive, weight)
