"""Jobs and processes around the models: the store, the request path, HTTP, the command line.

Public names are loaded on first use, so that importing this package (which `recsys --help` does)
costs nothing.
"""

from __future__ import annotations

import importlib
from typing import Any

_HOME = {
    "BundledPopular": "serving.request.snapshot",
    "CandidateList": "serving.store.candidate_codec",
    "EmbeddedStore": "serving.connection.embedded",
    "Event": "serving.messages",
    "ExplainRequest": "serving.messages",
    "GenerationStore": "serving.store.generations",
    "LiveModel": "serving.models.live",
    "RankRequest": "serving.messages",
    "RecommendRequest": "serving.messages",
    "RecommendationService": "serving.request.service",
    "Recommendations": "serving.messages",
    "ServiceSettings": "serving.request.settings",
    "ServingError": "serving.errors",
    "SimilarRequest": "serving.messages",
    "connect": "serving.connection.clients",
    "create_app": "serving.http.app",
    "redact": "serving.connection.clients",
    "vectors_of_field": "serving.request.slate_rule",
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
