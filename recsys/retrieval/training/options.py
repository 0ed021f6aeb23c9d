"""How the two towers are trained."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from recsys.retrieval.towers.options import Score, TowerOptions
from recsys.settings import (
    Closed01,
    Count,
    HalfOpen01,
    Natural,
    NonNegative,
    OneOf,
    Positive,
    Searched,
    Settings,
    Share,
)

__all__ = ["LOSSES", "Device", "LossName", "LossSettings", "TrainingOptions", "unfit"]

Device = Literal["auto", "cpu", "cuda"]
LOSSES = OneOf(
    "recsys.retrieval.training.objectives:OBJECTIVES",
    (
        "bpr",
        "bsl",
        "ccl",
        "cm3",
        "directau",
        "in_batch_softmax",
        "mann_whitney",
        "mawu",
        "psl",
        "sampled_softmax",
        "sl_at_k",
    ),
)
LossName = Annotated[str, LOSSES]
AtLeast2 = Annotated[int, Field(ge=2)]


class LossSettings(Settings):
    """What single losses are set with; each default is from the paper of its loss."""

    temperature: Annotated[Positive, Searched(0.05, 0.3, log=True)] = 0.1
    """Logits are divided by it; about .1 for a cosine, 1 for a dot product."""
    gamma: Annotated[NonNegative, Searched(0.2, 5.0, log=True)] = 1.0
    """Weight of the uniformity (directau, cm3)."""
    log_q_strength: NonNegative = 1.0
    """Share of the log-q correction (in_batch_softmax); 0: none."""
    focal_gamma: NonNegative = 0.0
    """Exponent of the focal weight (sampled_softmax); 0: all examples alike."""
    distinct_items: bool = False
    """Spread the distinct items of a batch instead of its rows (directau)."""
    bsl_weight: Annotated[Positive, Searched(0.8, 1.6)] = 1.1
    """Weight of the negative side (bsl)."""
    bsl_shared_positives: bool = False
    """Average the positives of one user in a batch (bsl)."""
    psl_sigma: Literal["atan", "exp", "relu", "tanh"] = "relu"
    """Surrogate of the pairwise step (psl)."""
    sl_k: Count = 20
    """Cutoff (sl_at_k)."""
    sl_temperature: Annotated[Positive, Searched(0.3, 3.0, log=True)] = 1.0
    """Softness of that cutoff, in units of the score (sl_at_k)."""
    ccl_margin: Annotated[float, Field(ge=-1, le=1), Searched(0.2, 0.95)] = 0.9
    """Negatives below it do not push (ccl)."""
    ccl_weight: Annotated[NonNegative, Searched(20.0, 500.0, log=True)] = 150.0
    """Weight of the negatives (ccl)."""
    mawu_user_gamma: Annotated[NonNegative, Searched(0.2, 3.0, log=True)] = 1.0
    """Weight of the users' uniformity (mawu)."""
    mawu_item_gamma: Annotated[NonNegative, Searched(0.1, 2.0, log=True)] = 0.5
    """Weight of the items' uniformity (mawu)."""
    max_sim: Closed01 = 1.0
    """Largest similarity of two contents (cm3)."""
    mann_whitney_weight: NonNegative = 0.0
    """Weight of the AUC term beside any other loss; 0: none."""
    mann_whitney_scores: Count = 4096
    """Negative scores that the AUC term draws a step."""


