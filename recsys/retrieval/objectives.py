"""How a training step feeds each loss: one small function a loss name."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from recsys.lookup import lookup
from recsys.retrieval.losses import (
    PSL_SIGMAS,
    bpr,
    bsl,
    ccl,
    cm3,
    directau,
    fused_softmax,
    in_strips,
    mann_whitney,
    mawu,
    psl,
    sampled_softmax,
    sl_at_k,
    softmax_losses,
    top_k_threshold,
)
from recsys.retrieval.negatives import KnownPositives

__all__ = [
    "OBJECTIVES",
    "WITHOUT_NEGATIVES",
    "Batch",
    "LossSettings",
    "example_losses",
    "training_loss",
]

WITHOUT_NEGATIVES = frozenset({"directau", "in_batch_softmax", "mawu"})
"""Losses that look at no sampled negatives."""


@dataclass(frozen=True)
class LossSettings:
    """What single losses are set with; each default is from the paper of its loss.

    Attributes:
        log_q_strength: share of the log-q correction, >= 0 (`in_batch_softmax`); 0: none.
        focal_gamma: exponent of the focal weight, >= 0 (`sampled_softmax`); 0: none.
        distinct_items: spread the distinct items of a batch instead of its rows (`directau`).
        bsl_weight: weight of the negative side, > 0.
        bsl_shared_positives: average the positives of one user in a batch (`bsl`).
        psl_sigma: a key of `recsys.retrieval.losses.PSL_SIGMAS`.
        sl_k: cutoff of `sl_at_k`, >= 1.
        sl_temperature: softness of that cutoff, in units of the score, > 0.
        ccl_margin: negatives below it do not push, in [-1, 1].
        ccl_weight: weight of the negatives, >= 0.
        mawu_user_gamma: weight of the users' uniformity, >= 0.
        mawu_item_gamma: weight of the items' uniformity, >= 0.
        max_sim: largest similarity of two contents, in [0, 1] (`cm3`).
        mann_whitney_weight: weight of the AUC term beside any other loss, >= 0; 0: none.
        mann_whitney_scores: negative scores the AUC term draws a step, >= 1.

    Raises:
        ConfigError: ``psl_sigma`` is unknown.
        ValueError: a value is out of range.
    """

    log_q_strength: float = 1.0
    focal_gamma: float = 0.0
    distinct_items: bool = False
    bsl_weight: float = 1.1
    bsl_shared_positives: bool = False
    psl_sigma: str = "relu"
    sl_k: int = 20
    sl_temperature: float = 1.0
    ccl_margin: float = 0.9
    ccl_weight: float = 150.0
    mawu_user_gamma: float = 1.0
    mawu_item_gamma: float = 0.5
    max_sim: float = 1.0
    mann_whitney_weight: float = 0.0
    mann_whitney_scores: int = 4096

    def __post_init__(self) -> None:
        lookup(PSL_SIGMAS, self.psl_sigma, "sigma")
        for name in ("bsl_weight", "sl_temperature"):
            if not getattr(self, name) > 0:
                raise ValueError(f"{name} must be > 0, got {getattr(self, name)}")
        at_least = dict.fromkeys(
            (
                "log_q_strength",
                "focal_gamma",
                "ccl_weight",
                "mawu_user_gamma",
                "mawu_item_gamma",
                "mann_whitney_weight",
            ),
            0,
        )
        for name, bound in {**at_least, "sl_k": 1, "mann_whitney_scores": 1}.items():
            if not getattr(self, name) >= bound:
                raise ValueError(f"{name} must be >= {bound}, got {getattr(self, name)}")
        for name, low in {"ccl_margin": -1, "max_sim": 0}.items():
            if not low <= getattr(self, name) <= 1:
                raise ValueError(f"{name} must be in [{low}, 1], got {getattr(self, name)}")


@dataclass(frozen=True)
class Batch:
    """One step's vectors, already normalised where the score is a cosine.

    Attributes:
        query: [B, D] float.
        positive: [B, D] float, row i the positive of query i.
        negative: [C, D] float, shared by the batch.
        row: [B] int64 history row of each query.
        positive_index: [B] int64 items.
        negative_index: [C] int64 items, distinct.
        negative_log_q: [C] log probability that the sampler drew each negative.
        positive_log_q: [B] log share of the training events that each positive has.
        known: the pairs that must not serve as negatives.
        weight: [B] float >= 0.
        temperature: logits are divided by it.
        gamma: weight of the uniformity (`directau`, `cm3`).
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
        distinct_row: [Q] int64 history row of each of them; with it.
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
    temperature: float
    gamma: float
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
        return self.known.mask(self.row, self.negative_index)


