"""Jobs and processes around the models: the store, the request path, HTTP, the command line.

Public names are loaded on first use, so that importing this package (which `recsys --help` does)
costs nothing.
"""

from __future__ import annotations

import importlib
from typing import Any

_HOME = {
    "BundledPopular": "serving.snapshot",
    "CandidateList": "serving.candidate_codec",
    "EmbeddedStore": "serving.embedded",
    "Event": "serving.messages",
    "ExplainRequest": "serving.messages",
    "GenerationStore": "serving.store",
    "LiveModel": "serving.live",
    "RankRequest": "serving.messages",
    "RecommendRequest": "serving.messages",
    "RecommendationService": "serving.service",
    "Recommendations": "serving.messages",
    "ServiceSettings": "serving.settings",
    "ServingError": "serving.errors",
    "SimilarRequest": "serving.messages",
    "connect": "serving.connection",
    "create_app": "serving.api",
    "redact": "serving.connection",
    "vectors_of_field": "serving.slates",
}

__all__ = sorted(_HOME)  # pyright: ignore[reportUnsupportedDunderAll]


def __getattr__(name: str) -> Any:
    """Import the module that holds ``name`` and return it."""
    try:
        home = _HOME[name]
    except KeyError:
        raise AttributeError(f"module 'serving' has no attribute {name!r}") from None
    value = getattr(importlib.import_module(home), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    """Names of the package, the ones not loaded yet included."""
    return sorted({*globals(), *_HOME})
