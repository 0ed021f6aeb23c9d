"""Limits and defaults of the request path; all times in seconds."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Literal

__all__ = ["RERANK", "ServiceSettings"]

RERANK = ("never", "fresh", "always")


@dataclass(frozen=True, slots=True)
class ServiceSettings:
    """How `RecommendationService` behaves.

    Attributes:
        head_ttl_s: how long the answer to "which generation?" is reused, so how long after a flip
            a process may still serve the old one.
        retry_after_s: after a failed call the store is left alone for this long.
        deadline_s: of one request; stages that would start later are skipped.
        live_timeout_s: of one call of the model within that.
        live_workers: calls of a model at once; further ones wait for their turn.
        rerank: when the model ranks a user's list again: never, when the user did something that
            the list does not know ("fresh"), or always.
        moment: when a request counts as asked: as of the end of the model's log ("published"), so
            that a log that ended long ago is served as if it were that day, or by the clock
            ("now"). What the user is known to have done since moves it on in either case.
        diversity: used where a request does not say, 0 (by score alone) to 1.
        slate_pool: candidates considered by a diverse slate, at least.
        remembered_users: lists kept in process for when the store is away.
        near_cache_bytes: of packed item rows kept in process; 0: every request asks the store.
    """

    head_ttl_s: float = 1.0
    retry_after_s: float = 0.5
    deadline_s: float = 0.5
    live_timeout_s: float = 0.3
    live_workers: int = 1
    rerank: Literal["never", "fresh", "always"] = "fresh"
    moment: Literal["published", "now"] = "published"
    diversity: float = 0.0
    slate_pool: int = 50
    remembered_users: int = 10_000
    near_cache_bytes: int = 64_000_000

    def __post_init__(self) -> None:
        for name, choices in (("rerank", RERANK), ("moment", ("published", "now"))):
            if getattr(self, name) not in choices:
                raise ValueError(
                    f"{name} must be one of {', '.join(choices)}, got {getattr(self, name)!r}"
                )
        for field in fields(self):
            value = getattr(self, field.name)
            if field.name in ("rerank", "moment"):
                continue
            if field.name == "diversity":
                if not 0.0 <= value <= 1.0:
                    raise ValueError(f"diversity must be in 0..1, got {value}")
            elif field.name in ("remembered_users", "near_cache_bytes"):
                if value < 0:
                    raise ValueError(f"{field.name} must be >= 0, got {value}")
            elif value <= 0:
                raise ValueError(f"{field.name} must be > 0, got {value}")
