"""The sections of the configuration that concern one stage each, except data and the retrievers."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import Field, field_validator, model_validator

from recsys.ranking.options import GbdtOptions, ListwiseOptions
from recsys.settings import (
    Closed01,
    Count,
    NonNegative,
    Open01,
    Positive,
    Settings,
    check_distinct,
)

__all__ = [
    "CandidatesConfig",
    "ContentConfig",
    "EvaluationConfig",
    "ListwiseConfig",
    "OutputConfig",
    "RankingConfig",
    "SemanticIdsConfig",
    "SlateOptions",
    "SplitConfig",
]


class OutputConfig(Settings):
    """Where bundles, unfinished stages and the embedded store live."""

    directory: Path = Path("artifacts")
    """Below the configuration's own directory."""


class SplitConfig(Settings):
    """What is held out for evaluation."""

    kind: Literal["per_user", "time"] = "per_user"
    """Each user's last events, or all events after a moment."""
    fraction: Open01 = 0.8
    """Share of the events that is training data."""


class ContentConfig(Settings):
    """Item content vectors: text and attributes, fused by weight."""

    dim: Count = 64
    """Dimensions of a vector."""
    text_weight: NonNegative = 1.0
    """Weight of the text columns."""
    attribute_weight: NonNegative = 1.0
    """Weight of the category, list and number columns."""

    @model_validator(mode="after")
    def _some_weight(self) -> Self:
        if self.text_weight + self.attribute_weight == 0:
            raise ValueError("text_weight and attribute_weight must not both be 0")
        return self


class SemanticIdsConfig(Settings):
    """Residual quantisation of the content vectors."""

    kind: Literal["rqvae", "residual_kmeans"] = "rqvae"
    """How the code books are found."""
    levels: Annotated[int, Field(ge=1, le=8)] = 3
    """Codes of an id, before the digit that tells equal ones apart."""
    codes: Annotated[int, Field(ge=2, le=32_768)] = 128
    """Codes of a level."""
    epochs: Count = 60
    """Passes over the items (rqvae)."""
    batch_size: Count = 1024
    """Items a step (rqvae)."""
    learning_rate: Positive = 1e-3
    """Of AdamW (rqvae)."""


class ListwiseConfig(ListwiseOptions):
    """The network that reorders the best of the trees' list."""

    enabled: bool = True
    """Whether there is one."""
    top: Annotated[int, Field(ge=2)] = 50
    """Best candidates of the trees that it sees."""


class SlateOptions(Settings):
    """How a slate is made of scored candidates."""

    diversity: Closed01 = 0.0
    """0: by score alone; 1: by difference from what is above alone."""


class RankingConfig(SlateOptions):
    """From candidates to a slate."""

    candidates_per_source: Count = 150
    """Candidates that each retriever brings."""
    retrieval_features: bool = True
    """Whether scores and ranks of the retrievers are features beside the declared or default ones;
    see `recsys.config.features`."""
    folds: Annotated[int, Field(ge=2, le=20)] = 4
    """Parts of the users, to choose trees and network."""
    gbdt: GbdtOptions = GbdtOptions()
    """The first stage: trees."""
    listwise: ListwiseConfig = ListwiseConfig()
    """The second stage: a network."""


class CandidatesConfig(Settings):
    """The batch job that writes one list per user."""

    k: Annotated[int, Field(ge=1, le=1000)] = 100
    """Items of a list."""
    batch_size: Count = 512
    """Users at a time."""
    popular_segment: Annotated[str, Field(min_length=1)] | None = None
    """Column of the user table; each of its values gets a fallback list. Not said: one for all."""


class EvaluationConfig(Settings):
    """What is measured on the held-out part."""

    ks: tuple[Count, ...] = (5, 10, 20)
    """Cutoffs of the metrics."""
    bootstrap_samples: Count = 1000
    """Draws behind an interval."""

    @field_validator("ks")
    @classmethod
    def _distinct(cls, value: tuple[int, ...]) -> tuple[int, ...]:
        return tuple(sorted(check_distinct(value, "cutoff")))
