"""Bodies of the HTTP interface, with their limits."""

from __future__ import annotations

from typing import Annotated, Self

from pydantic import BaseModel, ConfigDict, Field

from serving.messages import MAX_K, Recommendations, RecommendRequest, SimilarRequest

__all__ = [
    "ErrorAnswer",
    "GenerationsAnswer",
    "RecommendAnswer",
    "RecommendBody",
    "SimilarBody",
]

Identifier = Annotated[str, Field(min_length=1, max_length=256)]
Ids = Annotated[list[Identifier], Field(max_length=5000)]
K = Annotated[int, Field(ge=1, le=MAX_K)]
Diversity = Annotated[float, Field(ge=0.0, le=1.0)]


class Body(BaseModel):
    """Base of all bodies: an unknown field is an error, a number will do for an id."""

    model_config = ConfigDict(extra="forbid", frozen=True, coerce_numbers_to_str=True)


class Context(Body):
    """What is known about this moment."""

    recent_items: Annotated[list[Identifier], Field(max_length=500)] = Field(
        default=[], description="What the user did just now, newest last; not shown again."
    )


class RecommendBody(Body):
    """Question for a slate."""

    user_id: Identifier | None = Field(
        default=None, description="Unknown or missing: a named fallback answers."
    )
    k: K = 10
    exclude: Ids = Field(default=[], description="Item ids that must not be shown.")
    only: Ids | None = Field(default=None, description="Show nothing outside these item ids.")
    context: Context = Context()
    diversity: Diversity | None = Field(
        default=None, description="0 by score alone, 1 by difference from what is above."
    )
    threshold: bool = Field(
        default=False,
        description="A live answer holds only likely items and may be short or empty.",
    )

    def to_request(self, request_id: str) -> RecommendRequest:
        """The same question as the service's value type."""
        return RecommendRequest(
            user_id=self.user_id,
            k=self.k,
            exclude=self.exclude,
            only=self.only,
            recent_items=self.context.recent_items,
            diversity=self.diversity,
            request_id=request_id,
            threshold=self.threshold,
        )


class SimilarBody(Body):
    """Question for items like another."""

    item_id: Identifier
    k: K = 10
    exclude: Ids = []
    only: Ids | None = None

    def to_request(self, request_id: str) -> SimilarRequest:
        """The same question as the service's value type."""
        return SimilarRequest(
            item_id=self.item_id,
            k=self.k,
            exclude=self.exclude,
            only=self.only,
            request_id=request_id,
        )


class ItemAnswer(Body):
    """One place of a slate."""

    item_id: str
    score: float
    source: str
    propensity: float


class FilteredAnswer(Body):
    """How many candidates were left out, and why."""

    excluded: int
    not_in_only: int
    hidden: int
    unknown_exclude: int
    unknown_only: int


class RecommendAnswer(Body):
    """A slate, where it came from and what was left out."""

    items: list[ItemAnswer]
    source: str
    generation: str | None
    request_id: str
    degraded: bool
    reason: str | None
    filtered: FilteredAnswer

    @classmethod
    def from_recommendations(cls, answer: Recommendations) -> Self:
        """The service's answer for the wire; nothing is checked again."""
        filtered = answer.filtered
        return cls.model_construct(
            items=[
                ItemAnswer.model_construct(
                    item_id=item.item_id,
                    score=item.score,
                    source=item.source,
                    propensity=item.propensity,
                )
                for item in answer.items
            ],
            source=answer.source,
            generation=answer.generation,
            request_id=answer.request_id,
            degraded=answer.degraded,
            reason=answer.reason,
            filtered=FilteredAnswer.model_construct(
                **{name: getattr(filtered, name) for name in FilteredAnswer.model_fields}
            ),
        )


class GenerationAnswer(Body):
    """One published generation."""

    generation: str
    current: bool
    previous: bool
    published_at: float
    expires_at: int
    num_users: int
    num_items: int
    k: int


class GenerationsAnswer(Body):
    """Published generations, newest first."""

    generations: list[GenerationAnswer]


class HealthAnswer(Body):
    """State of the process."""

    status: str
    reason: str | None = None
    generation: str | None = None


class ErrorDetail(Body):
    """What went wrong."""

    code: str
    message: str
    request_id: str | None


class ErrorAnswer(Body):
    """Every error has this shape."""

    error: ErrorDetail
