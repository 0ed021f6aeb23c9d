"""Softmax losses with another surrogate: two-sided (BSL), pairwise (PSL), for the top k (SL@K)."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from recsys.lookup import lookup
from recsys.retrieval.losses.inputs import (
    check_at_least,
    check_negative,
    check_pair,
    check_shape,
    weighted_mean,
)
from recsys.retrieval.losses.shared_negatives import (
    kept_mass,
    left_out,
    log_counts,
    log_total,
    negative_logits,
)
from recsys.retrieval.losses.softmax import softmax_losses

__all__ = ["PSL_SIGMAS", "bsl", "psl", "sl_at_k", "top_k_threshold"]


def bsl(
    query: Tensor,
    candidate: Tensor,
    negative: Tensor,
    *,
    temperature: float = 1.0,
    negative_weight: float = 1.0,
    reduction: Literal["mean", "sum"] = "sum",
    query_index: Tensor | None = None,
    log_q: Tensor | None = None,
    known_positive: Tensor | None = None,
    weight: Tensor | None = None,
) -> Tensor:
    """Bilateral softmax: ``-positive + negative_weight * log sum exp(negatives)``, a mean.

    The weight of the negative side stands for the ratio of two temperatures. "mean" takes the
    mean over the negatives before the logarithm instead of their sum: another value, the same
    gradient. With weight 1 and "sum" this is `sampled_softmax` without the positive in its
    denominator. A query with no negative left has loss 0.

    Args:
        query: [B, D] float.
        candidate: [B, D] float; row i is the positive of row i of ``query``.
        negative: [C, D] float, used by every query.
        temperature: logits are divided by it; > 0.
        negative_weight: weight of the negative side, > 0; 1.06 to 1.22 were published.
        reduction: "sum" or "mean" of the negatives before the logarithm.
        query_index: [B] int; rows with the same value share their positives: each positive logit
            becomes the log of the mean of ``exp`` over the rows of its query, which forgives a
            noisy positive. Rows of weight 0 are no part of it. None: each row has its own.
        log_q: [C] log probability that the sampler drew each negative. None: equal.
        known_positive: [B, C] bool, True = left out for that query. None: nothing is left out.
        weight: [B] weights of the examples, >= 0. None: all equal.

    Returns:
        Scalar, in nats. All-zero vectors give ``negative_weight * log(C)``, with "mean" 0.

    Raises:
        ValueError: shapes disagree, temperature or negative_weight <= 0, or an unknown reduction.

    Source: Wu et al., "BSL: understanding and improving softmax loss for recommendation",
        ICDE 2024, and the official implementation.
    """
    check_pair(query, candidate)
    check_negative(query, negative, known_positive)
    check_at_least(0, above=True, temperature=temperature, negative_weight=negative_weight)
    if reduction not in ("mean", "sum"):
        raise ValueError(f"reduction must be 'mean' or 'sum', got {reduction!r}")
    positive = (query * candidate).sum(dim=1) / temperature  # [B]
    if query_index is not None:
        check_shape("query_index", query_index, (query.shape[0],))
        positive = _shared_positives(positive, query_index, weight)
    logit = negative_logits(
        query, negative, temperature=temperature, log_q=log_q, known_positive=known_positive
    )
    total = log_total(logit)  # [B]
    if reduction == "mean":
        total = total - kept_mass(negative, log_q=log_q, known_positive=known_positive).log()
    loss = left_out(known_positive, negative_weight * total - positive)
    return weighted_mean(loss, weight)


def _shared_positives(positive: Tensor, query_index: Tensor, weight: Tensor | None) -> Tensor:
    """[B] log mean exp of ``positive`` [B] over the rows of the same query."""
    same = query_index[:, None] == query_index[None, :]  # [B, B]
    if weight is not None:
        same = (same & (weight > 0)).fill_diagonal_(True)
    logit = positive.expand(len(positive), -1).masked_fill(~same, -torch.inf)
    return log_total(logit) - same.sum(dim=1).to(positive).log()


def _log_one_plus(value: Tensor) -> Tensor:
    """``log(max(1 + value, eps))``."""
    return (value + 1.0).clamp(min=torch.finfo(value.dtype).eps).log()


# Logarithms of the surrogates of "this negative scores higher", as functions of the difference.
PSL_SIGMAS: Mapping[str, Callable[[Tensor], Tensor]] = {
    "atan": lambda difference: _log_one_plus(torch.atan(difference)),
    "exp": lambda difference: difference,
    "relu": _log_one_plus,
    "tanh": lambda difference: F.logsigmoid(2.0 * difference) + math.log(2.0),
}


def psl(
    query: Tensor,
    candidate: Tensor,
    negative: Tensor,
    *,
    sigma: str = "relu",
    temperature: float = 1.0,
    inner_temperature: float = 2.0,
    log_q: Tensor | None = None,
    known_positive: Tensor | None = None,
    weight: Tensor | None = None,
) -> Tensor:
    """Pairwise softmax: ``log sum sigma(difference) ** (1 / temperature)``, a mean.

    The difference is (negative - positive score) / ``inner_temperature``. The exponent stands
    outside ``sigma``, which therefore grows more slowly than ``exp`` and gives false negatives
    less weight. With "exp" this is `sampled_softmax` at ``temperature * inner_temperature``
    without the positive in its denominator. A query with no negative left has loss 0.

    Args:
        query: [B, D] float; normalised, as for every cosine.
        candidate: [B, D] float; row i is the positive of row i of ``query``.
        negative: [C, D] float, used by every query.
        sigma: "relu" ``relu(1 + x)``, "tanh" ``1 + tanh x``, "atan" ``1 + atan x`` or "exp".
        temperature: exponent is its inverse; > 0, published .025 to .1.
        inner_temperature: score differences are divided by it; > 0. 2 keeps those of cosines
            within [-1, 1], where ``sigma`` is tight.
        log_q: [C] log probability that the sampler drew each negative. None: equal.
        known_positive: [B, C] bool, True = left out for that query. None: nothing is left out.
        weight: [B] weights of the examples, >= 0. None: all equal.

    Returns:
        Scalar, in nats. All-zero vectors give log(C).

    Raises:
        ConfigError: ``sigma`` is unknown.
        ValueError: shapes disagree, or a temperature <= 0.

    Source: Yang et al., "PSL: rethinking and improving softmax loss from pairwise perspective for
        recommendation", NeurIPS 2024.
    """
    check_pair(query, candidate)
    check_negative(query, negative, known_positive)
    check_at_least(0, above=True, temperature=temperature, inner_temperature=inner_temperature)
    scaled = query / inner_temperature
    positive = (scaled * candidate).sum(dim=1, keepdim=True)  # [B, 1]
    difference = torch.addmm(-positive, scaled, negative.T)  # [B, C]
    logit = lookup(PSL_SIGMAS, sigma, "sigma")(difference) / temperature
    if log_q is not None:
        check_shape("log_q", log_q, (negative.shape[0],))
        logit = logit + log_counts(log_q).to(logit)
    if known_positive is not None:
        logit = logit.masked_fill(known_positive, -torch.inf)
    return weighted_mean(left_out(known_positive, log_total(logit)), weight)


def sl_at_k(
    query: Tensor,
    candidate: Tensor,
    negative: Tensor,
    *,
    threshold: Tensor,
    temperature: float = 1.0,
    threshold_temperature: float = 1.0,
    log_q: Tensor | None = None,
    known_positive: Tensor | None = None,
    weight: Tensor | None = None,
) -> Tensor:
    """Softmax loss of each positive times ``sigmoid((score - threshold) / threshold_temperature)``.

    Positives above their query's top-k threshold count most, for ndcg@k. Both factors have a
    gradient, as published. The mean divides by the weights only, not by the factors.

    Args:
        query: [B, D] float.
        candidate: [B, D] float; row i is the positive of row i of ``query``.
        negative: [C, D] float, used by every query.
        threshold: [B] score of the k-th best item of each query, e.g. of `top_k_threshold`; -inf
            where it is not known, a factor of 1.
        temperature: logits are divided by it; > 0.
        threshold_temperature: > 0, in units of the score; published .5 to 3.
        log_q: [C] log probability that the sampler drew each negative. None: equal.
        known_positive: [B, C] bool, True = left out for that query. None: nothing is left out.
        weight: [B] weights of the examples, >= 0. None: all equal.

    Returns:
        Scalar. All-zero vectors with thresholds of 0 give log(C) / 2.

    Raises:
        ValueError: shapes disagree, or a temperature <= 0.

    Source: Yang et al., "Breaking the top-K barrier: advancing top-K ranking metrics optimization
        in recommender systems" (SL@K), KDD 2025.
    """
    loss = softmax_losses(
        query,
        candidate,
        negative,
        temperature=temperature,
        log_q=log_q,
        known_positive=known_positive,
        include_positive=False,
    )
    check_shape("threshold", threshold, (query.shape[0],))
    check_at_least(0, above=True, threshold_temperature=threshold_temperature)
    above = (query * candidate).sum(dim=1) - threshold
    return weighted_mean(torch.sigmoid(above / threshold_temperature) * loss, weight)


@torch.no_grad()
def top_k_threshold(
    query: Tensor,
    negative: Tensor,
    *,
    k: int,
    num_items: int | None = None,
    known_positive: Tensor | None = None,
) -> Tensor:
    """Estimate from sampled negatives of the score that reaches each query's top k.

    Args:
        query: [B, D] float.
        negative: [C, D] float, drawn uniformly.
        k: cutoff, >= 1.
        num_items: size of the catalogue: the k-th best of it stands at place ``k * C / num_items``
            of the sample, rounded, at least the first and at most the last. None: the k-th best of
            the sample itself, a lower threshold, as in the published code.
        known_positive: [B, C] bool, True = left out for that query. None: nothing is left out.

    Returns:
        [B] without a gradient; -inf where too few negatives are left.

    Raises:
        ValueError: shapes disagree, k < 1, or k > C without ``num_items``.

    Source: see `sl_at_k`.
    """
    check_negative(query, negative, known_positive)
    check_at_least(1, k=k)
    num_negatives = negative.shape[0]
    if num_items is not None:
        place = min(max(round(k * num_negatives / num_items), 1), num_negatives)
    elif k <= num_negatives:
        place = k
    else:
        raise ValueError(
            f"k must be at most the {num_negatives} negatives, got {k}; draw more or pass num_items"
        )
    score = negative_logits(
        query, negative, temperature=1.0, log_q=None, known_positive=known_positive
    )
    return torch.topk(score, place, dim=1, sorted=True).values[:, -1]
