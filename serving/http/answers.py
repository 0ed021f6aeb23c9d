"""Answers of the HTTP interface: their shapes for the document, and their bytes.

The bytes are written straight from the service's values; nothing is checked again on the way out.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from pydantic import BaseModel, Field, TypeAdapter

from serving.http.bodies import ErrorDetail
from serving.messages import Explanation, Recommendations

__all__ = [
    "BatchAnswer",
    "EventsAnswer",
    "ExperimentsAnswer",
    "ExplainAnswer",
    "GenerationsAnswer",
    "HeadAnswer",
    "HealthAnswer",
    "ItemsAnswer",
    "RecommendAnswer",
    "batch_json",
    "explanation_json",
    "recommendations_json",
]

_RECOMMENDATIONS = TypeAdapter(Recommendations).serializer


class ItemAnswer(BaseModel):
    """One place of a slate."""

    item_id: str
    score: float
    source: str
    propensity: float


class FilteredAnswer(BaseModel):
    """How many candidates were left out, and why."""

    excluded: int
    not_in_only: int
    hidden: int
    unknown_exclude: int
    unknown_only: int


class StageAnswer(BaseModel):
    """One stage of one answer."""

    stage: str
    ms: float
    outcome: str
    detail: str | None


class RecommendAnswer(BaseModel):
    """A slate, where it came from and what was left out."""

    items: list[ItemAnswer]
    source: str
    generation: str | None
    request_id: str
    degraded: bool
    reason: str | None
    filtered: FilteredAnswer
    cursor: str | None
    arms: dict[str, str]
    policy: str
    stages: list[StageAnswer] | None


class BatchEntry(BaseModel):
    """What became of one question."""

    status: int
    answer: RecommendAnswer | None
    error: ErrorDetail | None


class BatchAnswer(BaseModel):
    """One entry a question, in order."""

    answers: list[BatchEntry]


class RetrievalAnswer(BaseModel):
    """What one retriever says of an item."""

    score: float
    rank: int | None


class ExplainedItem(BaseModel):
    """Why one item stands where it stands."""

    item_id: str
    place: int | None
    score: float | None
    held_back: str | None
    retrieval: dict[str, RetrievalAnswer]
    features: dict[str, float | None]
    contributions: dict[str, float]
    base: float


class ExplainAnswer(BaseModel):
    """Explanations, in the order asked."""

    items: list[ExplainedItem]
    generation: str
    request_id: str
    source: str
    reason: str | None


class EventsAnswer(BaseModel):
    """What became of the events; everything counted here is in the store."""

    accepted: int
    duplicates: int
    unknown_items: int


class ItemsAnswer(BaseModel):
    """What became of the items."""

    changed: int
    unknown: list[str]


class ExperimentAnswer(BaseModel):
    """One experiment."""

    name: str
    state: str
    layer: str | None
    traffic: float
    arms: dict[str, float]
    start: datetime | None
    end: datetime | None


class ExperimentsAnswer(BaseModel):
    """Experiments in the order declared."""

    experiments: list[ExperimentAnswer]
    arms: dict[str, str] = Field(description="Arm by experiment, of the user asked for.")


class GenerationAnswer(BaseModel):
    """One published generation."""

    generation: str
    current: bool
    previous: bool
    published_at: float
    expires_at: int
    num_users: int
    num_items: int
    k: int


class GenerationsAnswer(BaseModel):
    """Published generations, newest first."""

    generations: list[GenerationAnswer]


class HeadAnswer(BaseModel):
    """Which generation readers use from now on."""

    generation: str
    previous: str | None
    epoch: int
    flipped_at: float


class HealthAnswer(BaseModel):
    """State of the process."""

    status: str
    reason: str | None = None
    generation: str | None = None


def recommendations_json(answer: Recommendations) -> bytes:
    """A `RecommendAnswer`."""
    return _RECOMMENDATIONS.to_json(answer, fallback=dict)


def batch_json(entries: Sequence[bytes | tuple[int, Mapping[str, Any]]]) -> bytes:
    """A `BatchAnswer`.

    Args:
        entries: an answer's bytes, or the status and the detail of an error.
    """
    parts = [
        b'{"status":200,"answer":%b,"error":null}' % one
        if isinstance(one, bytes)
        else json.dumps({"status": one[0], "answer": None, "error": one[1]}).encode()
        for one in entries
    ]
    return b'{"answers":[%b]}' % b",".join(parts)


def explanation_json(answer: Explanation) -> bytes:
    """An `ExplainAnswer`."""
    items = [
        ExplainedItem(
            item_id=one.item_id,
            place=one.place,
            score=one.score,
            held_back=one.held_back,
            retrieval={
                name: RetrievalAnswer(score=score, rank=rank)
                for name, (score, rank) in one.retrieval.items()
            },
            features=dict(one.features),
            contributions=dict(one.contributions),
            base=one.base,
        )
        for one in answer.items
    ]
    told = ExplainAnswer(
        items=items,
        generation=answer.generation,
        request_id=answer.request_id,
        source=answer.source,
        reason=answer.reason,
    )
    return told.model_dump_json().encode()
