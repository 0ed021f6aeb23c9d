"""Jobs and processes around the models: the store, the request path, HTTP, the command line.

Public names are loaded on first use, so that importing this package (which `recsys --help` does)
costs nothing.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from features.lazy import lazy_names

if TYPE_CHECKING:
    from recsys.config.serving import ServiceSettings
    from serving.connection import connect, redact
    from serving.connection.embedded import EmbeddedStore
    from serving.errors import ServingError
    from serving.http.app import create_app
    from serving.messages import (
        Event,
        ExplainRequest,
        RankRequest,
        Recommendations,
        RecommendRequest,
        SimilarRequest,
    )
    from serving.models.live import LiveModel
    from serving.request.service import RecommendationService
    from serving.request.slate_rule import vectors_of_field
    from serving.request.snapshot import BundledPopular
    from serving.store import GenerationStore
    from serving.store.candidate_codec import CandidateList

__all__ = [
    "BundledPopular",
    "CandidateList",
    "EmbeddedStore",
    "Event",
    "ExplainRequest",
    "GenerationStore",
    "LiveModel",
    "RankRequest",
    "RecommendRequest",
    "RecommendationService",
    "Recommendations",
    "ServiceSettings",
    "ServingError",
    "SimilarRequest",
    "connect",
    "create_app",
    "redact",
    "vectors_of_field",
]

__getattr__, __dir__ = lazy_names(__name__, __file__)
