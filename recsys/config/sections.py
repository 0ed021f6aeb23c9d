"""The sections of the configuration that concern one stage each, except data and the retrievers."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Self

from pydantic import Field, model_validator

from features.tables.repeats import RepeatRule
from recsys.ranking.options import GbdtOptions, ListwiseStage
from recsys.settings import (
    Closed01,
    Count,
    Settings,
)

__all__ = [
    "CandidatesConfig",
    "OutputConfig",
    "RankingConfig",
    "SlateConfig",
    "SlateOptions",
]


class OutputConfig(Settings):
    """Where bundles, unfinished stages and the embedded store live."""

    directory: Path = Path("artifacts")
    """Below the configuration's own directory."""


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
    origins: Annotated[int, Field(ge=1, le=24)] = 1
    """Moments of the training part that the ranker learns from candidates of, with split.kind =
    "time"; for each the retrievers are fitted again, on what came before it."""
    origin_candidates: Count = 100
    """Candidates that nobody wanted, of each user at each earlier moment."""
    gbdt: GbdtOptions = GbdtOptions()
    """The first stage: trees."""
    listwise: ListwiseStage = ListwiseStage()
    """The second stage: a network."""


class SlateConfig(Settings):
    """What a slate may show of what its user met before."""

    repeats: str = RepeatRule.general
    """Items the user met: "exclude": never again, "allow": at once, "after 7d": after so many
    minutes (m), hours (h), days (d) or weeks (w). Disliked ones are never shown."""
    kinds: dict[str, str] = Field(default_factory=dict)
    """Kind of event = the rule of its own, such as view = "allow" beside purchase = "after 30d"; of
    several events of an item the longest rule holds."""

    @model_validator(mode="after")
    def _known_rules(self) -> Self:
        self.to_rule()
        return self

    def to_rule(self) -> RepeatRule:
        """The same as the value type that histories take."""
        return RepeatRule(self.repeats, self.kinds)


class CandidatesConfig(Settings):
    """The batch job that writes one list per user."""

    k: Annotated[int, Field(ge=1, le=1000)] = 100
    """Items of a list."""
    batch_size: Count = 512
    """Users at a time."""
    popular_segment: Annotated[str, Field(min_length=1)] | None = None
    """Column of the user table; each of its values gets a fallback list. Not said: one for all."""
