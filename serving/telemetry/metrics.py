"""Counts for Prometheus and one structured log line a request, neither with user content."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Protocol

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    ProcessCollector,
    generate_latest,
)
from prometheus_client.core import Metric
from prometheus_client.openmetrics import exposition as openmetrics
from prometheus_client.registry import Collector

from serving.telemetry.collectors import (
    Families,
    ModelsCollector,
    NearCacheCollector,
    ProportionalMemoryCollector,
    RowLogCollector,
    ServingCollector,
    ServingState,
)
from serving.telemetry.text_log import log_event

if TYPE_CHECKING:
    from features.packing.near_cache import NearCacheStats
    from serving.impressions.row_log import RowLogStats
    from serving.models.holder import ModelsStatus

__all__ = ["CONTENT_TYPE", "Telemetry", "log_request"]

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
_REQUEST_S = (
    *(0.001, 0.002, 0.003, 0.005, 0.0075, 0.01, 0.015, 0.02, 0.03, 0.05, 0.075, 0.1),
    *(0.15, 0.2, 0.3, 0.5, 1.0, 2.5),
)
_STAGE_S = (
    *(0.0001, 0.00025, 0.0005, 0.001, 0.002, 0.003, 0.005, 0.01, 0.02, 0.03, 0.05, 0.1),
    *(0.2, 0.3, 0.5),
)
_MOST_NAMES = 64  # of one label whose values come from code, not from a list
_requests = logging.getLogger("serving.access")


class SharedMetrics(Protocol):
    """Where the metrics of the other processes of this service are."""

    def gather(self, own: CollectorRegistry) -> list[Metric]:
        """The families of ``own`` and of the others, each sample labelled with its process."""
        ...


class Telemetry:
    """The metrics of one process, in a registry of their own.

    Labels are route templates, status codes and fixed names, never ids, so their number is
    bounded: of stages, sources, reasons and arms the first 64 are told apart and further ones are
    counted as ``other``.

    Args:
        slow_s: requests from here on leave their request id as an exemplar of their bucket, for
            scrapers that ask for OpenMetrics.
    """

    def __init__(self, *, slow_s: float = 0.25) -> None:
        self.registry = CollectorRegistry()
        self.shared: SharedMetrics | None = None
        self._slow_s = slow_s
        self._names: dict[str, set[str]] = {}
        self._watched: dict[str, Collector] = {}
        registry = self.registry
        self._requests = Counter(
            "recsys_requests",
            "Requests answered.",
            ["route", "status", "source"],
            registry=registry,
        )
        self._latency = Histogram(
            "recsys_request_seconds",
            "Time from the request to its answer.",
            ["route"],
            buckets=_REQUEST_S,
            registry=registry,
        )
        self._stages = Histogram(
            "recsys_stage_seconds",
            "Time in one stage of an answer.",
            ["stage"],
            buckets=_STAGE_S,
            registry=registry,
        )
        self._fallbacks = Counter(
            "recsys_fallbacks",
            "Answers that did not come from the first stage.",
            ["source", "reason"],
            registry=registry,
        )
        self._errors = Counter(
            "recsys_stage_errors",
            "Failed calls that a fallback hid.",
            ["stage", "kind"],
            registry=registry,
        )
        self._arms = Counter(
            "recsys_arm_answers",
            "Answers that an arm of an experiment shaped.",
            ["experiment", "arm"],
            registry=registry,
        )
        self._shed = Counter(
            "recsys_requests_shed",
            "Requests answered from memory because too many were waiting.",
            registry=registry,
        )
        self._dropped = Counter(
            "recsys_clients_dropped",
            "Connections closed because the client left a request half sent or an answer unread.",
            ["reason"],
            registry=registry,
        )
        self._in_flight = Gauge(
            "recsys_requests_in_flight", "Requests being answered.", registry=registry
        )
        self._waiting = Gauge(
            "recsys_requests_waiting", "Requests that wait for a thread.", registry=registry
        )
        self._ready = Gauge(
            "recsys_ready", "1 when this process asks for traffic.", registry=registry
        )
        ProcessCollector(registry=registry)
        registry.register(ProportionalMemoryCollector())
        self._warm_up_seconds = Gauge(
            "recsys_warm_up_seconds", "Time of the warm-up before ready.", registry=registry
        )
        self._warm_up_questions = Gauge(
            "recsys_warm_up_questions",
            "Questions replayed by the warm-up before ready.",
            registry=registry,
        )

    def request_started(self) -> None:
        """Count a request in."""
        self._in_flight.inc()

    def request_done(
        self, route: str, status: int, source: str, seconds: float, request_id: str | None = None
    ) -> None:
        """Count a request out.

        Args:
            route: the route's template, or ``unmatched``.
            status: HTTP status.
            source: stage that gave the answer, empty for other routes.
            seconds: from the request to its answer.
            request_id: the exemplar of a slow request.
        """
        self._in_flight.dec()
        self._requests.labels(route, str(status), self._bounded("source", source)).inc()
        exemplar = {"request_id": request_id} if request_id and seconds >= self._slow_s else None
        self._latency.labels(route).observe(seconds, exemplar)

    def is_slow(self, seconds: float) -> bool:
        """Whether a request of this length is worth a look of its own."""
        return seconds >= self._slow_s

    def stage_done(self, stage: str, seconds: float) -> None:
        """Count the time of one stage of one answer."""
        self._stages.labels(self._bounded("stage", stage)).observe(seconds)

    def fallback(self, source: str, reason: str) -> None:
        """Count an answer that did not come from the first stage."""
        self._fallbacks.labels(
            self._bounded("source", source), self._bounded("reason", reason)
        ).inc()

    def stage_error(self, stage: str, kind: str) -> None:
        """Count a failure that a fallback hid."""
        self._errors.labels(self._bounded("stage", stage), self._bounded("kind", kind)).inc()

    def arms_answered(self, arms: Mapping[str, str]) -> None:
        """Count an answer for the arm of each experiment it took part in.

        Args:
            arms: experiment -> arm.
        """
        for experiment, arm in arms.items():
            self._arms.labels(
                self._bounded("experiment", experiment), self._bounded("arm", arm)
            ).inc()

    def request_shed(self) -> None:
        """Count a request that was answered from memory because too many were waiting."""
        self._shed.inc()

    def client_dropped(self, reason: str) -> None:
        """Count a connection that was closed because its client owed something too long."""
        self._dropped.labels(self._bounded("dropped", reason)).inc()

    def watch_ready(self, is_ready: Callable[[], bool]) -> None:
        """Show whether this process asks for traffic, read when the metrics are."""
        self._ready.set_function(lambda: float(is_ready()))

    def warmed_up(self, questions: int, seconds: float) -> None:
        """Say how the warm-up went."""
        self._warm_up_questions.set(questions)
        self._warm_up_seconds.set(seconds)

    def watch_waiting(self, count: Callable[[], int]) -> None:
        """Show how many requests wait for a thread, read when the metrics are."""
        self._waiting.set_function(lambda: float(count()))

    def watch_near_cache(self, stats: Callable[[], NearCacheStats]) -> None:
        """Show a near cache's counters, read when the metrics are.

        Args:
            stats: gives them. Of several calls the last one counts, here and below.
        """
        self._watch("near_cache", NearCacheCollector(stats))

    def watch_serving(self, state: Callable[[], ServingState]) -> None:
        """Show the served generation, how long ago the head was read, and the store's breaker."""
        self._watch("serving", ServingCollector(state))

    def watch_models(self, status: Callable[[], ModelsStatus]) -> None:
        """Show which models are in memory, and whether the served generation's is."""
        self._watch("models", ModelsCollector(status))

    def watch_row_log(self, name: str, stats: Callable[[], RowLogStats]) -> None:
        """Show the counters of the log ``name``, such as ``impressions``."""
        self._watch(f"row_log_{name}", RowLogCollector(name, stats))

    def exposition(self) -> bytes:
        """The metrics of this process in Prometheus' text format."""
        return generate_latest(self.registry)

    def scrape(self, accept: str = "") -> tuple[bytes, str]:
        """The metrics of all processes of this service, and the content type.

        May wait for the other processes for a fraction of a second: call it in a thread.

        Args:
            accept: of the HTTP request; OpenMetrics, with exemplars, for those who ask for it.
        """
        registry = self.registry
        if self.shared is not None:
            registry = Families(self.shared.gather(registry))
        if "application/openmetrics-text" in accept:
            encode: Callable[[CollectorRegistry], bytes] = openmetrics.generate_latest
            return encode(registry), openmetrics.CONTENT_TYPE_LATEST
        return generate_latest(registry), CONTENT_TYPE

    def _watch(self, name: str, collector: Collector) -> None:
        if name in self._watched:
            self.registry.unregister(self._watched[name])
        self._watched[name] = collector
        self.registry.register(collector)

    def _bounded(self, label: str, value: str) -> str:
        names = self._names.setdefault(label, set())
        if value in names:
            return value
        if len(names) >= _MOST_NAMES:
            return "other"
        names.add(value)
        return value


def log_request(*, slow: bool = False, **fields: object) -> None:
    """Log one request; the caller passes no ids of users or items.

    Args:
        slow: worth a line where those of ordinary requests are not shown.
        **fields: plain JSON values.
    """
    level = logging.WARNING if slow else logging.INFO
    if _requests.isEnabledFor(level):
        log_event(_requests, "slow request" if slow else "request", level=level, **fields)
