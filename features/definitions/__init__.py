"""What a feature is: the kinds a user can declare, and what fits together.

Imports `tables`; may be imported from everywhere else.
"""

from __future__ import annotations

from features.definitions.columns import (
    Category,
    DayOfWeek,
    Definition,
    Difference,
    Field,
    HourOfDay,
    ListContains,
    ListSize,
    Position,
    RetrievalRank,
    RetrievalScore,
    SlateRelative,
    TextMatch,
    VectorComponent,
)
from features.definitions.events import (
    Age,
    Count,
    Interval,
    MeanWeight,
    Rate,
    Recency,
    Trend,
    UniqueCount,
)
from features.definitions.history import (
    Affinity,
    BasketShare,
    LastNOverlap,
    Session,
    Similarity,
)
from features.definitions.sets import default_definitions

__all__ = [
    "Affinity",
    "Age",
    "BasketShare",
    "Category",
    "Count",
    "DayOfWeek",
    "Definition",
    "Difference",
    "Field",
    "HourOfDay",
    "Interval",
    "LastNOverlap",
    "ListContains",
    "ListSize",
    "MeanWeight",
    "Position",
    "Rate",
    "Recency",
    "RetrievalRank",
    "RetrievalScore",
    "Session",
    "Similarity",
    "SlateRelative",
    "TextMatch",
    "Trend",
    "UniqueCount",
    "VectorComponent",
    "default_definitions",
]
