"""The section of the retrievers: which there are, the shape of the towers, and their training."""

from __future__ import annotations

from dataclasses import replace
from typing import Annotated, Literal, Self

from pydantic import field_validator, model_validator

from recsys.retrieval.finishing.options import TowerExtras
from recsys.retrieval.options import CountingOptions
from recsys.retrieval.source_options import GraphOptions, NewItemOptions, PopularOptions
from recsys.retrieval.towers.options import TowerOptions
from recsys.retrieval.training.options import LOSSES, TrainingOptions, unfit
from recsys.settings import Count, Natural, OneOf, check_distinct

__all__ = ["AUTO", "RetrievalConfig", "RetrieverName"]

AUTO = "auto"
"""The loss of a run that tries several; see `recsys.pipeline.source_choice.choose_loss`."""

IndexName = Annotated[str, OneOf("recsys.index.choices:INDEXES", ("exact", "annoy"))]
RetrieverName = Literal[
    "two_tower",
    "item_item",
    "item_item_all",
    "co_occurrence",
    "next_item",
    "graph_filter",
    "rp3beta",
    "user_knn",
    "popularity",
    "popular_recent",
    "popular_in_category",
    "trending",
    "buy_again",
    "new_items",
]


class RetrievalConfig(
    TowerOptions,
    TrainingOptions,
    TowerExtras,
    CountingOptions,
    GraphOptions,
    PopularOptions,
    NewItemOptions,
):
    """The two towers, their training, and which retrievers feed the ranker."""

    loss: Annotated[str, replace(LOSSES, besides=(AUTO,))] = TrainingOptions.default("loss")
    """What is minimised; see `recsys.retrieval.training.objectives`. "auto": each of a few losses,
    denoised or not, is tried on the past, and the one with the best validation recall@20 trains."""
    sources: tuple[RetrieverName, ...] = (
        "two_tower",
        "item_item",
        "item_item_all",
        "co_occurrence",
        "next_item",
        "popularity",
        "buy_again",
    )
    """The retrievers; "popularity" answers users without a history and must be among them,
    "buy_again" is left out where slate.repeats shows nothing again, "new_items" where nothing tells
    items apart."""
    use_fields: bool = False
    """Whether category, list and number columns of the items become id rows of the item tower."""
    int8: bool = True
    """Serve from row-wise int8 copies of the item vectors."""
    index: IndexName = "exact"
    """How the nearest item vectors are found."""
    warm_epochs: Natural = 0
    """Epochs of a run that begins from a bundle; 0: as many as one from nothing."""
    num_threads: Count = 1
    """Of torch while training; see `recsys.threads`."""

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

    @model_validator(mode="after")
    def _fit_together(self) -> Self:
        if self.masking_weight and not self.use_fields:
            raise ValueError(
                f"masking_weight must be 0 without use_fields, got {self.masking_weight}; set "
                "use_fields = true"
            )
        if problem := unfit(self, self):
            raise ValueError(problem)
        if self.soup > 1 and (self.epochs < 2 or self.hard_epochs):
            raise ValueError(
                f"soup must be 1 with epochs < 2 or with hard_epochs, got {self.soup} with epochs "
                f"= {self.epochs} and hard_epochs = {self.hard_epochs}"
            )
        return self
