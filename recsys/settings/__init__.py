"""How settings are declared and checked, and how a refused one is told.

Imports no other folder; may be imported from everywhere in `recsys` and `serving`.
"""

from __future__ import annotations

from recsys.settings.base import (
    Closed01,
    Count,
    HalfOpen01,
    Name,
    Natural,
    NonNegative,
    Open01,
    Positive,
    Searched,
    Settings,
    Share,
    check_distinct,
)
from recsys.settings.messages import explain
from recsys.settings.one_of import OneOf

__all__ = [
    "Closed01",
    "Count",
    "HalfOpen01",
    "Name",
    "Natural",
    "NonNegative",
    "OneOf",
    "Open01",
    "Positive",
    "Searched",
    "Settings",
    "Share",
    "check_distinct",
    "explain",
]
