"""Features that compare the candidate with the user's last items, and of the user's session."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

from features.definitions.columns import Definition, Scope, check_choice, check_positive
from features.errors import DataError

__all__ = ["Affinity", "BasketShare", "LastNOverlap", "Session", "Similarity"]


@dataclass(frozen=True, kw_only=True)
class _OfHistory(Definition):
    """The user's events against the candidate.

    Attributes:
        event: only events of this kind. None: all.
        ttl_days: only events of the last so many days. None: all.
        session_minutes: only events of the session that goes on at the moment: the newest ones
            with gaps of at most so many minutes between them and to the moment. None: all.
    """

    event: str | None = None
    ttl_days: float | None = None
    session_minutes: float | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        check_positive(self.name, "ttl_days", self.ttl_days)
        check_positive(self.name, "session_minutes", self.session_minutes)

    @property
    def scope(self) -> Scope:
        """What the value depends on besides the moment."""
        return "user_item"


@dataclass(frozen=True, kw_only=True)
class Affinity(_OfHistory):
    """Share of the user's events whose item has the candidate's values of an attribute.

    Missing without events and for a candidate without values.

    Attributes:
        column: the item column (category or list).
        how: "mean": the share with each value of the candidate, averaged over the values; "any":
            the share with at least one of them (needs ``last``).
        last: only the user's newest so many events. None: all.
    """

    kind: ClassVar[str] = "affinity"

    column: str
    how: Literal["mean", "any"] = "mean"
    last: int | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        check_choice(self.name, "how", self.how, ("mean", "any"))
        check_positive(self.name, "last", self.last)
        if self.how == "any" and self.last is None:
            raise DataError(
                f"definition {self.name!r}: last must be a number for how='any', got None; every "
                "candidate is compared with every event"
            )
        if self.session_minutes is not None and self.last is None:
            raise DataError(
                f"definition {self.name!r}: last must be a number with session_minutes, got None"
            )

    def columns(self) -> tuple[str, ...]:
        """Columns that are read."""
        return (f"item.{self.column}",)


@dataclass(frozen=True, kw_only=True)
class BasketShare(Definition):
    """Share of the user's baskets that hold the candidate; missing without any.

    A basket is what the user did at one time.

    Attributes:
        event: only events of this kind. None: all.
        window_days: only baskets of the last so many days. None: all.
    """

    kind: ClassVar[str] = "basket_share"

    event: str | None = None
    window_days: float | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        check_positive(self.name, "window_days", self.window_days)

    @property
    def scope(self) -> Scope:
        """What the value depends on besides the moment."""
        return "user_item"


@dataclass(frozen=True, kw_only=True)
class LastNOverlap(_OfHistory):
    """Mean Jaccard overlap of attribute values between the candidate and the user's last items.

    Missing without events and for a candidate without values.

    Attributes:
        column: the item column (category or list).
        last: the user's newest so many events.
    """

    kind: ClassVar[str] = "last_n_overlap"

    column: str
    last: int = 10

    def __post_init__(self) -> None:
        super().__post_init__()
        check_positive(self.name, "last", self.last)

    def columns(self) -> tuple[str, ...]:
        """Columns that are read."""
        return (f"item.{self.column}",)


@dataclass(frozen=True, kw_only=True)
class Similarity(_OfHistory):
    """Cosine between the candidate's vector and the mean vector of the user's last items.

    Missing if either is zero or unknown; events of items without a vector are passed over.

    Attributes:
        vectors: the name of the vectors given to the computation.
        last: the user's newest so many events.
    """

    kind: ClassVar[str] = "similarity"

    vectors: str
    last: int = 20

    def __post_init__(self) -> None:
        super().__post_init__()
        check_positive(self.name, "last", self.last)

    def columns(self) -> tuple[str, ...]:
        """Columns that are read."""
        return (f"vectors.{self.vectors}",)


@dataclass(frozen=True, kw_only=True)
class Session(Definition):
    """The user's session that goes on at the moment, among the newest ``last`` events.

    Attributes:
        what: "events": their number; "items": number of different items; "weight": sum of the
            weights; "seconds": since its first event, missing without a session.
        event: only events of this kind. None: all.
        session_minutes: the longest gap between two events, and between the last one and the
            moment.
        last: how many of the user's newest events are looked at.
    """

    kind: ClassVar[str] = "session"

    what: Literal["events", "items", "weight", "seconds"] = "events"
    event: str | None = None
    session_minutes: float = 30.0
    last: int = 50

    def __post_init__(self) -> None:
        super().__post_init__()
        check_choice(self.name, "what", self.what, ("events", "items", "weight", "seconds"))
        check_positive(self.name, "session_minutes", self.session_minutes)
        check_positive(self.name, "last", self.last)

    @property
    def scope(self) -> Scope:
        """What the value depends on besides the moment."""
        return "user"