class TrainingOptions(LossSettings):
    """How the towers are trained.

    Raises:
        ConfigError: a value is unknown or out of range.
    """

    loss: LossName = "sampled_softmax"
    """What is minimised; see `recsys.retrieval.training.objectives`."""
    score: Score = "cosine"
    """What is served, and what the loss sees: the product of unit vectors, or of plain ones, where
    the length of an item's vector acts as a prior for popular items."""
    epochs: Count = 15
    """Passes over the events; fewer with early stopping."""
    patience: Natural = 4
    """Epochs without a better validation recall@20 after which training stops; 0: never."""
    batch_size: AtLeast2 = 1024
    """Events a step, over all processes together."""
    events_per_user: Count = 1
    """Up to so many events of a user stay together in a batch; towers without histories compute one
    query and one row of logits for them."""
    users: Literal["by_event", "alike"] = "by_event"
    """Whether events are drawn, so that active users train more, or users, and one of each user's
    events (denoising "pld" does so too)."""
    negatives: Annotated[Count, Searched(256, 4096, log=True)] = 1024
    """Negatives shared by a step; drawn with replacement, kept once. As many as there are items, or
    more: every item once, which makes a softmax exact."""
    negative_source: Literal["sampled", "mixed", "queue"] = "sampled"
    """Where they are from: the catalogue, "mixed" with the batch's own positives, or a "queue" of
    the latest batches' positives; each corrected for how it is drawn."""
    negative_power: Annotated[NonNegative, Searched(0.0, 1.0)] = 0.5
    """Negatives are drawn by popularity to this power; 0: uniform."""
    queue_size: Count = 4096
    """Positives that the queue holds (negative_source "queue")."""
    frequency: Literal["counted", "streaming"] = "counted"
    """How a positive's share of the events is known, for the log-q correction of in_batch_softmax:
    from all events, or estimated from the gaps between an item's events as they pass."""
    learning_rate: Annotated[Positive, Searched(0.0005, 0.01, log=True)] = 2e-3
    """Of Adam on the dense weights."""
    table_learning_rate: Annotated[Positive, Searched(0.02, 0.5, log=True)] = 0.1
    """Of row-wise Adagrad on the id tables."""
    final_learning_rate: HalfOpen01 = 1.0
    """Share of both that the last epoch trains with, reached along a half cosine; 1: constant."""
    smoothing: Annotated[Share, Searched(0.0, 0.4)] = 0.0
    """Share by which the id rows of users and items move towards their neighbours' after each
    epoch; falls as the learning rates do. One process only. 0: none."""
    history_dropout: Share = 0.2
    """Share of a query's events hidden in each step."""
    example_events: Count | None = None
    """Newest events of each user that are trained on; what is older is seen in histories alone.
    Not said: all."""
    example_days: Positive | None = None
    """Only events of the newest so many days of the log are trained on. Not said: all."""
    example_half_life_days: Positive | None = None
    """Events older than the log's newest by this many days train with half the weight. Not said:
    their age does not count."""
    positive_half_life: Positive = 1e9
    """Events older than a row's newest by this many events train with half the weight; a history is
    shorter than the default by far: all events count alike."""
    user_power: Annotated[NonNegative, Searched(0.0, 1.0)] = 0.0
    """Events weigh ``count ** -power``, with the number of events of their user, so that active
    users decide less; 0: every event counts alike, 1: every user."""
    propensity_power: NonNegative = 0.0
    """Positives weigh ``1 / (count / largest count) ** power``, so that items few people were shown
    count more; 0: all equal."""
    propensity_clip: HalfOpen01 = 0.1
    """Propensities below it count as it."""
    denoising: Literal["none", "pld", "truncated", "reweighted"] = "none"
    """What is done about false positives: "pld" resamples each user's positives by their loss,
    "truncated" leaves the largest losses of a batch out, "reweighted" weighs positives by how
    likely they are."""
    warmup_epochs: Natural = 5
    """Epochs before denoising starts; "truncated" then takes as many again to reach drop_rate."""
    pool_size: Count = 5
    """Positives a user's pick is made from (denoising "pld")."""
    denoise_temperature: Annotated[Positive, Searched(0.03, 1.0, log=True)] = 0.1
    """Softness of that pick (denoising "pld")."""
    drop_rate: Annotated[Share, Searched(0.02, 0.3)] = 0.1
    """Share of a batch left out (denoising "truncated")."""
    reweight_power: Annotated[NonNegative, Searched(0.05, 1.0, log=True)] = 0.25
    """Exponent of the likelihood (denoising "reweighted")."""
    masking_weight: NonNegative = 0.0
    """Weight of the correlated-feature masking beside the loss; needs items with four fields or
    more. 0: none."""
    masking_batch: AtLeast2 = 512
    """Items drawn uniformly for the masking a step."""
    compatibility_weight: NonNegative = 0.1
    """Weight of each side's pull towards an older model's vectors, where there is one to stay
    comparable with."""
    hard_epochs: Natural = 0
    """Epochs with hard negatives after the others; kept only if the validation recall rises."""
    hard_skip: Natural = 100
    """Best-ranked unknown items that are never taken for negatives."""
    hard_pool: Count = 1000
    """Rank below which no item is taken; above hard_skip."""
    hard_negatives: Count = 32
    """Hard negatives of each event."""
    least_rank: Share = 0.5
    """Collapse alarm: training stops when the vectors use fewer than this share of their dimensions
    in two epochs in a row, half of it with pooling "sequence"; 0: never. Silent with fewer than
    eight users or items a dimension."""
    low_precision: bool = False
    """Multiply in bfloat16 where the loss can, and in the reader of sequences."""
    device: Device = "auto"
    """Where weights live and products are taken; "auto": CUDA where there is one. What is drawn is
    drawn on the CPU, so the same seed draws the same everywhere. Several processes train on the
    CPU."""

    @model_validator(mode="after")
    def _hard_ranks(self) -> Self:
        if self.hard_pool <= self.hard_skip:
            raise ValueError(
                f"hard_pool must be > hard_skip, got {self.hard_pool} and {self.hard_skip}"
            )
        return self


def unfit(towers: TowerOptions, training: TrainingOptions) -> str | None:
    """Why towers of this shape cannot be trained like this; None: they can."""
    if towers.pooling != "sequence":
        return None
    if training.denoising == "pld":
        return (
            "denoising must be 'none', 'truncated' or 'reweighted' with pooling = 'sequence', "
            "which asks for all events of a history at once, got 'pld'"
        )
    if training.users == "alike":
        return (
            "users must be 'by_event' with pooling = 'sequence', which asks for all events of a "
            "history at once, got 'alike'; set user_power = 1 to weigh users alike"
        )
    return None
