"""What a feature is: the kinds a user can declare, and what fits together.

Imports `tables`; may be imported from everywhere else.
"""

from __future__ import annotations

from features.definitions.columns import (
    Category,
    DayOfWeek,
    Definition,
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
from features.definitions.events import Age, Count, MeanWeight, Rate, Recency, Trend, UniqueCount
from features.definitions.history import Affinity, LastNOverlap, Session, Similarity
from features.definitions.sets import default_definitions

__all__ = [
    "Affinity",
    "Age",
    "Category",
    "Count",
    "DayOfWeek",
    "Definition",
    "Field",
    "HourOfDay",
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
