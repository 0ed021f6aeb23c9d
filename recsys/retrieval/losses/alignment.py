"""Losses without negatives: pull the pairs together, spread each side over the sphere."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from recsys.retrieval.losses.fused import fused_uniformity, unit_rows
from recsys.retrieval.losses.inputs import check_at_least, check_pair, check_shape, weighted_mean

__all__ = ["calibrated_uniformity", "cm3", "directau", "mawu", "uniformity"]


def uniformity(vector: Tensor, *, t: float = 2.0, weight: Tensor | None = None) -> Tensor:
    """``log mean exp(-t ||x_a - x_b||^2)`` over the pairs a < b of normalised rows.

    Uses ``||x_a - x_b||^2 = 2 - 2 x_a . x_b``: one Gram product, block by block, instead of B^2 D
    differences. Differentiable once.

    Args:
        vector: [B, D] float with B >= 2; rows are normalised here.
        t: sharpness, > 0.
        weight: [B] >= 0: pair (a, b) counts weight_a * weight_b. None: all equal.

    Returns:
        Scalar in [-4 t, 0]; 0 when all rows point the same way (collapse), or when fewer than two
        rows have a weight above 0.

    Raises:
        ValueError: fewer than two rows, t <= 0, or shapes disagree.

    Source: Wang & Isola, ICML 2020, eq. 2.
    """
    return fused_uniformity(_unit_rows(vector, t), t=t, weight=weight)


def calibrated_uniformity(
    vector: Tensor,
    *,
    content: Tensor | None = None,
    similarity: Tensor | None = None,
    t: float = 2.0,
    max_sim: float = 1.0,
    weight: Tensor | None = None,
) -> Tensor:
    """Uniformity measured from content: ``log mean exp(-t (||x_a - x_b||^2 - 2 + 2 sim_ab))``.

    On normalised rows the exponent is ``2 t (x_a . x_b - sim_ab)``: items that look alike may stay
    close, the others are pushed apart harder. No gradient reaches the content, or the model would
    lower the loss by making contents alike.

    Args:
        vector: [B, D] float with B >= 2; rows are normalised here.
        content: [B, F] float content of the rows; its cosine is the similarity. A row of zeros is
            like no other.
        similarity: [B, B] float, symmetric, instead of ``content``.
        t: sharpness, > 0.
        max_sim: similarities are clamped to [0, ``max_sim``]; in [0, 1].
        weight: [B] >= 0: pair (a, b) counts weight_a * weight_b. None: all equal.

    Returns:
        Scalar. `uniformity` + 2 t where nothing is alike; 0 where every pair is as close as its
        content.

    Raises:
        ValueError: fewer than two rows, shapes disagree, t <= 0, max_sim outside [0, 1], or not
            exactly one of content and similarity.

    Source: Zhou et al., "CM3: calibrating multimodal recommendation", 2025, and the official
        implementation.
    """
    unit = _unit_rows(vector, t)
    if not 0.0 <= max_sim <= 1.0:
        raise ValueError(f"max_sim must be in [0, 1], got {max_sim}")
    if (content is None) == (similarity is None):
        raise ValueError("give exactly one of content and similarity")
    rows = len(unit)
    with torch.no_grad():
        if content is not None:
            if content.ndim != 2 or len(content) != rows:
                raise ValueError(f"content must be [{rows}, F], got shape {tuple(content.shape)}")
            alike = F.normalize(content, dim=1)
            sim = alike @ alike.T
        elif similarity is not None:
            check_shape("similarity", similarity, (rows, rows))
            sim = similarity
        sim = sim.clamp(min=0.0, max=max_sim).to(unit)
    exponent = (unit @ unit.T).sub_(sim).mul_(2.0 * t)  # [B, B]
    return _log_mean_exp_of_pairs(exponent, weight)


def directau(
    query: Tensor,
    candidate: Tensor,
    *,
    gamma: float,
    candidate_index: Tensor | None = None,
    weight: Tensor | None = None,
    low_precision: bool = False,
    normalised: bool = False,
) -> Tensor:
    """Alignment of the pairs plus gamma times the mean uniformity of both sides; no negatives.

    ``mean ||q - c||^2 + gamma * (uniformity(q) + uniformity(c)) / 2`` on normalised rows. The half
    is the official code's; without it gamma means twice as much. Too small a gamma collapses, and
    the right one changes with the batch size.

    Args:
        query: [B, D] float, B >= 2; rows are normalised here.
        candidate: [B, D] float; row i is the positive of row i of ``query``.
        gamma: weight of the uniformity, >= 0.
        candidate_index: [B] item indices: the candidates' uniformity is taken over the distinct
            items of weight > 0, each once. None: over the rows, popular items as often as they
            occur.
        weight: [B] weights of the examples, >= 0; pairs in the uniformity count their product.
        low_precision: multiply in bfloat16 (the uniformity).
        normalised: both are unit rows already, and are not normalised again.

    Returns:
        Scalar.

    Raises:
        ValueError: shapes disagree, B < 2, or gamma < 0.

    Source: Wang et al., KDD 2022, eq. 8 and the official implementation.
    """
    check_pair(query, candidate)
    check_at_least(0, gamma=gamma)
    if not normalised:
        query, candidate = unit_rows(query), unit_rows(candidate)
    spread = fused_uniformity(query, weight=weight, low_precision=low_precision)
    if candidate_index is None:
        spread = spread + fused_uniformity(candidate, weight=weight, low_precision=low_precision)
    else:
        check_shape("candidate_index", candidate_index, (len(candidate),))
        distinct = _first_rows(candidate_index, weight)
        if len(distinct) > 1:
            spread = spread + fused_uniformity(candidate[distinct], low_precision=low_precision)
    apart = (query - candidate).square().sum(dim=1)
    return weighted_mean(apart, weight) + gamma * spread / 2


def mawu(
    query: Tensor,
    candidate: Tensor,
    *,
    query_margin: Tensor,
    candidate_margin: Tensor,
    query_gamma: float,
    candidate_gamma: float,
    weight: Tensor | None = None,
    low_precision: bool = False,
    normalised: bool = False,
) -> Tensor:
    """Alignment with learned margins, and a weight of its own for each side's uniformity.

    ``mean -cos(angle(q, c) + 1 - sigmoid(query_margin + candidate_margin))`` plus
    ``query_gamma * uniformity(q) + candidate_gamma * uniformity(c)``; no halves. Small margins ask
    for more than a matching direction, so pairs of low margin are pulled together harder. The
    margins are parameters, one a user and one an item: clamp them to [0, 1] after each step.

    Args:
        query: [B, D] float, B >= 2; rows are normalised here.
        candidate: [B, D] float; row i is the positive of row i of ``query``.
        query_margin: [B] float, the margin of each row's query.
        candidate_margin: [B] float, the margin of each row's candidate.
        query_gamma: weight of the queries' uniformity, >= 0.
        candidate_gamma: weight of the candidates' uniformity, >= 0.
        weight: [B] weights of the examples, >= 0; pairs in the uniformity count their product.
        low_precision: multiply in bfloat16 (the uniformity).
        normalised: both are unit rows already, and are not normalised again.

    Returns:
        Scalar. Margins far above 0 and both gammas 0 give -1 for matching directions.

    Raises:
        ValueError: shapes disagree, B < 2, or a gamma < 0.

    Source: Park et al., "Toward a better understanding of loss functions for collaborative
        filtering", CIKM 2023, and the official implementation.
    """
    check_pair(query, candidate)
    check_shape("query_margin", query_margin, (len(query),))
    check_shape("candidate_margin", candidate_margin, (len(query),))
    check_at_least(0, query_gamma=query_gamma, candidate_gamma=candidate_gamma)
    if not normalised:
        query, candidate = unit_rows(query), unit_rows(candidate)
    cosine = (query * candidate).sum(dim=1)
    edge = 1.0 - torch.finfo(cosine.dtype).eps  # acos has no slope at 1
    angle = torch.acos(cosine.clamp(-edge, edge))
    wider = angle + 1.0 - torch.sigmoid(query_margin + candidate_margin)
    return (
        weighted_mean(-torch.cos(wider.clamp(max=math.pi)), weight)
        + query_gamma * fused_uniformity(query, weight=weight, low_precision=low_precision)
        + candidate_gamma * fused_uniformity(candidate, weight=weight, low_precision=low_precision)
    )


def cm3(
    query: Tensor,
    candidate: Tensor,
    *,
    gamma: float,
    content: Tensor,
    catalogue: Tensor | None = None,
    max_sim: float = 1.0,
    weight: Tensor | None = None,
) -> Tensor:
    """`directau` with the items' uniformity calibrated by their content.

    ``mean ||q - c||^2 + gamma * (uniformity(q) + calibrated_uniformity(items)) / 2``.

    Args:
        query: [B, D] float, B >= 2; rows are normalised here.
        candidate: [B, D] float; row i is the positive of row i of ``query``.
        gamma: weight of the uniformities, >= 0.
        content: [B, F] float content of the candidates, or [C, F] of ``catalogue``.
        catalogue: [C, D] float, C >= 2 items drawn uniformly, to spread those instead of the
            candidates, as in the official code.
        max_sim: see `calibrated_uniformity`.
        weight: [B] weights of the examples, >= 0; pairs in the uniformity count their product.

    Returns:
        Scalar.

    Raises:
        ValueError: shapes disagree, B < 2, gamma < 0 or max_sim outside [0, 1].

    Source: see `calibrated_uniformity`.
    """
    check_pair(query, candidate)
    check_at_least(0, gamma=gamma)
    items, items_weight = (candidate, weight) if catalogue is None else (catalogue, None)
    spread = uniformity(query, weight=weight) + calibrated_uniformity(
        items, content=content, max_sim=max_sim, weight=items_weight
    )
    return weighted_mean(_squared_distance(query, candidate), weight) + gamma * spread / 2


def _unit_rows(vector: Tensor, t: float) -> Tensor:
    if vector.ndim != 2 or vector.shape[0] < 2:
        raise ValueError(f"vector must be [B >= 2, D], got shape {tuple(vector.shape)}")
    check_at_least(0, above=True, t=t)
    return unit_rows(vector)


def _squared_distance(query: Tensor, candidate: Tensor) -> Tensor:
    """[B] between the normalised rows."""
    return (unit_rows(query) - unit_rows(candidate)).square().sum(dim=1)


def _log_mean_exp_of_pairs(exponent: Tensor, weight: Tensor | None) -> Tensor:
    """Over the pairs of different rows of ``exponent`` [B, B], which is overwritten."""
    near = exponent.fill_diagonal_(-torch.inf).exp_()
    rows = len(near)
    if weight is None:
        return torch.log(near.sum() / (rows * (rows - 1)))
    check_shape("weight", weight, (rows,))
    weight = weight.to(near)
    pairs = (weight * (weight.sum() - weight)).sum()
    total, one = (near @ weight) @ weight, torch.ones_like(pairs)
    return torch.log(torch.where(pairs > 0, total, one) / torch.where(pairs > 0, pairs, one))


def _first_rows(index: Tensor, weight: Tensor | None) -> Tensor:
    """The first row of weight > 0 of each distinct value of ``index`` [B]."""
    row = torch.arange(len(index), device=index.device)
    if weight is not None:
        row = row[weight > 0]
    distinct, place = torch.unique(index[row], return_inverse=True)
    first = row.new_full((len(distinct),), len(index))
    return first.scatter_reduce_(0, place, row, "amin")
