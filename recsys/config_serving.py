"""The section of the configuration that concerns the process that answers."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from recsys.config_base import Count, Positive, Section

__all__ = ["ServingConfig"]


class ServingConfig(Section):
    """The HTTP process."""

    host: str = "127.0.0.1"
    port: Annotated[int, Field(ge=0, le=65_535)] = 8080
    live: bool = True  # answer requests that say what the user just did from the model itself
    deadline_s: Positive = 0.5  # of one request
    live_timeout_s: Positive = 0.3  # of the model within that
    store_timeout_s: Positive = 0.2  # of one read of the store
    head_ttl_s: Positive = 1.0  # how long a process may go on serving after a flip
    max_in_flight: Count = 32  # requests worked on at once
    near_cache_mb: Annotated[float, Field(ge=0)] = 64.0  # of item rows in memory; 0: none
