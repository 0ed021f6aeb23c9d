"""Losses of pairs: one against one (BPR), against a margin (CCL), across queries (AUC)."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from recsys.retrieval.losses.inputs import (
    check_at_least,
    check_negative,
    check_pair,
    check_shape,
    weighted_mean,
)
from recsys.retrieval.losses.shared_negatives import kept_mass, log_counts

__all__ = ["bpr", "ccl", "mann_whitney"]


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


def ccl(
    query: Tensor,
    candidate: Tensor,
    negative: Tensor,
    *,
    margin: float = 0.9,
    negative_weight: float = 150.0,
    log_q: Tensor | None = None,
    known_positive: Tensor | None = None,
    weight: Tensor | None = None,
) -> Tensor:
    """Cosine contrastive loss: ``1 - positive + negative_weight * mean(relu(negative - margin))``.

    Only negatives that score above the margin push, so most of a large sample is silent.

    Args:
        query: [B, D] float, normalised.
        candidate: [B, D] float, normalised; row i is the positive of row i of ``query``.
        negative: [C, D] float, normalised, used by every query.
        margin: in [-1, 1]; published .9, on sparse data .2.
        negative_weight: weight of the mean over the negatives, >= 0; published 150 and 250.
        log_q: [C] log probability that the sampler drew each negative. None: equal.
        known_positive: [B, C] bool, True = left out for that query. None: nothing is left out.
        weight: [B] weights of the examples, >= 0. None: all equal.

    Returns:
        Scalar. All-zero vectors and a margin >= 0 give 1.

    Raises:
        ValueError: shapes disagree, margin outside [-1, 1] or negative_weight < 0.

    Source: Mao et al., "SimpleX: a simple and strong baseline for collaborative filtering",
        CIKM 2021.
    """
    check_pair(query, candidate)
    check_negative(query, negative, known_positive)
    check_at_least(0, negative_weight=negative_weight)
    if not -1.0 <= margin <= 1.0:
        raise ValueError(f"margin must be a cosine in [-1, 1], got {margin}")
    score = (query @ negative.T).sub_(margin)  # [B, C]
    if known_positive is not None:
        score = score.masked_fill_(known_positive, -torch.inf)
    above = F.relu(score)
    if log_q is None:
        push = above.sum(dim=1)
    else:
        check_shape("log_q", log_q, (negative.shape[0],))
        push = above @ log_counts(log_q).exp().to(above)
    kept = kept_mass(negative, log_q=log_q, known_positive=known_positive)
    push = push / torch.where(kept > 0, kept, torch.ones_like(kept))
    return weighted_mean(1.0 - (query * candidate).sum(dim=1) + negative_weight * push, weight)


def mann_whitney(
    query: Tensor,
    candidate: Tensor,
    negative: Tensor,
    *,
    temperature: float = 1.0,
    max_scores: int = 4096,
    known_positive: Tensor | None = None,
    weight: Tensor | None = None,
    generator: torch.Generator | None = None,
) -> Tensor:
    """Mean ``softplus((negative - positive score) / temperature)`` over the pairs of all queries.

    Every positive meets the negative scores of every query, not only of its own: divided by
    log(2) this bounds one minus the pooled AUC, and unlike a softmax it feels an offset that a
    query adds to all its scores. Easy pairs dominate it, so it serves beside another loss where
    one score threshold is to hold for everybody.

    Args:
        query: [B, D] float.
        candidate: [B, D] float; row i is the positive of row i of ``query``.
        negative: [C, D] float, used by every query.
        temperature: differences are divided by it; > 0.
        max_scores: at most so many of the B * C negative scores are taken, >= 1, drawn anew in
            each call; the cost is B * ``max_scores``.
        known_positive: [B, C] bool, True = this score is no negative. None: all are.
        weight: [B] weights of the positives, >= 0. None: all equal. A row's negative scores count
            whatever its weight; leave them out with ``known_positive``.
        generator: source of the draw; needed where B * C > ``max_scores``.

    Returns:
        Scalar, in nats. All-zero vectors give log(2); 0 where no negative is left.

    Raises:
        ValueError: shapes disagree, temperature <= 0, max_scores < 1, or no generator where one
            is needed.

    Source: "Optimizing what matters: AUC-driven learning for robust neural retrieval", 2025,
        as a mean over the negative scores.
    """
    check_pair(query, candidate)
    check_negative(query, negative, known_positive)
    check_at_least(0, above=True, temperature=temperature)
    check_at_least(1, max_scores=max_scores)
    num_negatives = negative.shape[0]
    num_scores = query.shape[0] * num_negatives
    if num_scores <= max_scores:
        kept = torch.arange(num_scores, device=query.device)
    elif generator is not None:
        kept = torch.randint(num_scores, (max_scores,), generator=generator).to(query.device)
    else:
        raise ValueError(
            f"generator must be given to draw {max_scores} of {num_scores} scores; "
            "or raise max_scores"
        )
    if known_positive is not None:
        kept = kept[~known_positive.flatten()[kept]]
    if not len(kept):
        return query.sum() * 0.0
    row, column = kept // num_negatives, kept % num_negatives
    score = (query[row] * negative[column]).sum(dim=1) / temperature  # [S]
    positive = (query * candidate).sum(dim=1) / temperature  # [B]
    losses = F.softplus(score[None, :] - positive[:, None]).mean(dim=1)
    return weighted_mean(losses, weight)
