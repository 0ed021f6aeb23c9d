"""What `recsys train` prints of the bundle it made, and how a bundle's towers are told."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from serving.cli.output import Output

if TYPE_CHECKING:
    from recsys.bundle.bundle import Bundle

__all__ = ["emit_trained", "features_line", "towers_line"]

NOISE = "retrieval/noise.parquet"


def emit_trained(out: Output, bundle: Bundle, shown: str, seconds: float) -> None:
    """Print a finished bundle.

    Args:
        out: where to.
        bundle: what was made.
        shown: its path for people.
        seconds: it took.
    """
    towers, lineage = bundle.towers(), bundle.manifest.lineage
    features = bundle.features()
    lines = [f"bundle {bundle.id} in {seconds:.1f} s: {shown}"]
    if lineage:
        lines.append("continues " + ", ".join(f"{name} ({how})" for how, name in lineage.items()))
    if towers is not None:
        lines.append(f"towers: {towers_line(towers)}")
    if features is not None:
        lines.append(f"ranker: {features_line(features)}")
    noise = bundle.path / NOISE
    if noise.is_file():
        lines.append(f"noise of every training event: {shown}/{NOISE}; sort it by falling noise")
    out.emit(
        {
            "bundle": bundle.id,
            "path": str(bundle.path),
            "seconds": round(seconds, 2),
            "lineage": dict(lineage),
            "towers": towers,
            "features": features,
            "noise": str(noise) if noise.is_file() else None,
            "metrics": bundle.manifest.metrics,
        },
        "\n".join(lines),
    )


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
