"""The sections of the configuration that concern one stage each, except data and the retrievers."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import Field, field_validator, model_validator

from recsys.config.base import (
    Closed01,
    Count,
    NonNegative,
    Open01,
    Positive,
    Section,
    check_distinct,
)

__all__ = [
    "CandidatesConfig",
    "ContentConfig",
    "EvaluationConfig",
    "GbdtConfig",
    "ListwiseConfig",
    "OutputConfig",
    "RankingConfig",
    "SemanticIdsConfig",
    "SplitConfig",
]


class OutputConfig(Section):
    """Where bundles, unfinished stages and the embedded store live."""

    directory: Path = Path("artifacts")


class SplitConfig(Section):
    """What is held out for evaluation: each user's last events, or all events after a moment."""

    kind: Literal["per_user", "time"] = "per_user"
    fraction: Open01 = 0.8  # share of the events that is training data


class ContentConfig(Section):
    """Item content vectors: text and attributes, fused by weight."""

    dim: Count = 64
    text_weight: NonNegative = 1.0
    attribute_weight: NonNegative = 1.0

    @model_validator(mode="after")
    def _some_weight(self) -> Self:
        if self.text_weight + self.attribute_weight == 0:
            raise ValueError("text_weight and attribute_weight must not both be 0")
        return self


class SemanticIdsConfig(Section):
    """Residual quantisation of the content vectors."""

    kind: Literal["rqvae", "residual_kmeans"] = "rqvae"
    levels: Annotated[int, Field(ge=1, le=8)] = 3
    codes: Annotated[int, Field(ge=2, le=32_768)] = 128
    epochs: Count = 60
    batch_size: Count = 1024
    learning_rate: Positive = 1e-3


class GbdtConfig(Section):
    """LightGBM LambdaMART."""

    num_trees: Count = 200  # the most; fewer where they do better on held-out users
    learning_rate: Positive = 0.05
    num_leaves: Annotated[int, Field(ge=2)] = 15
    min_data_in_leaf: Count = 100
    feature_fraction: Annotated[float, Field(gt=0, le=1)] = 0.5
    bagging_fraction: Annotated[float, Field(gt=0, le=1)] = 0.7
    lambda_l2: NonNegative = 10.0
    truncation_level: Count = 30
    max_bin: Annotated[int, Field(ge=3, le=255)] = 63
    num_threads: Count = 1


class ListwiseConfig(Section):
    """The neural stage that reorders the best of the trees' list."""

    enabled: bool = True
    top: Annotated[int, Field(ge=2)] = 50
    dim: Count = 32
    epochs: Count = 10
    learning_rate: Positive = 1e-3


class RankingConfig(Section):
    """From candidates to a slate."""

    candidates_per_source: Count = 150
    retrieval_features: bool = True  # beside the declared or default ones; recsys.config.features
    folds: Annotated[int, Field(ge=2, le=20)] = 4  # of users, to choose trees and network
    gbdt: GbdtConfig = GbdtConfig()
    listwise: ListwiseConfig = ListwiseConfig()
    diversity: Closed01 = 0.0  # 0: by score alone; 1: by difference from what is above alone


class CandidatesConfig(Section):
    """The batch job that writes one list per user."""

    k: Annotated[int, Field(ge=1, le=1000)] = 100
    batch_size: Count = 512  # users at a time
    # Column of the user table; each of its values gets a fallback list. None: one list for all.
    popular_segment: Annotated[str, Field(min_length=1)] | None = None


class EvaluationConfig(Section):
    """What is measured on the held-out part."""

    ks: tuple[Count, ...] = (5, 10, 20)
    bootstrap_samples: Count = 1000

    @field_validator("ks")
    @classmethod
    def _distinct(cls, value: tuple[int, ...]) -> tuple[int, ...]:
        return tuple(sorted(check_distinct(value, "cutoff")))
