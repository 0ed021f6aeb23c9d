"""The losses by name: how a training step feeds each, and what each asks of it."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from recsys.lookup import lookup
from recsys.retrieval.losses import (
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
    unit_rows,
)
from recsys.retrieval.training.batch import Batch
from recsys.retrieval.training.options import TrainingOptions

__all__ = [
    "OBJECTIVES",
    "Objective",
    "example_losses",
    "objective_of",
    "refused_by",
    "training_loss",
]


class Objective(NamedTuple):
    """A loss that the towers can be trained with, and what it asks of a training step.

    Attributes:
        loss: scalar loss of a batch.
        searched: settings that it alone reads and that `recsys tune` searches by default, each
            with a `recsys.settings.Searched` where it is declared.
        negatives: whether it looks at the batch's shared negatives.
        margins: whether it learns a margin in [0, 1] of each user and item, which it finds in the
            batch; trained in one process only.
        directions: whether it sees the directions of the vectors alone, whatever the score: what
            their lengths say of single examples is then not learned.
    """

    loss: Callable[[Batch], Tensor]
    searched: tuple[str, ...] = ()
    negatives: bool = True
    margins: bool = False
    directions: bool = False


def objective_of(name: str) -> Objective:
    """The objective that is configured as ``name``.

    Raises:
        ConfigError: ``name`` is no key of `OBJECTIVES`.
    """
    return lookup(OBJECTIVES, name, "loss")


def refused_by(training: TrainingOptions, workers: int) -> str | None:
    """Why so many processes cannot train like this: they do not have whole tables to look at.

    Returns:
        Rule and values, without a remedy. None: they can.
    """
    if workers == 1:
        return None
    for name in ("hard_epochs", "smoothing"):
        if value := getattr(training, name):
            return f"{name} must be 0 with several workers, got {value} with {workers}"
    if training.device == "cuda":
        return f"device must be 'cpu' or 'auto' with several workers, got 'cuda' with {workers}"
    if objective_of(training.loss).margins:
        return f"loss must not be {training.loss!r} with several workers, got {workers}"
    return None


def training_loss(objective: Objective, batch: Batch) -> Tensor:
    """The loss of a batch, and the AUC term beside it if ``batch.settings`` ask for one.

    Raises:
        ValueError: the batch lacks what this loss needs.
    """
    loss = objective.loss(batch)
    weight = batch.settings.mann_whitney_weight
    return loss + weight * _mann_whitney(batch) if weight else loss


def example_losses(objective: Objective, batch: Batch) -> Tensor:
    """[B] loss of each example against the shared negatives, of what the trained loss sees.

    Denoising compares positives by it: within a user it orders them as BPR's would.
    """
    query, row = _distinct_queries(batch)
    vectors = [query, batch.positive, batch.negative]
    if objective.directions and not batch.normalised:
        vectors = [unit_rows(vector) for vector in vectors]
    return softmax_losses(
        *vectors,
        temperature=batch.settings.temperature,
        log_q=batch.negative_log_q,
        known_positive=batch.known.mask(row, batch.negative_index).to(query.device),
        query_of=batch.query_of,
    )


def _bpr(batch: Batch) -> Tensor:
    """Each query against one negative, drawn for it; one that is a known positive weighs 0.

    Rows and negatives may both come sorted, so their order must not pair them.
    """
    place = torch.randint(len(batch.negative), (len(batch.query),), generator=batch.generator)
    known = batch.known.contains(batch.row, batch.negative_index[place]).to(batch.query.device)
    negative = batch.negative.index_select(0, place.to(batch.query.device))
    return bpr(
        (batch.query * batch.positive).sum(dim=1) / batch.settings.temperature,
        (batch.query * negative).sum(dim=1) / batch.settings.temperature,
        weight=batch.weight * ~known,
    )


def _bsl(batch: Batch) -> Tensor:
    settings = batch.settings
    if settings.bsl_shared_positives:
        return bsl(
            batch.query,
            batch.positive,
            batch.negative,
            temperature=batch.settings.temperature,
            negative_weight=settings.bsl_weight,
            query_index=batch.row.to(batch.query.device),
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
        gamma=batch.settings.gamma,
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
        gamma=batch.settings.gamma,
        candidate_index=(
            batch.positive_index.to(batch.query.device) if batch.settings.distinct_items else None
        ),
        weight=_unequal(batch.weight),
        low_precision=batch.low_precision,
        normalised=batch.normalised,
    )


def _in_batch_softmax(batch: Batch) -> Tensor:
    """`in_batch_softmax`, each distinct item of the batch once and counted as often as it occurs.

    The fused softmax scales the counts of its negatives to mean 1; the positive's own correction
    is scaled alike, and enters as a product of 1 with a column of its own.
    """
    device = batch.query.device
    item, place, count = torch.unique(batch.positive_index, return_inverse=True, return_counts=True)
    some_row = torch.empty_like(item).scatter_(0, place, torch.arange(len(place))).to(device)
    log_q = batch.positive_log_q * batch.settings.log_q_strength
    shared = log_q.index_select(0, some_row) - count.log().to(device)
    mean = torch.logsumexp(-shared, dim=0) - math.log(len(item))
    own = (-log_q - mean) * batch.settings.temperature
    query, row = _distinct_queries(batch)
    return fused_softmax(
        F.pad(query, (0, 1), value=1.0),
        torch.cat([batch.positive, own[:, None]], dim=1),
        F.pad(batch.positive.index_select(0, some_row), (0, 1)),
        temperature=batch.settings.temperature,
        log_q=shared,
        known=_pairs(batch, row, item),
        weight=batch.weight,
        query_of=batch.query_of,
        low_precision=batch.low_precision,
    )


def _mann_whitney(batch: Batch) -> Tensor:
    return mann_whitney(
        batch.query,
        batch.positive,
        batch.negative,
        temperature=batch.settings.temperature,
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
    settings = batch.settings
    return _in_strips(batch, psl, sigma=settings.psl_sigma, temperature=settings.temperature)


def _sampled_softmax(batch: Batch) -> Tensor:
    focal_gamma = batch.settings.focal_gamma
    if not focal_gamma:
        return _fused(batch, include_positive=True, negative_weight=1.0)
    return _in_strips(
        batch, sampled_softmax, temperature=batch.settings.temperature, focal_gamma=focal_gamma
    )


def _distinct_queries(batch: Batch) -> tuple[Tensor, Tensor]:
    """[Q, D] queries and their rows [Q], each once where the batch says whose is whose."""
    if batch.distinct_query is None or batch.distinct_row is None:
        return batch.query, batch.row
    return batch.distinct_query, batch.distinct_row


def _pairs(batch: Batch, row: Tensor, item_index: Tensor) -> tuple[Tensor, Tensor]:
    """The known pairs among ``row`` and ``item_index``, where the scores are."""
    line, column = batch.known.pairs(row, item_index)
    return line.to(batch.query.device), column.to(batch.query.device)


def _fused(batch: Batch, *, include_positive: bool, negative_weight: float) -> Tensor:
    query, row = _distinct_queries(batch)
    return fused_softmax(
        query,
        batch.positive,
        batch.negative,
        temperature=batch.settings.temperature,
        log_q=batch.negative_log_q,
        known=_pairs(batch, row, batch.negative_index),
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
            known_positive=batch.known.mask(batch.row[rows], batch.negative_index).to(query.device),
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
        temperature=batch.settings.temperature,
        threshold_temperature=batch.settings.sl_temperature,
    )


_SHARED = ("temperature", "negatives", "negative_power")

OBJECTIVES: dict[str, Objective] = {
    "bpr": Objective(_bpr, _SHARED),
    "bsl": Objective(_bsl, (*_SHARED, "bsl_weight")),
    "ccl": Objective(_ccl, ("negatives", "negative_power", "ccl_margin", "ccl_weight")),
    "cm3": Objective(_cm3, ("gamma",), directions=True),
    "directau": Objective(_directau, ("gamma",), negatives=False, directions=True),
    "in_batch_softmax": Objective(_in_batch_softmax, ("temperature",), negatives=False),
    "mann_whitney": Objective(_mann_whitney, _SHARED),
    "mawu": Objective(
        _mawu,
        ("mawu_user_gamma", "mawu_item_gamma"),
        negatives=False,
        margins=True,
        directions=True,
    ),
    "psl": Objective(_psl, _SHARED),
    "sampled_softmax": Objective(_sampled_softmax, _SHARED),
    "sl_at_k": Objective(_sl_at_k, (*_SHARED, "sl_temperature")),
}
"""Name in ``retrieval.loss`` -> the loss. One more entry is one more loss."""
