"""The settings of the process that answers, and of the request path in it."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from recsys.config.sections import SlateOptions
from recsys.settings import Count, Natural, NonNegative, Positive, Settings

__all__ = ["HttpOptions", "RequestSettings", "ServiceSettings", "ServingConfig"]


class RequestSettings(Settings):
    """Limits and defaults of the request path; all times in seconds."""

    head_ttl_s: Positive = 1.0
    """How long the answer to "which generation?" is reused, so how long after a flip a process may
    still serve the old one."""
    retry_after_s: Positive = 0.5
    """After a failed call the store is left alone for this long."""
    deadline_s: Positive = 0.5
    """Of one request; stages that would start later are skipped."""
    live_timeout_s: Positive = 0.3
    """Of one call of the model within that."""
    live_workers: Count = 1
    """Calls of a model at once; further ones wait for their turn."""
    rerank: Literal["never", "fresh", "always"] = "fresh"
    """When the model ranks a user's list again: never, when the user did something that the list
    does not know, or always."""
    moment: Literal["published", "now"] = "published"
    """When a request counts as asked: as of the end of the model's log, so that a log that ended
    long ago is served as if it were that day, or by the clock. What the user is known to have done
    since moves it on in either case."""
    slate_pool: Count = 50
    """Candidates considered by a diverse slate, at least."""
    remembered_users: Natural = 10_000
    """Lists kept in process for when the store is away."""
    near_cache_mb: NonNegative = 64.0
    """Of packed item rows kept in process; 0: every request asks the store."""

    @property
    def near_cache_bytes(self) -> int:
        """The same in bytes."""
        return round(self.near_cache_mb * 1e6)


class ServiceSettings(RequestSettings, SlateOptions):
    """How a `serving.RecommendationService` behaves."""


class HttpOptions(Settings):
    """How much one process takes on at once."""

    max_in_flight: Count = 32
    """Requests worked on at once, in one process."""
    max_waiting: Natural = 64
    """Requests that wait for one of those places."""


class ServingConfig(RequestSettings, HttpOptions):
    """The HTTP processes, and what they do for a request beyond reading the user's list."""

    host: str = "127.0.0.1"
    """Address to listen on."""
    port: Annotated[int, Field(ge=0, le=65_535)] = 8080
    """Port to listen on; 0: any free one."""
    workers: Count = 1
    """Processes that answer on the one port."""
    pin_workers: bool = False
    """Each of several processes on a processor of its own."""
    live: bool = True
    """Answer requests that say what the user just did from the model itself."""
    live_models: Annotated[int, Field(ge=1, le=8)] = 2
    """Models kept at once: served, previous, pinned."""
    sessions: bool = True
    """Remember what users just did between requests."""
    session_events: Count = 50
    """Events kept of one user, the newest."""
    session_days: Positive = 7.0
    """Days they are kept after the last one."""
    update_features: bool = False
    """Whether a process beside the workers folds events into running features."""
    store_timeout_s: Positive = 0.2
    """Of one read of the store."""
    warm_up_s: NonNegative = 10.0
    """Replaying questions before ready, at most; 0: none."""
    drain_s: NonNegative = 5.0
    """Not ready, still answering, before the socket closes."""
    client_timeout_s: Positive = 10.0
    """For a client to send its request and to read its answer."""
    slow_request_s: Positive = 0.25
    """Slower requests get a log line with their stages."""
    log_format: Literal["text", "json"] = "text"
    """Form of the log's lines."""
    metrics: bool = True
    """Whether GET /metrics answers."""
    admin: bool = False
    """Hide items, add items, flip, roll back over HTTP; asks for a key as well."""
