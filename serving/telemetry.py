"""Counts for Prometheus and one structured log line a request, neither with user content."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

if TYPE_CHECKING:
    from features.near_cache import NearCacheStats

__all__ = ["CONTENT_TYPE", "Telemetry", "log_request"]

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
_BUCKETS_S = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5)
_requests = logging.getLogger("serving.request")


class Telemetry:
    """The metrics of one process, in a registry of their own.

    Labels are route templates, status codes and fixed names, never ids, so their number is
    bounded.
    """

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self._requests = Counter(
            "recsys_requests",
            "Requests answered.",
            ["route", "status", "source"],
            registry=self.registry,
        )
        self._latency = Histogram(
            "recsys_request_seconds",
            "Time from the request to its answer.",
            ["route"],
            buckets=_BUCKETS_S,
            registry=self.registry,
        )
        self._fallbacks = Counter(
            "recsys_fallbacks",
            "Answers that did not come from the first stage.",
            ["source", "reason"],
            registry=self.registry,
        )
        self._errors = Counter(
            "recsys_stage_errors",
            "Failed calls that a fallback hid.",
            ["stage", "kind"],
            registry=self.registry,
        )
        self._in_flight = Gauge(
            "recsys_requests_in_flight", "Requests being answered.", registry=self.registry
        )
        self._near_cache: _NearCacheCollector | None = None

    def request_started(self) -> None:
        """Count a request in."""
        self._in_flight.inc()

    def request_done(self, route: str, status: int, source: str, seconds: float) -> None:
        """Count a request out.

        Args:
            route: the route's template, or ``unmatched``.
            status: HTTP status.
            source: stage that gave the answer, empty for other routes.
            seconds: from the request to its answer.
        """
        self._in_flight.dec()
        self._requests.labels(route, str(status), source).inc()
        self._latency.labels(route).observe(seconds)

    def fallback(self, source: str, reason: str) -> None:
        """Count an answer that did not come from the first stage."""
        self._fallbacks.labels(source, reason).inc()

    def stage_error(self, stage: str, kind: str) -> None:
        """Count a failure that a fallback hid."""
        self._errors.labels(stage, kind).inc()

    def watch_near_cache(self, stats: Callable[[], NearCacheStats]) -> None:
        """Show a near cache's counters, read when the metrics are.

        Args:
            stats: gives them. Of several calls the last one counts.
        """
        if self._near_cache is not None:
            self.registry.unregister(self._near_cache)
        self._near_cache = _NearCacheCollector(stats)
        self.registry.register(self._near_cache)

    def exposition(self) -> bytes:
        """All metrics in Prometheus' text format."""
        return generate_latest(self.registry)


class _NearCacheCollector(Collector):
    def __init__(self, stats: Callable[[], NearCacheStats]) -> None:
        self._stats = stats

    def collect(self) -> Iterator[Metric]:
        stats = self._stats()
        for name, text, value in (
            ("hits", "Item rows answered from memory.", stats.hits),
            ("misses", "Item rows that were fetched.", stats.misses),
            ("evicted", "Item rows taken out to make room.", stats.evicted),
        ):
            yield CounterMetricFamily(f"recsys_near_cache_{name}", text, value=value)
        yield GaugeMetricFamily("recsys_near_cache_rows", "Item rows in memory.", value=stats.rows)
        yield GaugeMetricFamily(
            "recsys_near_cache_bytes", "Memory of the item rows.", value=stats.bytes
        )


def log_request(**fields: object) -> None:
    """Write one JSON line; the caller passes no ids of users or items."""
    if _requests.isEnabledFor(logging.INFO):
        _requests.info("%s", json.dumps(fields, sort_keys=True))