def training_loss(name: str, batch: Batch) -> Tensor:
    """The loss ``name`` of a batch, and the AUC term beside it if ``settings`` ask for one.

    Raises:
        ConfigError: ``name`` is no key of `OBJECTIVES`.
        ValueError: the batch lacks what this loss needs.
    """
    loss = lookup(OBJECTIVES, name, "loss")(batch)
    weight = batch.settings.mann_whitney_weight
    return loss + weight * _mann_whitney(batch) if weight else loss


def example_losses(batch: Batch) -> Tensor:
    """[B] loss of each example against the shared negatives, whatever loss trains.

    Denoising compares positives by it: within a user it orders them as BPR's would.
    """
    query, row = _distinct_queries(batch)
    return softmax_losses(
        query,
        batch.positive,
        batch.negative,
        temperature=batch.temperature,
        log_q=batch.negative_log_q,
        known_positive=batch.known.mask(row, batch.negative_index),
        query_of=batch.query_of,
    )


def _bpr(batch: Batch) -> Tensor:
    """Each query against one negative, drawn for it; one that is a known positive weighs 0.

    Rows and negatives may both come sorted, so their order must not pair them.
    """
    place = torch.randint(len(batch.negative), (len(batch.query),), generator=batch.generator)
    known = batch.known.contains(batch.row, batch.negative_index[place])
    return bpr(
        (batch.query * batch.positive).sum(dim=1) / batch.temperature,
        (batch.query * batch.negative.index_select(0, place)).sum(dim=1) / batch.temperature,
        weight=batch.weight * ~known,
    )


def _bsl(batch: Batch) -> Tensor:
    settings = batch.settings
    if settings.bsl_shared_positives:
        return bsl(
            batch.query,
            batch.positive,
            batch.negative,
            temperature=batch.temperature,
            negative_weight=settings.bsl_weight,
            query_index=batch.row,
            log_q=batch.negative_log_q,
            known_positive=batch.known_negatives(),
            weight=batch.weight,
        )
    return _fused(batch, include_positive=False, negative_weight=settings.bsl_weight)


def _ccl(batch: Batch) -> Tensor:
    settings = batch.settings
    return _in_strips(batch, ccl, margin=settings.ccl_margin, negative_weight=settings.ccl_weight)


def _cm3(batch: Batch) -> Tensor:
    drawn = batch.negative_content is not None
    content = batch.negative_content if drawn else batch.content
    if content is None:
        raise ValueError("cm3 needs the items' content: give content or negative_content")
    return cm3(
        batch.query,
        batch.positive,
        gamma=batch.gamma,
        content=content,
        catalogue=batch.negative if drawn else None,
        max_sim=batch.settings.max_sim,
        weight=batch.weight,
    )


def _unequal(weight: Tensor) -> Tensor | None:
    """``weight``, or None when all are equal: pairs then need not be weighed."""
    return None if bool((weight == weight[0]).all()) else weight


def _directau(batch: Batch) -> Tensor:
    return directau(
        batch.query,
        batch.positive,
        gamma=batch.gamma,
        candidate_index=batch.positive_index if batch.settings.distinct_items else None,
        weight=_unequal(batch.weight),
        low_precision=batch.low_precision,
        normalised=batch.normalised,
    )


def _in_batch_softmax(batch: Batch) -> Tensor:
    """`in_batch_softmax`, each distinct item of the batch once and counted as often as it occurs.

    The fused softmax scales the counts of its negatives to mean 1; the positive's own correction
    is scaled alike, and enters as a product of 1 with a column of its own.
    """
    item, place, count = torch.unique(batch.positive_index, return_inverse=True, return_counts=True)
    some_row = torch.empty_like(item).scatter_(0, place, torch.arange(len(place)))
    log_q = batch.positive_log_q * batch.settings.log_q_strength
    shared = log_q[some_row] - count.log()
    mean = torch.logsumexp(-shared, dim=0) - math.log(len(item))
    own = (-log_q - mean) * batch.temperature
    query, row = _distinct_queries(batch)
    return fused_softmax(
        F.pad(query, (0, 1), value=1.0),
        torch.cat([batch.positive, own[:, None]], dim=1),
        F.pad(batch.positive.index_select(0, some_row), (0, 1)),
        temperature=batch.temperature,
        log_q=shared,
        known=batch.known.pairs(row, item),
        weight=batch.weight,
        query_of=batch.query_of,
        low_precision=batch.low_precision,
    )


