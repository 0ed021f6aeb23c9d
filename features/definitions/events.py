"""Features that count events, each in a group.

"Events" are those strictly before the moment (and, where the log says when an event arrived, those
that had arrived by then). A window of d days holds the events of the last d days before it.

Events are looked at in groups (argument ``by``):

    global           all events
    item             events of the candidate
    user             events of the user
    user_item        events of the user with the candidate
    attribute        events of items that share a value of ``column`` with the candidate
    user_attribute   the same, of this user

For a candidate with several values (genres) the attribute groups take each value by itself and
then the mean over the values (Recency: the most recent, Age: the oldest).

A feature with a ``refresh_s`` is worked out at the multiples of it since 1970-01-01 UTC, offline
and online alike: at a moment it has the value of the last multiple at or before the moment. That
is what lets a store keep a window in as many buckets as it has refreshes, instead of all events.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal, get_args

from features.definitions.columns import Definition, Scope, check_choice, check_positive
from features.errors import DataError

__all__ = [
    "Age",
    "Count",
    "Grouping",
    "Interval",
    "MeanWeight",
    "Rate",
    "Recency",
    "Trend",
    "UniqueCount",
]

Grouping = Literal["global", "item", "user", "user_item", "attribute", "user_attribute"]
_SCOPE_OF: dict[str, Scope] = {
    "global": "global",
    "item": "item",
    "user": "user",
    "user_item": "user_item",
    "attribute": "item",
    "user_attribute": "user_item",
}
_DAY_S = 86_400


@dataclass(frozen=True, kw_only=True)
class _OfEvents(Definition):
    """A statistic of a group of events.

    Attributes:
        by: the group, see the head of this file.
        column: the item column of an attribute group (category or list), otherwise None.
        event: only events of this kind. None: all.
        refresh_s: seconds between two values, see the head of this file. 0: always current.
    """

    by: Grouping = "item"
    column: str | None = None
    event: str | None = None
    refresh_s: float = 0.0

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.refresh_s >= 0:
            raise DataError(
                f"definition {self.name!r}: refresh_s must be >= 0, got {self.refresh_s}"
            )
        check_choice(self.name, "by", self.by, get_args(Grouping))
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

    def _check_window(self, argument: str, days: float | None) -> None:
        check_positive(self.name, argument, days)
        if days is None or self.refresh_s == 0:
            return
        refreshes = days * _DAY_S / self.refresh_s
        if abs(refreshes - round(refreshes)) > 1e-9 * refreshes or refreshes < 0.5:
            raise DataError(
                f"definition {self.name!r}: {argument} must be a multiple of refresh_s, got "
                f"{days} days and {self.refresh_s} s; change one of them"
            )


@dataclass(frozen=True, kw_only=True)
class _Windowed(_OfEvents):
    """A statistic of the events of a window.

    Attributes:
        window_days: only events of the last so many days. None: all.
    """

    window_days: float | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        self._check_window("window_days", self.window_days)


@dataclass(frozen=True, kw_only=True)
class Count(_Windowed):
    """Number of events; 0 for an unknown id, missing for a candidate without attribute values.

    Attributes:
        weighted: the sum of the events' weights instead of their number.
        log: log(1 + value).
    """

    kind: ClassVar[str] = "count"

    weighted: bool = False
    log: bool = False


@dataclass(frozen=True, kw_only=True)
class UniqueCount(_Windowed):
    """Number of different users, items, baskets or attribute values of the events; 0 without any.

    Attributes:
        of: "user", "item", "basket" (what one user did at one time), or an item column (category
            or list).
        log: log(1 + value).
    """

    kind: ClassVar[str] = "unique_count"

    of: str
    log: bool = False

    def columns(self) -> tuple[str, ...]:
        """Columns that are read."""
        of_column = self.of not in ("user", "item", "basket")
        return super().columns() + ((f"item.{self.of}",) if of_column else ())


@dataclass(frozen=True, kw_only=True)
class _Smoothed(_OfEvents):
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
class Rate(_Smoothed, _Windowed):
    """Share of the events whose weight is at least ``threshold``, smoothed.

    Attributes:
        threshold: the smallest weight that counts.
    """

    kind: ClassVar[str] = "rate"

    threshold: float


@dataclass(frozen=True, kw_only=True)
class MeanWeight(_Smoothed, _Windowed):
    """Mean weight of the events, smoothed."""

    kind: ClassVar[str] = "mean_weight"


@dataclass(frozen=True, kw_only=True)
class Interval(_Smoothed):
    """How long it takes users to come back to an item: log(1 + mean days), smoothed.

    The mean is over the times between two events of one user with one item that follow each other:
    the time from the first to the last, over the number of events less one.

    Attributes:
        prior: the prior mean, in days.
    """

    kind: ClassVar[str] = "interval"


@dataclass(frozen=True, kw_only=True)
class Recency(_OfEvents):
    """Time since the last event; missing without one.

    Attributes:
        ttl_days: missing also when the last event is older. None: never.
        unit: "s" seconds, or "log_days" log(1 + days).
    """

    kind: ClassVar[str] = "recency"

    unit: Literal["s", "log_days"] = "log_days"
    ttl_days: float | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        check_choice(self.name, "unit", self.unit, ("s", "log_days"))
        check_positive(self.name, "ttl_days", self.ttl_days)


@dataclass(frozen=True, kw_only=True)
class Age(_OfEvents):
    """Time since the first event, or years since the year in a column of the item table.

    Attributes:
        unit: as `Recency`; for events only.
        year_column: item column of a year; the value is the moment's year minus it, and ``by``
            stays "item". None: since the first event.
    """

    kind: ClassVar[str] = "age"

    unit: Literal["s", "log_days"] = "log_days"
    year_column: str | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        check_choice(self.name, "unit", self.unit, ("s", "log_days"))
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

    kind: ClassVar[str] = "trend"

    short_days: float
    long_days: float

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 < self.short_days < self.long_days:
            raise DataError(
                f"definition {self.name!r}: windows must be 0 < short_days < long_days, got "
                f"{self.short_days} and {self.long_days}"
            )
        self._check_window("short_days", self.short_days)
        self._check_window("long_days", self.long_days)
