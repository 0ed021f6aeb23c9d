"""The section of the retrievers: which there are, the shape of the towers, and their training."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, field_validator, model_validator

from recsys.config.base import (
    Closed01,
    Count,
    Natural,
    NonNegative,
    Positive,
    Section,
    Share,
    check_distinct,
)

__all__ = ["LossName", "RetrievalConfig", "RetrieverName"]

RetrieverName = Literal[
    "two_tower", "item_item", "item_item_all", "co_occurrence", "next_item", "popularity"
]
LossName = Literal[
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
]
UpTo1 = Annotated[float, Field(gt=0, le=1)]


class TowerConfig(Section):
    """The towers' shape and training.

    `recsys.retrieval.towers.TowerOptions` and `recsys.retrieval.training.TrainingOptions`
    say what each setting means; those of the latter's negatives are ``negatives`` (how many) and
    ``negative_source`` here.
    """

    dim: Count = 64
    loss: LossName = "sampled_softmax"
    temperature: Positive = 0.1
    score: Literal["cosine", "dot"] = "cosine"
    pooling: Literal["recency", "attention", "none"] = "recency"
    history_length: Count = 100
    hidden_dim: Natural = 128
    use_user_id: bool = False
    use_fields: bool = False  # category, list and number columns of the items as id rows
    id_dropout: Closed01 = 0.1
    user_dropout: Share = 0.0
    history_dropout: Share = 0.2
    users: Literal["by_event", "alike"] = "by_event"
    negatives: Count = 1024
    negative_source: Literal["sampled", "mixed", "queue"] = "sampled"
    negative_power: NonNegative = 0.5
    frequency: Literal["counted", "streaming"] = "counted"
    queue_size: Count = 4096
    epochs: Count = 15
    warm_epochs: Natural = 0  # of a run that begins from a bundle; 0: as many as one from nothing
    patience: Natural = 4  # epochs without a better validation recall; 0: never stop early
    batch_size: Annotated[int, Field(ge=2)] = 1024
    events_per_user: Count = 1
    learning_rate: Positive = 2e-3
    table_learning_rate: Positive = 0.1
    final_learning_rate: UpTo1 = 1.0
    smoothing: Share = 0.0  # needs one worker
    positive_half_life: Positive = 1e9  # events; old positives weigh less
    user_power: NonNegative = 0.0  # active users weigh less
    propensity_power: NonNegative = 0.0
    propensity_clip: UpTo1 = 0.1
    denoising: Literal["none", "pld", "truncated", "reweighted"] = "none"
    warmup_epochs: Natural = 5
    pool_size: Count = 5
    denoise_temperature: Positive = 0.1
    drop_rate: Share = 0.1
    reweight_power: NonNegative = 0.25
    masking_weight: NonNegative = 0.0  # needs use_fields and four fields
    masking_batch: Annotated[int, Field(ge=2)] = 512
    compatibility_weight: NonNegative = 0.1  # of each side, in a run with --compatible-with
    hard_epochs: Natural = 0
    hard_skip: Natural = 100
    hard_pool: Count = 1000
    hard_negatives: Count = 32
    least_rank: Annotated[float, Field(ge=0, lt=1)] = 0.5  # collapse alarm; 0: none
    low_precision: bool = False
    device: Literal["auto", "cpu", "cuda"] = "auto"  # auto: cuda where there is one
    light_user_tower: bool = False  # a small user tower besides, for live requests
    threshold_head: bool = False  # learn from which score on a candidate is worth showing
    soup: Count = 1  # trainings from one start that are averaged where that helps
    num_threads: Count = 1  # of torch while training; see recsys.threads

    @model_validator(mode="after")
    def _fit_together(self) -> Self:
        if not self.use_user_id and (self.pooling == "none" or self.user_dropout):
            raise ValueError(
                "use_user_id must be true for pooling = 'none' and for user_dropout, got false "
                f"with pooling = {self.pooling!r} and user_dropout = {self.user_dropout}"
            )
        if self.masking_weight and not self.use_fields:
            raise ValueError(
                f"masking_weight must be 0 without use_fields, got {self.masking_weight}; set "
                "use_fields = true"
            )
        if self.hard_pool <= self.hard_skip:
            raise ValueError(
                f"hard_pool must be > hard_skip, got {self.hard_pool} and {self.hard_skip}"
            )
        if self.soup > 1 and (self.epochs < 2 or self.hard_epochs):
            raise ValueError(
                f"soup must be 1 with epochs < 2 or with hard_epochs, got {self.soup} with epochs "
                f"= {self.epochs} and hard_epochs = {self.hard_epochs}"
            )
        return self


class LossConfig(TowerConfig):
    """What the losses are set with, each setting read by the loss that it names.

    `recsys.retrieval.training.batch.LossSettings` says what each means.
    """

    gamma: NonNegative = 1.0  # weight of the uniformity, directau and cm3
    log_q_strength: NonNegative = 1.0  # in_batch_softmax; 0: no correction
    focal_gamma: NonNegative = 0.0  # sampled_softmax; 0: all examples alike
    distinct_items: bool = False  # directau
    bsl_weight: Positive = 1.1
    bsl_shared_positives: bool = False
    psl_sigma: Literal["atan", "exp", "relu", "tanh"] = "relu"
    sl_k: Count = 20
    sl_temperature: Positive = 1.0
    ccl_margin: Annotated[float, Field(ge=-1, le=1)] = 0.9
    ccl_weight: NonNegative = 150.0
    mawu_user_gamma: NonNegative = 1.0
    mawu_item_gamma: NonNegative = 0.5
    max_sim: Closed01 = 1.0  # cm3
    mann_whitney_weight: NonNegative = 0.0  # of the AUC term beside any loss
    mann_whitney_scores: Count = 4096


class RetrievalConfig(LossConfig):
    """The two towers, their training, and which retrievers feed the ranker."""

    sources: tuple[RetrieverName, ...] = (
        "two_tower",
        "item_item",
        "item_item_all",
        "co_occurrence",
        "next_item",
        "popularity",
    )
    item_item_l2: Positive = 300.0
    half_life: Positive = 10.0  # events after which a history event weighs half, item_item
    popularity_window_days: Positive = 180.0
    int8: bool = True  # serve from row-wise int8 copies of the item vectors
    index: Literal["exact", "annoy"] = "exact"

    @field_validator("sources")
    @classmethod
    def _distinct(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        check_distinct(value, "retriever")
        if "popularity" not in value:
            raise ValueError(
                "must include 'popularity', which answers users without a history; got "
                f"{', '.join(value) or 'none'}"
            )
        return value
