"""Bodies and queries of the HTTP interface, with their limits."""

from __future__ import annotations

from typing import Annotated, Any, cast

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    GetPydanticSchema,
    ValidationError,
    ValidatorFunctionWrapHandler,
    WithJsonSchema,
    WrapValidator,
)
from pydantic_core import core_schema

from features.tables.id_rules import ID_PATTERN, MAX_ID_LENGTH
from serving.messages import (
    MAX_EXPLAINED,
    MAX_K,
    MAX_RANKED,
    Event,
    ExplainRequest,
    RankRequest,
    RecommendRequest,
    SimilarRequest,
)
from serving.request.cursor import MAX_CURSOR

__all__ = [
    "BatchBody",
    "ErrorAnswer",
    "EventsBody",
    "ExperimentsQuery",
    "ExplainBody",
    "FlipBody",
    "ItemIdsBody",
    "ItemsBody",
    "RankBody",
    "RecommendBody",
    "SimilarBody",
    "SimilarQuery",
]

MAX_QUESTIONS = 100
MAX_EVENTS = 1000
MAX_ITEMS = 1000
_RULE = (
    f"Input should be an id: 1 to {MAX_ID_LENGTH} characters, none of them a control character, "
    "or a whole number"
)

_IDENTIFIER = core_schema.union_schema(
    [
        core_schema.str_schema(
            strict=True, min_length=1, max_length=MAX_ID_LENGTH, pattern=ID_PATTERN
        ),
        core_schema.no_info_after_validator_function(
            str, core_schema.int_schema(strict=True, ge=-(2**63), le=2**64 - 1)
        ),
    ],
    mode="left_to_right",
    custom_error_type="identifier",
    custom_error_message=_RULE,
)
_TEXT_SCHEMA = {"type": "string", "minLength": 1, "maxLength": MAX_ID_LENGTH, "pattern": ID_PATTERN}
_NUMBER_SCHEMA = {"type": "integer", "minimum": -(2**63), "maximum": 2**64 - 1}

Identifier = Annotated[
    str,
    GetPydanticSchema(lambda kind, handler: _IDENTIFIER),
    WithJsonSchema({"anyOf": [_TEXT_SCHEMA, _NUMBER_SCHEMA]}),
]
Text = Annotated[str, Field(min_length=1, max_length=MAX_ID_LENGTH, pattern=ID_PATTERN)]
Ids = Annotated[list[Identifier], Field(max_length=5000)]
RecentItems = Annotated[list[Identifier], Field(max_length=500)]
K = Annotated[int, Field(ge=1, le=MAX_K)]
Diversity = Annotated[float, Field(ge=0.0, le=1.0)]


