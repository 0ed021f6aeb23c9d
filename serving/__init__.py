"""Jobs and processes around the models: the store, the request path, HTTP, the command line.

Public names are loaded on first use, so that importing this package (which `recsys --help` does)
costs nothing.
"""

from __future__ import annotations

from features.lazy import lazy_names

_HOME = {
    "BundledPopular": "serving.request.snapshot",
    "CandidateList": "serving.store.candidate_codec",
    "EmbeddedStore": "serving.connection.embedded",
    "Event": "serving.messages",
    "ExplainRequest": "serving.messages",
    "GenerationStore": "serving.store",
    "LiveModel": "serving.models.live",
    "RankRequest": "serving.messages",
    "RecommendRequest": "serving.messages",
    "RecommendationService": "serving.request.service",
    "Recommendations": "serving.messages",
    "ServiceSettings": "recsys.config.serving",
    "ServingError": "serving.errors",
    "SimilarRequest": "serving.messages",
    "connect": "serving.connection",
    "create_app": "serving.http.app",
    "redact": "serving.connection",
    "vectors_of_field": "serving.request.slate_rule",
}

__all__ = sorted(_HOME)  # pyright: ignore[reportUnsupportedDunderAll]

__getattr__, __dir__ = lazy_names(__name__, _HOME)
