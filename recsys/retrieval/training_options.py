"""How the two towers are trained, and what is reported meanwhile."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal, NamedTuple

from recsys.lookup import lookup
from recsys.retrieval.objectives import OBJECTIVES
from recsys.retrieval.two_tower import Score

__all__ = ["EpochReport", "TrainingOptions"]


@dataclass(frozen=True)
class TrainingOptions:
    """How the towers are trained.

    Attributes:
        loss: a key of `recsys.retrieval.losses.LOSSES`.
        score: what is served, and what the loss sees; see `TwoTowerRetriever`.
        epochs: passes over the events, >= 1; fewer with early stopping.
        batch_size: events a step, >= 2, over all processes together.
        num_negatives: negatives shared by a step, >= 1 (`bpr`, `sampled_softmax`, denoising).
        negative_power: negatives are drawn by popularity to this power; 0 = uniform.
        temperature: logits are divided by it, > 0; about .1 for a cosine, 1 for a dot product.
        gamma: weight of DirectAU's uniformity.
        learning_rate: of Adam on the dense weights.
        table_learning_rate: of row-wise Adagrad on the id tables.
        history_dropout: share of a query's events hidden in each step, in [0, 1).
        positive_half_life: events older than a row's newest by this many events train with half
            the weight; inf: all equal.
        denoising: "pld" resamples each user's positives by their loss, "truncated" leaves the
            largest losses of a batch out.
        warmup_epochs: epochs before denoising starts.
        pool_size: positives a user's pick is made from ("pld").
        denoise_temperature: softness of that pick ("pld"), > 0.
        drop_rate: share of a batch left out ("truncated"), in [0, 1).
        patience: stop after this many epochs without a better validation recall@20; 0: never.

    Raises:
        ConfigError: ``loss`` is unknown.
        ValueError: a value is out of range.
    """

    loss: str = "sampled_softmax"
    score: Score = "cosine"
    epochs: int = 15
    batch_size: int = 1024
    num_negatives: int = 1024
    negative_power: float = 0.5
    temperature: float = 0.1
    gamma: float = 1.0
    learning_rate: float = 2e-3
    table_learning_rate: float = 0.1
    history_dropout: float = 0.2
    positive_half_life: float = math.inf
    denoising: Literal["none", "pld", "truncated"] = "none"
    warmup_epochs: int = 5
    pool_size: int = 5
    denoise_temperature: float = 0.1
    drop_rate: float = 0.1
    patience: int = 4

    def __post_init__(self) -> None:
        lookup(OBJECTIVES, self.loss, "loss")
        if self.denoising not in ("none", "pld", "truncated"):
            raise ValueError(
                f"denoising must be 'none', 'pld' or 'truncated', got {self.denoising!r}"
            )
        least = {"epochs": 1, "batch_size": 2, "num_negatives": 1, "pool_size": 1}
        least |= {"warmup_epochs": 0, "patience": 0}
        for name, bound in least.items():
            if getattr(self, name) < bound:
                raise ValueError(f"{name} must be >= {bound}, got {getattr(self, name)}")
        for name in (
            "temperature",
            "learning_rate",
            "table_learning_rate",
            "positive_half_life",
            "denoise_temperature",
        ):
            if not getattr(self, name) > 0:
                raise ValueError(f"{name} must be > 0, got {getattr(self, name)}")
        for name in ("history_dropout", "drop_rate"):
            if not 0.0 <= getattr(self, name) < 1.0:
                raise ValueError(f"{name} must be in [0, 1), got {getattr(self, name)}")
        for name in ("negative_power", "gamma"):
            if not getattr(self, name) >= 0:
                raise ValueError(f"{name} must be >= 0, got {getattr(self, name)}")
        if self.score not in ("cosine", "dot"):
            raise ValueError(f"score must be 'cosine' or 'dot', got {self.score!r}")


class EpochReport(NamedTuple):
    """One finished epoch.

    Attributes:
        epoch: from 1.
        num_epochs: as many as there can be.
        loss: mean over the steps.
        recall: recall@20 on the validation events, None without them.
        seconds: since the epoch began, validation included.
    """

    epoch: int
    num_epochs: int
    loss: float
    recall: float | None
    seconds: float

    def __str__(self) -> str:
        shown = "" if self.recall is None else f", validation recall@20 {self.recall:.4f}"
        return (
            f"two-tower epoch {self.epoch}/{self.num_epochs}: loss {self.loss:.4f}{shown}, "
            f"{self.seconds:.1f} s"
        )