class Body(BaseModel):
    """Base of all bodies: an unknown field is an error, and so is a value of another kind."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)


class Context(Body):
    """What is known about this moment."""

    recent_items: RecentItems = Field(
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
    context: Context = Field(default_factory=Context)
    diversity: Diversity | None = Field(
        default=None, description="0 by score alone, 1 by difference from what is above."
    )
    threshold: bool = Field(
        default=False,
        description="A live answer holds only likely items and may be short or empty.",
    )
    segment: Text | None = Field(
        default=None,
        description="Whose popular items to show when nothing is known of the user, such as a "
        "country; an unknown one gets everybody's.",
    )
    cursor: Annotated[str, Field(min_length=1, max_length=MAX_CURSOR)] | None = Field(
        default=None,
        description="Of the answer whose next page is asked for, with all else unchanged.",
    )
    debug: bool = Field(
        default=False, description="The answer says which stages were tried, and their time."
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
            segment=self.segment,
            cursor=self.cursor,
            debug=self.debug,
        )


def _or_error(value: Any, check: ValidatorFunctionWrapHandler) -> RecommendBody | ValidationError:
    try:
        return check(value)  # type: ignore[no-any-return]
    except ValidationError as error:
        return error


class BatchBody(Body):
    """Several questions, each answered or refused on its own."""

    questions: Annotated[
        list[Annotated[RecommendBody, WrapValidator(_or_error)]],
        Field(min_length=1, max_length=MAX_QUESTIONS),
    ] = Field(description="A broken question gets an error in its place; the others are answered.")

    def checked(self) -> list[RecommendBody | ValidationError]:
        """The questions, or what is wrong with them."""
        return cast("list[RecommendBody | ValidationError]", self.questions)


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


class SimilarQuery(BaseModel):
    """The same in a URL, in short; numbers are text there."""

    item_id: Text
    k: K = 10


class RankBody(Body):
    """Question for the order of a list the caller brings."""

    user_id: Identifier | None = None
    item_ids: Annotated[list[Identifier], Field(min_length=1, max_length=MAX_RANKED)] = Field(
        description="Different items; those the model does not know keep their order at the end.",
        json_schema_extra={"uniqueItems": True},
    )
    context: Context = Field(default_factory=Context)
    diversity: Diversity | None = None
    debug: bool = False

    def to_request(self, request_id: str) -> RankRequest:
        """The same question as the service's value type.

        Raises:
            ValueError: an item is there twice.
        """
        return RankRequest(
            user_id=self.user_id,
            item_ids=self.item_ids,
            recent_items=self.context.recent_items,
            diversity=self.diversity,
            request_id=request_id,
            debug=self.debug,
        )


class ExplainBody(Body):
    """Question for why items stand where they stand, or why they do not appear."""

    user_id: Identifier | None = None
    item_ids: Annotated[list[Identifier], Field(min_length=1, max_length=MAX_EXPLAINED)] = Field(
        json_schema_extra={"uniqueItems": True}
    )
    context: Context = Field(default_factory=Context)

    def to_request(self, request_id: str) -> ExplainRequest:
        """The same question as the service's value type.

        Raises:
            ValueError: an item is there twice.
        """
        return ExplainRequest(
            user_id=self.user_id,
            item_ids=self.item_ids,
            recent_items=self.context.recent_items,
            request_id=request_id,
        )


class EventBody(Body):
    """Something a user did."""

    user_id: Identifier
    item_id: Identifier
    timestamp: Annotated[float, Field(ge=0)] = Field(
        description="When it happened, seconds since 1970-01-01 UTC; at most five minutes ahead "
        "and 366 days ago."
    )
    event: Annotated[str, Field(pattern=r"^[A-Za-z0-9_.-]{1,64}$")] = "click"
    weight: Annotated[float, Field(ge=0, le=1e9)] | None = None
    event_id: Text | None = Field(
        default=None,
        description="An event sent again under the same id counts once. Without one it is known "
        "by user, item, moment and kind.",
    )
    request_id: Text | None = Field(
        default=None, description="Of the answer that showed the item, if one did."
    )


class EventsBody(Body):
    """What users did."""

    events: Annotated[list[EventBody], Field(min_length=1, max_length=MAX_EVENTS)]

    def to_events(self) -> list[Event]:
        """The same as the service's value types."""
        return [
            Event(
                user_id=one.user_id,
                item_id=one.item_id,
                timestamp=one.timestamp,
                event=one.event,
                weight=one.weight,
                event_id=one.event_id,
                request_id=one.request_id,
            )
            for one in self.events
        ]


class ItemIdsBody(Body):
    """Items to hide or to show again."""

    item_ids: Annotated[list[Identifier], Field(min_length=1, max_length=MAX_ITEMS)]


AttributeName = Annotated[str, Field(min_length=1, max_length=64)]
Attribute = bool | int | float | Text | Annotated[list[Text], Field(max_length=100)]


class ItemBody(Body):
    """An item of the catalogue."""

    item_id: Identifier
    attributes: Annotated[dict[AttributeName, Attribute], Field(max_length=100)] = {}


class ItemsBody(Body):
    """Items to take into the catalogue."""

    items: Annotated[list[ItemBody], Field(min_length=1, max_length=MAX_ITEMS)]


class ExperimentsQuery(BaseModel):
    """Whose arms to tell, in a URL."""

    user_id: Text | None = None


class FlipBody(Body):
    """Which generation to serve."""

    generation: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,127}$")]
    expected_epoch: Annotated[int, Field(ge=0, le=2**53)] | None = Field(
        default=None, description="Flip only when the head counts this many flips so far."
    )


class ErrorDetail(BaseModel):
    """What went wrong."""

    code: str
    message: str
    request_id: str | None


class ErrorAnswer(BaseModel):
    """Every error has this shape."""

    error: ErrorDetail
