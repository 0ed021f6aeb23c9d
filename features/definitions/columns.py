"""What a feature is, declared once; `features.computation` and `features.online` compute it.

Every definition speaks of one row: a user, a candidate item and a moment. This module holds the
kinds that read tables, vectors and the request; `features.definitions.events` those that count
events, `features.definitions.history` those that compare with the user's last items.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal
from zoneinfo import ZoneInfo

from features.errors import DataError

__all__ = [
    "Category",
    "DayOfWeek",
    "Definition",
    "Difference",
    "Field",
    "HourOfDay",
    "ListContains",
    "ListSize",
    "Position",
    "RetrievalRank",
    "RetrievalScore",
    "Scope",
    "SlateRelative",
    "TextMatch",
    "VectorComponent",
    "check_choice",
    "check_positive",
]

Scope = Literal["global", "item", "user", "user_item", "request"]


@dataclass(frozen=True, kw_only=True)
class Definition:
    """What all definitions share.

    Attributes:
        name: the feature's column.
        default: what stands where there is no value. None: NaN.
        kind: what a declaration calls it; a key of `features.computation.kinds.KINDS`.
    """

    kind: ClassVar[str]

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

    @property
    def made_of(self) -> dict[str, str]:
        """By argument the name of another definition; the value is made of the values of these."""
        return {}


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
        check_choice(self.name, "table", self.table, ("item", "user"))

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

    kind: ClassVar[str] = "field"


@dataclass(frozen=True, kw_only=True)
class Category(_OfColumn):
    """The code of a category: 1 for the first of ``values``, and so on; 0 for any other value.

    The values are part of the definition, so a code never changes its meaning when a table grows;
    append new values at the end.

    Attributes:
        values: the known values, as text.
    """

    kind: ClassVar[str] = "category"

    values: tuple[str, ...]

    def __post_init__(self) -> None:
        super().__post_init__()
        if len(set(self.values)) != len(self.values):
            raise DataError(f"definition {self.name!r}: values must not repeat, got {self.values}")


@dataclass(frozen=True, kw_only=True)
class ListSize(_OfColumn):
    """Number of values in a list column; missing for an unknown id."""

    kind: ClassVar[str] = "list_size"


@dataclass(frozen=True, kw_only=True)
class ListContains(_OfColumn):
    """1 if a list column holds a value, 0 if not; missing for an unknown id.

    Attributes:
        value: the value, as text.
    """

    kind: ClassVar[str] = "list_contains"

    value: str


@dataclass(frozen=True, kw_only=True)
class VectorComponent(Definition):
    """One component of the candidate's vector; missing without a vector.

    Attributes:
        vectors: the name of the vectors given to the computation.
        component: 0 .. D - 1.
    """

    kind: ClassVar[str] = "vector_component"

    vectors: str
    component: int

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.component < 0:
            raise DataError(
                f"definition {self.name!r}: component must be >= 0, got {self.component}; the "
                "first one is 0"
            )

    @property
    def scope(self) -> Scope:
        """What the value depends on besides the moment."""
        return "item"

    def columns(self) -> tuple[str, ...]:
        """Columns that are read."""
        return (f"vectors.{self.vectors}",)


@dataclass(frozen=True, kw_only=True)
class _OfClock(Definition):
    """What a clock shows at the moment.

    Attributes:
        zone: name of the time zone, as "Europe/Berlin".
        zone_column: column of the user table with such names; ``zone`` stands in for a user
            without one. None: ``zone`` for everybody.
    """

    zone: str = "UTC"
    zone_column: str | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        try:
            ZoneInfo(self.zone)
        except (KeyError, ValueError, OSError) as error:
            raise DataError(
                f"definition {self.name!r}: zone must be the name of a time zone such as "
                f"'Europe/Berlin', got {self.zone!r}"
            ) from error

    def columns(self) -> tuple[str, ...]:
        """Columns that are read."""
        return () if self.zone_column is None else (f"user.{self.zone_column}",)


@dataclass(frozen=True, kw_only=True)
class HourOfDay(_OfClock):
    """Hour of the moment, 0..24 with its fraction."""

    kind: ClassVar[str] = "hour_of_day"


@dataclass(frozen=True, kw_only=True)
class DayOfWeek(_OfClock):
    """Day of the moment: 0 Monday .. 6 Sunday."""

    kind: ClassVar[str] = "day_of_week"


@dataclass(frozen=True, kw_only=True)
class Position(Definition):
    """Where the candidate was shown: the request column ``position`` of a logged slate.

    A live request has no position yet, so every candidate gets the same ``online`` value there: a
    ranker then learns what position explains and cannot use it.

    Attributes:
        online: the value in a live request.
    """

    kind: ClassVar[str] = "position"

    online: float = 0.0

    def columns(self) -> tuple[str, ...]:
        """Columns that are read."""
        return ("request.position",)


@dataclass(frozen=True, kw_only=True)
class TextMatch(Definition):
    """BM25 of a text column of the candidate against the text of the request.

    Words are runs of letters and digits, lower case. With n_w of N items holding the word w, f of
    it in this item's text of length L words (mean length M):

        sum over the request's words of log(1 + (N - n_w + 1/2) / (n_w + 1/2))
            * f (k1 + 1) / (f + k1 (1 - b + b L / M))

    0 without a shared word; missing for an unknown item or a null text of the request.

    Attributes:
        column: text column of the item table.
        query: request column that holds the text.
        k1: how soon repetitions of a word stop to count.
        b: how much long texts are held back, 0..1.

    Source: Robertson, Zaragoza. The Probabilistic Relevance Framework: BM25 and Beyond. 2009.
    """

    kind: ClassVar[str] = "text_match"

    column: str
    query: str = "query"
    k1: float = 1.2
    b: float = 0.75

    def __post_init__(self) -> None:
        super().__post_init__()
        check_positive(self.name, "k1", self.k1)
        if not 0 <= self.b <= 1:
            raise DataError(f"definition {self.name!r}: b must be 0..1, got {self.b}")

    def columns(self) -> tuple[str, ...]:
        """Columns that are read."""
        return (f"item.{self.column}", f"request.{self.query}")


@dataclass(frozen=True, kw_only=True)
class RetrievalScore(Definition):
    """The score a retriever gave the candidate: the request column ``score__<retriever>``.

    Attributes:
        retriever: name of the retriever.
    """

    kind: ClassVar[str] = "retrieval_score"

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

    kind: ClassVar[str] = "retrieval_rank"

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

    kind: ClassVar[str] = "slate_relative"

    of: str
    how: Literal["minus_mean", "rank"] = "rank"

    def __post_init__(self) -> None:
        super().__post_init__()
        check_choice(self.name, "how", self.how, ("minus_mean", "rank"))

    @property
    def made_of(self) -> dict[str, str]:
        """The other feature."""
        return {"of": self.of}


@dataclass(frozen=True, kw_only=True)
class Difference(Definition):
    """One feature less another one of the same row; missing where either is.

    Of two times in log(1 + days), as `Recency` and `Interval` are, it is the logarithm of their
    ratio: how due an item is.

    Attributes:
        of: name of a feature that is made of no other.
        minus: name of another such feature.
    """

    kind: ClassVar[str] = "difference"

    of: str
    minus: str

    @property
    def made_of(self) -> dict[str, str]:
        """Both features."""
        return {"of": self.of, "minus": self.minus}


def check_choice(name: str, argument: str, value: str, allowed: tuple[str, ...]) -> None:
    """Refuse a value that is none of the allowed ones."""
    if value not in allowed:
        known = ", ".join(allowed)
        raise DataError(f"definition {name!r}: {argument} must be one of {known}; got {value!r}")


def check_positive(name: str, argument: str, value: float | None) -> None:
    """Refuse a number that is not positive; None is fine."""
    if value is not None and not value > 0:
        raise DataError(f"definition {name!r}: {argument} must be > 0, got {value}")
