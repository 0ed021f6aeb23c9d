"""How the two towers are trained, and what is reported meanwhile."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Literal, NamedTuple

from recsys.lookup import lookup
from recsys.retrieval.towers.retriever import Score
from recsys.retrieval.training.batch import LossSettings
from recsys.retrieval.training.devices import DEVICES, Device
from recsys.retrieval.training.objectives import OBJECTIVES

__all__ = ["DENOISING", "NEGATIVES", "EpochReport", "TrainingOptions"]

DENOISING = ("none", "pld", "truncated", "reweighted")
NEGATIVES = ("sampled", "mixed", "queue")


@dataclass(frozen=True)
class TrainingOptions:
    """How the towers are trained.

    Attributes:
        loss: a key of `recsys.retrieval.losses.LOSSES`.
        settings: what single losses are set with.
        score: what is served, and what the loss sees; see `TwoTowerRetriever`.
        epochs: passes over the events, >= 1; fewer with early stopping.
        batch_size: events a step, >= 2, over all processes together.
        events_per_user: up to so many events of a user stay together in a batch, >= 1; towers
            without histories compute one query and one row of logits for them.
        users: "by_event" draws events, so that active users train more; "alike" draws users, and
            one of each user's events ("pld" does so too).
        num_negatives: negatives shared by a step, >= 1; drawn with replacement, kept once. As many
            as there are items, or more: every item once, which makes a softmax exact.
        negatives: "sampled" from the catalogue, "mixed" with the batch's own positives, or a
            "queue" of the latest batches' positives; each corrected for how it is drawn.
        negative_power: negatives are drawn by popularity to this power; 0 = uniform.
        frequency: how a positive's share of the events is known, for the log-q correction of
            "in_batch_softmax": "counted" from all events, or "streaming", estimated from the gaps
            between an item's events as they pass.
        queue_size: positives the queue holds, >= 1 ("queue").
        temperature: logits are divided by it, > 0; about .1 for a cosine, 1 for a dot product.
        gamma: weight of the uniformity ("directau", "cm3").
        learning_rate: of Adam on the dense weights.
        table_learning_rate: of row-wise Adagrad on the id tables.
        final_learning_rate: share of both that the last epoch trains with, reached along a half
            cosine; 1: constant.
        smoothing: share by which the id rows of users and items move towards their neighbours'
            after each epoch, in [0, 1); falls as the learning rates do. One process only. 0: none.
        history_dropout: share of a query's events hidden in each step, in [0, 1).
        positive_half_life: events older than a row's newest by this many events train with half
            the weight; inf: all equal.
        user_power: events weigh ``count ** -power``, with the number of events of their user, so
            that active users decide less; 0: every event counts alike, 1: every user.
        propensity_power: positives weigh ``1 / (count / largest count) ** power``, so that items
            few people were shown count more; 0: all equal.
        propensity_clip: propensities below it count as it, in (0, 1].
        denoising: "pld" resamples each user's positives by their loss, "truncated" leaves the
            largest losses of a batch out, "reweighted" weighs positives by how likely they are.
        warmup_epochs: epochs before denoising starts; "truncated" then takes as many again to
            reach ``drop_rate``.
        pool_size: positives a user's pick is made from ("pld").
        denoise_temperature: softness of that pick ("pld"), > 0.
        drop_rate: share of a batch left out ("truncated"), in [0, 1).
        reweight_power: exponent of the likelihood ("reweighted"), >= 0.
        masking_weight: weight of the correlated-feature masking beside the loss, >= 0; needs
            items with four fields or more. 0: none.
        masking_batch: items drawn uniformly for it a step, >= 2.
        compatibility_weight: weight of each side's pull towards an older model's vectors, >= 0.
        hard_epochs: epochs with hard negatives after the others; kept only if the validation
            recall rises. 0: none.
        hard_skip: best-ranked unknown items that are never taken for negatives.
        hard_pool: ranks below which no item is taken, > ``hard_skip``.
        hard_negatives: hard negatives of each event, >= 1.
        patience: stop after this many epochs without a better validation recall@20; 0: never.
        least_rank: collapse alarm: training stops when the vectors use fewer than this share of
            their dimensions in two epochs in a row, in [0, 1); 0: never. Silent with fewer than
            eight users or items a dimension.
        low_precision: multiply in bfloat16 where the loss can.
        device: where weights live and products are taken: "cuda", "cpu", or "auto", CUDA where
            there is one. What is drawn is drawn on the CPU, so the same seed draws the same
            everywhere. Several processes train on the CPU.

    Raises:
        ConfigError: ``loss`` is unknown.
        ValueError: a value is out of range.
    """

    loss: str = "sampled_softmax"
    settings: LossSettings = field(default_factory=LossSettings)
    score: Score = "cosine"
    epochs: int = 15
    batch_size: int = 1024
    events_per_user: int = 1
    users: Literal["by_event", "alike"] = "by_event"
    num_negatives: int = 1024
    negatives: Literal["sampled", "mixed", "queue"] = "sampled"
    negative_power: float = 0.5
    frequency: Literal["counted", "streaming"] = "counted"
    queue_size: int = 4096
    temperature: float = 0.1
    gamma: float = 1.0
    learning_rate: float = 2e-3
    table_learning_rate: float = 0.1
    final_learning_rate: float = 1.0
    smoothing: float = 0.0
    history_dropout: float = 0.2
    positive_half_life: float = math.inf
    user_power: float = 0.0
    propensity_power: float = 0.0
    propensity_clip: float = 0.1
    denoising: Literal["none", "pld", "truncated", "reweighted"] = "none"
    warmup_epochs: int = 5
    pool_size: int = 5
    denoise_temperature: float = 0.1
    drop_rate: float = 0.1
    reweight_power: float = 0.25
    masking_weight: float = 0.0
    masking_batch: int = 512
    compatibility_weight: float = 0.0
    hard_epochs: int = 0
    hard_skip: int = 100
    hard_pool: int = 1000
    hard_negatives: int = 32
    patience: int = 4
    least_rank: float = 0.5
    low_precision: bool = False
    device: Device = "auto"

    def refused_by(self, workers: int) -> str | None:
        """Why so many processes cannot train like this: they do not have whole tables to look at.

        Returns:
            Rule and values, without a remedy. None: they can.
        """
        if workers == 1:
            return None
        for name in ("hard_epochs", "smoothing"):
            if value := getattr(self, name):
                return f"{name} must be 0 with several workers, got {value} with {workers}"
        if self.device == "cuda":
            return f"device must be 'cpu' or 'auto' with several workers, got 'cuda' with {workers}"
        if self.loss == "mawu":
            return f"loss must not be 'mawu' with several workers, got {workers}"
        return None

    def __post_init__(self) -> None:
        lookup(OBJECTIVES, self.loss, "loss")
        for name, choices in _CHOICES.items():
            if getattr(self, name) not in choices:
                raise ValueError(
                    f"{name} must be one of {', '.join(choices)}, got {getattr(self, name)!r}"
                )
        for name, bound in _AT_LEAST.items():
            if not getattr(self, name) >= bound:
                raise ValueError(f"{name} must be >= {bound}, got {getattr(self, name)}")
        for name in _ABOVE_0:
            if not getattr(self, name) > 0:
                raise ValueError(f"{name} must be > 0, got {getattr(self, name)}")
        for name in ("history_dropout", "drop_rate", "smoothing", "least_rank"):
            if not 0.0 <= getattr(self, name) < 1.0:
                raise ValueError(f"{name} must be in [0, 1), got {getattr(self, name)}")
        for name in ("propensity_clip", "final_learning_rate"):
            if not 0.0 < getattr(self, name) <= 1.0:
                raise ValueError(f"{name} must be in (0, 1], got {getattr(self, name)}")
        if self.hard_pool <= self.hard_skip:
            raise ValueError(
                f"hard_pool must be > hard_skip, got {self.hard_pool} and {self.hard_skip}"
            )


_CHOICES = {
    "score": ("cosine", "dot"),
    "users": ("by_event", "alike"),
    "negatives": NEGATIVES,
    "frequency": ("counted", "streaming"),
    "denoising": DENOISING,
    "device": DEVICES,
}
_AT_LEAST = {
    "epochs": 1,
    "batch_size": 2,
    "events_per_user": 1,
    "num_negatives": 1,
    "queue_size": 1,
    "pool_size": 1,
    "masking_batch": 2,
    "hard_negatives": 1,
    "warmup_epochs": 0,
    "patience": 0,
    "hard_epochs": 0,
    "hard_skip": 0,
    "negative_power": 0,
    "gamma": 0,
    "user_power": 0,
    "propensity_power": 0,
    "reweight_power": 0,
    "masking_weight": 0,
    "compatibility_weight": 0,
}
_ABOVE_0 = (
    "temperature",
    "learning_rate",
    "table_learning_rate",
    "positive_half_life",
    "denoise_temperature",
)


class EpochReport(NamedTuple):
    """One finished epoch.

    What needs validation events, or more than one user, is None without them.

    Attributes:
        epoch: from 1.
        num_epochs: as many as there can be.
        loss: mean over the steps.
        recall: recall@20 on the validation events.
        seconds: since the epoch began, validation included.
        training_seconds: of the steps alone.
        gradient_norm: mean over the steps of the length of the gradient of all vectors.
        alignment: see `recsys.evaluation.diagnostics`, as all that follow.
        uniformity_users: of the validation users.
        uniformity_items: of the catalogue.
        rankme_users: dimensions the users' vectors use.
        rankme_items: dimensions the items' vectors use.
        coverage: share of the catalogue in somebody's 20.
        head_share: share of the 20 that is among the 10 % most popular items.
        tail_recall: recall@20 of the less popular half of the catalogue.
    """

    epoch: int
    num_epochs: int
    loss: float
    recall: float | None
    seconds: float
    training_seconds: float = 0.0
    gradient_norm: float | None = None
    alignment: float | None = None
    uniformity_users: float | None = None
    uniformity_items: float | None = None
    rankme_users: float | None = None
    rankme_items: float | None = None
    coverage: float | None = None
    head_share: float | None = None
    tail_recall: float | None = None

    def __str__(self) -> str:
        shown = "" if self.recall is None else f", validation recall@20 {self.recall:.4f}"
        return (
            f"two-tower epoch {self.epoch}/{self.num_epochs}: loss {self.loss:.4f}{shown}, "
            f"{self.seconds:.1f} s"
        )
