"""The section of the configuration that concerns the process that answers."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from recsys.config.base import Count, Natural, NonNegative, Positive, Section

__all__ = ["ServingConfig"]


class ServingConfig(Section):
    """The HTTP processes, and what they do for a request beyond reading the user's list."""

    host: str = "127.0.0.1"
    port: Annotated[int, Field(ge=0, le=65_535)] = 8080
    workers: Count = 1  # processes that answer on the one port
    live: bool = True  # answer requests that say what the user just did from the model itself
    pin_workers: bool = False  # each of several processes on a processor of its own
    live_models: Annotated[int, Field(ge=1, le=8)] = 2  # kept at once: served, previous, pinned
    rerank: Literal["never", "fresh", "always"] = "fresh"  # the user's list by the model again
    moment: Literal["published", "now"] = "published"  # as of when a request is answered
    sessions: bool = True  # remember what users just did between requests
    session_events: Count = 50  # of one user, the newest
    session_days: Positive = 7.0  # after the last event
    update_features: bool = False  # a process beside the workers folds events into features
    deadline_s: Positive = 0.5  # of one request
    live_timeout_s: Positive = 0.3  # of the model within that
    store_timeout_s: Positive = 0.2  # of one read of the store
    head_ttl_s: Positive = 1.0  # how long a process may go on serving after a flip
    max_in_flight: Count = 32  # requests worked on at once, in one process
    max_waiting: Natural = 64  # requests that wait for one of those places
    near_cache_mb: NonNegative = 64.0  # of item rows in memory; 0: none
    warm_up_s: NonNegative = 10.0  # replaying questions before ready, at most; 0: none
    drain_s: NonNegative = 5.0  # not ready, still answering, before the socket closes
    client_timeout_s: Positive = 10.0  # for a client to send its request and to read its answer
    slow_request_s: Positive = 0.25  # slower ones get a log line with their stages
    log_format: Literal["text", "json"] = "text"
    metrics: bool = True  # GET /metrics
    admin: bool = False  # hide items, add items, flip, roll back; asks for a key as well
