"""What a bundle holds, in one line each: its features and its towers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

__all__ = ["features_line", "towers_line"]


def features_line(features: Mapping[str, Any]) -> str:
    """How many features a ranker has, and where their definitions stand.

    >>> features_line({"source": "features.toml", "own": ["age", "year"], "added": ["rank__als"]})
    '3 features: 2 of features.toml, 1 of retrieval'
    """
    own, added = len(features["own"]), len(features["added"])
    source = "defaults" if features["source"] == "defaults" else f"of {features['source']}"
    parts = [f"{own} {source}", *([f"{added} of retrieval"] if added else [])]
    return f"{own + added} features: {', '.join(parts)}"


def towers_line(towers: Mapping[str, Any]) -> str:
    """How the vectors of a bundle's towers are compared, in words.

    >>> towers_line({"score": "dot", "dim": 64, "pooling": "recency", "user_table": False})
    'served by dot product, 64 dimensions, pooling recency, users from their history alone'
    """
    score = {"cosine": "cosine", "dot": "dot product"}[towers["score"]]
    users = (
        "users with a row of their own"
        if towers["user_table"]
        else ("users from their history alone")
    )
    return f"served by {score}, {towers['dim']} dimensions, pooling {towers['pooling']}, {users}"
