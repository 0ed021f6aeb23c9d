"""What a feature is, declared once; `features.offline` knows how to compute it.

Every definition speaks of one row: a user, a candidate item and a moment. "Events" are always those
strictly before the moment. A window of d days holds the events of the last d days before it.

Events are looked at in groups (argument ``by``):

    global           all events
    item             events of the candidate
    user             events of the user
    user_item        events of the user with the candidate
    attribute        events of items that share a value of ``column`` with the candidate
    user_attribute   the same, of this user

For a candidate with several values (genres) the attribute groups take each value by itself and
then the mean over the values (Recency: the most recent, Age: the oldest).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

from features.errors import DataError

__all__ = [
    "Affinity",
    "Age",
    "Category",
    "Count",
    "DayOfWeek",
    "Definition",
    "Field",
    "Grouping",
    "HourOfDay",
    "LastNOverlap",
    "MeanWeight",
    "Rate",
    "Recency",
    "RetrievalRank",
    "RetrievalScore",
    "Scope",
    "Similarity",
    "SlateRelative",
    "Trend",
]

Grouping = Literal["global", "item", "user", "user_item", "attribute", "user_attribute"]
Scope = Literal["global", "item", "user", "user_item", "request"]
_SCOPE_OF: dict[str, Scope] = {
    "global": "global",
    "item": "item",
    "user": "user",
    "user_item": "user_item",
    "attribute": "item",
    "user_attribute": "user_item",
}


@dataclass(frozen=True, kw_only=True)
class Definition:
    """What all definitions share.

    Attributes:
        name: the feature's column.
        default: what stands where there is no value. None: NaN.
    """

    name: str
    default: float | None = None

    def __post_init__(self) -> None:
        if not self.name:
            raise DataError("name must not be empty; give every definition its own name")

    @property
    def scope(self) -> Scope:
        """What the value depends on besides the moment; "request": the other candidates too."""
        return "request"

    def columns(self) -> tuple[str, ...]:
        """Columns that are read, as "item.year", "user.age", "request.score__x", "vectors.x"."""
        return ()


@dataclass(frozen=True, kw_only=True)
class _OfColumn(Definition):
    """A column of the item or the user table.

    Attributes:
        table: which table.
        column: which column.
    """

    table: Literal["item", "user"] = "item"
    column: str

    def __post_init__(self) -> None:
        super().__post_init__()
        _check_choice(self.name, "table", self.table, ("item", "user"))

    @property
    def scope(self) -> Scope:
        """What the value depends on besides the moment."""
        return self.table

    def columns(self) -> tuple[str, ...]:
        """Columns that are read."""
        return (f"{self.table}.{self.column}",)


@dataclass(frozen=True, kw_only=True)
class Field(_OfColumn):
    """A number as it stands in the item or user table; a null or an unknown id is missing."""


@dataclass(frozen=True, kw_only=True)
class Category(_OfColumn):
    """The code of a category: 1 for the first of ``values``, and so on; 0 for any other value.

    The values are part of the definition, so a code never changes its meaning when a table grows;
    append new values at the end.

    Attributes:
        values: the known values, as text.
    """

    values: tuple[str, ...]

    def __post_init__(self) -> None:
        super().__post_init__()
        if len(set(self.values)) != len(self.values):
            raise DataError(f"definition {self.name!r}: values must not repeat, got {self.values}")


@dataclass(frozen=True, kw_only=True)
class _OfEvents(Definition):
    """A statistic of a group of events.

    Attributes:
        by: the group, see the head of this file.
        column: the item column of an attribute group (category or list), otherwise None.
        event: only events of this kind. None: all.
    """

    by: Grouping = "item"
    column: str | None = None
    event: str | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        _check_choice(self.name, "by", self.by, get_args(Grouping))
        if (self.column is not None) != self.by.endswith("attribute"):
            raise DataError(
                f"definition {self.name!r}: column must be given for by='attribute' and "
                f"by='user_attribute' and for no other, got by={self.by!r} and "
                f"column={self.column!r}"
            )

    @property
    def scope(self) -> Scope:
        """What the value depends on besides the moment."""
        return _SCOPE_OF[self.by]

    def columns(self) -> tuple[str, ...]:
        """Columns that are read."""
        return () if self.column is None else (f"item.{self.column}",)


@dataclass(frozen=True, kw_only=True)
class _Windowed(_OfEvents):
    """A statistic of the events of a window.

    Attributes:
        window_days: only events of the last so many days. None: all.
    """

    window_days: float | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        _check_positive(self.name, "window_days", self.window_days)


@dataclass(frozen=True, kw_only=True)
class Count(_Windowed):
    """Number of events; 0 for an unknown id, missing for a candidate without attribute values.

    Attributes:
        weighted: the sum of the events' weights instead of their number.
        log: log(1 + value).
    """

    weighted: bool = False
    log: bool = False


@dataclass(frozen=True, kw_only=True)
class _Smoothed(_Windowed):
    """A mean pulled towards a prior: (sum + prior_count * prior) / (count + prior_count).

    Attributes:
        prior: the prior mean. None: the mean of all events of the same kind and window for the
            item and attribute groups, of the user's events for user_item and user_attribute; not
            allowed for user, whose features must be computable from the user's own events.
        prior_count: how many events the prior is worth; 0: no smoothing, missing without events.
    """

    prior: float | None = None
    prior_count: float = 10.0

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.prior_count >= 0:
            raise DataError(
                f"definition {self.name!r}: prior_count must be >= 0, got {self.prior_count}"
            )
        if self.by == "user" and self.prior is None and self.prior_count > 0:
            raise DataError(
                f"definition {self.name!r}: prior must be a number for by='user', got None; a "
                "live request sees only the user's own events (or set prior_count = 0)"
            )


@dataclass(frozen=True, kw_only=True)
class Rate(_Smoothed):
    """Share of the events whose weight is at least ``threshold``, smoothed.

    Attributes:
        threshold: the smallest weight that counts.
    """

    threshold: float


@dataclass(frozen=True, kw_only=True)
class MeanWeight(_Smoothed):
    """Mean weight of the events, smoothed."""


@dataclass(frozen=True, kw_only=True)
class Recency(_OfEvents):
    """Time since the last event; missing without one.

    Attributes:
        unit: "s" seconds, or "log_days" log(1 + days).
    """

    unit: Literal["s", "log_days"] = "log_days"

    def __post_init__(self) -> None:
        super().__post_init__()
        _check_choice(self.name, "unit", self.unit, ("s", "log_days"))


@dataclass(frozen=True, kw_only=True)
class Age(_OfEvents):
    """Time since the first event, or years since the year in a column of the item table.

    Attributes:
        unit: as `Recency`; for events only.
        year_column: item column of a year; the value is the moment's year minus it, and ``by``
            stays "item". None: since the first event.
    """

    unit: Literal["s", "log_days"] = "log_days"
    year_column: str | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        _check_choice(self.name, "unit", self.unit, ("s", "log_days"))
        if self.year_column is not None and self.by != "item":
            raise DataError(
                f"definition {self.name!r}: by must be 'item' with a year_column, got {self.by!r}"
            )

    def columns(self) -> tuple[str, ...]:
        """Columns that are read."""
        return super().columns() if self.year_column is None else (f"item.{self.year_column}",)


@dataclass(frozen=True, kw_only=True)
class Trend(_OfEvents):
    """Events in a short window over events in a long one, 0..1; missing if both are empty.

    Attributes:
        short_days: the short window.
        long_days: the long window, which ends at the same moment.
    """

    short_days: float
    long_days: float

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 < self.short_days < self.long_days:
            raise DataError(
                f"definition {self.name!r}: windows must be 0 < short_days < long_days, got "
                f"{self.short_days} and {self.long_days}"
            )


@dataclass(frozen=True, kw_only=True)
class _OfHistory(Definition):
    """The user's events against the candidate.

    Attributes:
        event: only events of this kind. None: all.
    """

    event: str | None = None

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

    column: str
    how: Literal["mean", "any"] = "mean"
    last: int | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        _check_choice(self.name, "how", self.how, ("mean", "any"))
        _check_positive(self.name, "last", self.last)
        if self.how == "any" and self.last is None:
            raise DataError(
                f"definition {self.name!r}: last must be a number for how='any', got None; every "
                "candidate is compared with every event"
            )

    def columns(self) -> tuple[str, ...]:
        """Columns that are read."""
        return (f"item.{self.column}",)


@dataclass(frozen=True, kw_only=True)
class LastNOverlap(_OfHistory):
    """Mean Jaccard overlap of attribute values between the candidate and the user's last items.

    Missing without events and for a candidate without values.

    Attributes:
        column: the item column (category or list).
        last: the user's newest so many events.
    """

    column: str
    last: int = 10

    def __post_init__(self) -> None:
        super().__post_init__()
        _check_positive(self.name, "last", self.last)

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

    vectors: str
    last: int = 20

    def __post_init__(self) -> None:
        super().__post_init__()
        _check_positive(self.name, "last", self.last)

    def columns(self) -> tuple[str, ...]:
        """Columns that are read."""
        return (f"vectors.{self.vectors}",)


@dataclass(frozen=True, kw_only=True)
class HourOfDay(Definition):
    """Hour of the moment, UTC, 0..24 with its fraction."""


@dataclass(frozen=True, kw_only=True)
class DayOfWeek(Definition):
    """Day of the moment, UTC: 0 Monday .. 6 Sunday."""


@dataclass(frozen=True, kw_only=True)
class RetrievalScore(Definition):
    """The score a retriever gave the candidate: the request column ``score__<retriever>``.

    Attributes:
        retriever: name of the retriever.
    """

    retriever: str

    def columns(self) -> tuple[str, ...]:
        """Columns that are read."""
        return (f"request.score__{self.retriever}",)


@dataclass(frozen=True, kw_only=True)
class RetrievalRank(Definition):
    """The candidate's rank with a retriever: the request column ``rank__<retriever>``.

    Attributes:
        retriever: name of the retriever.
    """

    retriever: str

    def columns(self) -> tuple[str, ...]:
        """Columns that are read."""
        return (f"request.rank__{self.retriever}",)


@dataclass(frozen=True, kw_only=True)
class SlateRelative(Definition):
    """Another feature compared with the other candidates of the same request.

    Attributes:
        of: name of the other feature, itself not relative.
        how: "minus_mean": minus the mean over the request; "rank": average rank from below, as a
            fraction (rank - 1/2) / n in 0..1. Missing values take no part.
    """

    of: str
    how: Literal["minus_mean", "rank"] = "rank"

    def __post_init__(self) -> None:
        super().__post_init__()
        _check_choice(self.name, "how", self.how, ("minus_mean", "rank"))


def _check_choice(name: str, argument: str, value: str, allowed: tuple[str, ...]) -> None:
    if value not in allowed:
        known = ", ".join(allowed)
        raise DataError(f"definition {name!r}: {argument} must be one of {known}; got {value!r}")


def _check_positive(name: str, argument: str, value: float | None) -> None:
    if value is not None and not value > 0:
        raise DataError(f"definition {name!r}: {argument} must be > 0, got {value}")
