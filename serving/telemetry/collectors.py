"""Metrics that are read off other parts of the process at the moment they are asked for."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from prometheus_client import CollectorRegistry
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    InfoMetricFamily,
    Metric,
    StateSetMetricFamily,
)
from prometheus_client.registry import Collector

if TYPE_CHECKING:
    from features.packing.near_cache import NearCacheStats
    from serving.impressions.row_log import RowLogStats
    from serving.models.holder import ModelsStatus

__all__ = [
    "Families",
    "ModelsCollector",
    "NearCacheCollector",
    "ProportionalMemoryCollector",
    "RowLogCollector",
    "ServingCollector",
    "ServingState",
]


class ServingState(NamedTuple):
    """What a process serves from now.

    Attributes:
        generation: whose lists are served; None: none.
        epoch: number of the head's switch; None: not known.
        head_age_s: seconds since the head was last read from the store; None: never.
        published_at: of the generation, seconds since the epoch; None: not known.
        expires_in_s: seconds until the store drops the generation; None: not known.
        breaker: ``closed``, ``half_open`` or ``open``: whether the store is asked.
        problem: why what is served may be stale; None: it is fresh.
    """

    generation: str | None
    epoch: int | None
    head_age_s: float | None
    published_at: float | None
    expires_in_s: float | None
    breaker: str
    problem: str | None


class Families(CollectorRegistry):
    """Metric families that were collected already, as a registry that an encoder reads."""

    def __init__(self, families: Sequence[Metric]) -> None:
        super().__init__()
        self._families = families

    def collect(self) -> Iterable[Metric]:
        """The families."""
        return self._families


class NearCacheCollector(Collector):
    """The counters of a near cache."""

    def __init__(self, stats: Callable[[], NearCacheStats]) -> None:
        self._stats = stats

    def collect(self) -> Iterator[Metric]:
        """Its families."""
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


class ProportionalMemoryCollector(Collector):
    """Memory of this process where what it shares with others counts by its share (Linux)."""

    def collect(self) -> Iterator[Metric]:
        """Its family; none on other systems."""
        try:
            lines = Path("/proc/self/smaps_rollup").read_text().splitlines()
        except OSError:
            return
        for line in lines:
            if line.startswith("Pss:"):
                yield GaugeMetricFamily(
                    "recsys_process_proportional_memory_bytes",
                    "Memory of the process; pages shared by n processes count 1/n.",
                    value=1024 * int(line.split()[1]),
                )


class ServingCollector(Collector):
    """A `ServingState`."""

    def __init__(self, state: Callable[[], ServingState]) -> None:
        self._state = state

    def collect(self) -> Iterator[Metric]:
        """Its families; those of values that are not known are left out."""
        state = self._state()
        if state.generation is not None:
            yield InfoMetricFamily(
                "recsys_generation",
                "The generation that answers come from.",
                value={"generation": state.generation},
            )
        for name, text, value in (
            ("head_epoch", "Number of the switch that led to the served generation.", state.epoch),
            ("head_age_seconds", "Time since the head was read.", state.head_age_s),
            (
                "generation_published_timestamp_seconds",
                "When the served generation was published.",
                state.published_at,
            ),
            (
                "generation_expires_seconds",
                "Time until the store drops the served generation.",
                state.expires_in_s,
            ),
        ):
            if value is not None:
                yield GaugeMetricFamily(f"recsys_{name}", text, value=value)
        states = ("closed", "half_open", "open")
        yield StateSetMetricFamily(
            "recsys_store_breaker",
            "Whether the store is asked.",
            value={one: one == state.breaker for one in states},
        )
        yield GaugeMetricFamily(
            "recsys_stale",
            "1 when what is served may be stale.",
            value=float(state.problem is not None),
        )


class ModelsCollector(Collector):
    """A `serving.models.holder.ModelsStatus`."""

    def __init__(self, status: Callable[[], ModelsStatus]) -> None:
        self._status = status

    def collect(self) -> Iterator[Metric]:
        """Its families."""
        status = self._status()
        if status.current is not None:
            yield InfoMetricFamily(
                "recsys_live_model",
                "The generation whose model answers.",
                value={"generation": status.current},
            )
        for name, text, value in (
            ("loaded", "Models in memory.", len(status.loaded)),
            ("loading", "1 while a model is loaded.", status.loading is not None),
            (
                "problem",
                "1 when the model of the served generation cannot be loaded.",
                status.problem is not None,
            ),
            ("load_seconds", "Time of the last load that worked.", status.load_seconds),
        ):
            yield GaugeMetricFamily(f"recsys_live_models_{name}", text, value=float(value))
        yield CounterMetricFamily("recsys_live_model_loads", "Models loaded.", value=status.loads)
        yield CounterMetricFamily(
            "recsys_live_model_load_failures", "Loads that failed.", value=status.failures
        )


class RowLogCollector(Collector):
    """The counters of a log of rows."""

    def __init__(self, name: str, stats: Callable[[], RowLogStats]) -> None:
        self._name = name
        self._stats = stats

    def collect(self) -> Iterator[Metric]:
        """Its families."""
        stats = self._stats()
        for name, text, value in (
            ("log_rows_accepted", "Rows taken in.", stats.accepted),
            ("log_rows_written", "Rows on disk.", stats.written),
            ("log_rows_dropped", "Rows not taken in: the queue was full.", stats.dropped),
            ("log_rows_refused", "Rows that did not fit the columns.", stats.refused),
            ("log_rows_lost", "Rows of processes that died, in no file.", stats.lost_before),
            ("log_write_errors", "Writes that failed and are tried again.", stats.errors),
        ):
            family = CounterMetricFamily(f"recsys_{name}", text, labels=["log"])
            family.add_metric([self._name], value)
            yield family
        pending = GaugeMetricFamily(
            "recsys_log_rows_pending", "Rows taken in and not written yet.", labels=["log"]
        )
        pending.add_metric([self._name], stats.pending)
        yield pending
