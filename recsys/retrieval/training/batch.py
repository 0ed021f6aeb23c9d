"""What one training step hands to a loss, and what the losses are set with."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor

from recsys.lookup import lookup
from recsys.retrieval.losses import PSL_SIGMAS
from recsys.retrieval.sampling.negatives import KnownPositives

__all__ = ["Batch", "LossSettings"]


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

    Vectors, weights and ``query_of`` are on the training's device; rows and items are on the CPU,
    where what is known about them is.

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
        return self.known.mask(self.row, self.negative_index).to(self.query.device)