def _mann_whitney(batch: Batch) -> Tensor:
    return mann_whitney(
        batch.query,
        batch.positive,
        batch.negative,
        temperature=batch.temperature,
        max_scores=batch.settings.mann_whitney_scores,
        known_positive=batch.known_negatives(),
        weight=batch.weight,
        generator=batch.generator,
    )


def _mawu(batch: Batch) -> Tensor:
    if batch.user_margin is None or batch.item_margin is None:
        raise ValueError("mawu needs learned margins: give user_margin and item_margin")
    return mawu(
        batch.query,
        batch.positive,
        query_margin=batch.user_margin,
        candidate_margin=batch.item_margin,
        query_gamma=batch.settings.mawu_user_gamma,
        candidate_gamma=batch.settings.mawu_item_gamma,
        weight=_unequal(batch.weight),
        low_precision=batch.low_precision,
        normalised=batch.normalised,
    )


def _psl(batch: Batch) -> Tensor:
    return _in_strips(batch, psl, sigma=batch.settings.psl_sigma, temperature=batch.temperature)


def _sampled_softmax(batch: Batch) -> Tensor:
    focal_gamma = batch.settings.focal_gamma
    if not focal_gamma:
        return _fused(batch, include_positive=True, negative_weight=1.0)
    return _in_strips(
        batch, sampled_softmax, temperature=batch.temperature, focal_gamma=focal_gamma
    )


def _distinct_queries(batch: Batch) -> tuple[Tensor, Tensor]:
    """[Q, D] queries and their rows [Q], each once where the batch says whose is whose."""
    if batch.distinct_query is None or batch.distinct_row is None:
        return batch.query, batch.row
    return batch.distinct_query, batch.distinct_row


def _fused(batch: Batch, *, include_positive: bool, negative_weight: float) -> Tensor:
    query, row = _distinct_queries(batch)
    return fused_softmax(
        query,
        batch.positive,
        batch.negative,
        temperature=batch.temperature,
        log_q=batch.negative_log_q,
        known=batch.known.pairs(row, batch.negative_index),
        include_positive=include_positive,
        negative_weight=negative_weight,
        weight=batch.weight,
        query_of=batch.query_of,
        low_precision=batch.low_precision,
    )


def _in_strips(batch: Batch, loss: Callable[..., Tensor], **settings: Any) -> Tensor:
    """``loss`` of queries, positives and shared negatives without a [B, C] matrix."""

    def strip(
        rows: slice, query: Tensor, positive: Tensor, negative: Tensor, weight: Tensor
    ) -> Tensor:
        return loss(
            query,
            positive,
            negative,
            log_q=batch.negative_log_q,
            known_positive=batch.known.mask(batch.row[rows], batch.negative_index),
            weight=weight,
            **settings,
        )

    return in_strips(strip, batch.query, batch.positive, batch.negative, weight=batch.weight)


def _sl_at_k(batch: Batch) -> Tensor:
    """The threshold is estimated from this step's own negatives."""

    def loss(query: Tensor, *vectors: Tensor, **rest: Any) -> Tensor:
        threshold = top_k_threshold(
            query,
            vectors[-1],
            k=batch.settings.sl_k,
            num_items=batch.known.num_items,
            known_positive=rest["known_positive"],
        )
        return sl_at_k(query, *vectors, threshold=threshold, **rest)

    return _in_strips(
        batch,
        loss,
        temperature=batch.temperature,
        threshold_temperature=batch.settings.sl_temperature,
    )


OBJECTIVES: Mapping[str, Callable[[Batch], Tensor]] = {
    "bpr": _bpr,
    "bsl": _bsl,
    "ccl": _ccl,
    "cm3": _cm3,
    "directau": _directau,
    "in_batch_softmax": _in_batch_softmax,
    "mann_whitney": _mann_whitney,
    "mawu": _mawu,
    "psl": _psl,
    "sampled_softmax": _sampled_softmax,
    "sl_at_k": _sl_at_k,
}
