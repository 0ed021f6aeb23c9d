"""Events sorted by group and time, so that any running statistic is one binary search away.

An event is *seen* from the first moment after it arrived. It may have happened earlier than that;
most logs know only one of the two times, and then they are equal.
"""

from __future__ import annotations

from itertools import pairwise
from typing import NamedTuple

import numpy as np
import polars as pl

from features.computation.dominance import DominanceSums

__all__ = ["DistinctValues", "EventArrays", "GroupedEvents", "LateEvents", "Statistic"]

Statistic = tuple[str, float]
COUNT: Statistic = ("count", 0.0)
WEIGHT: Statistic = ("weight", 0.0)
LAST: Statistic = ("last", 0.0)
FIRST: Statistic = ("first", 0.0)
_SHORT = 0.99  # of the late events count as late by little
_PAIRS_PER_QUESTION = 32
_CELLS_AT_ONCE = 4_000_000


class EventArrays(NamedTuple):
    """E events in the order in which they arrived.

    Attributes:
        arrival: [E] int64, position of the arrival among the T distinct times of arrival, 0..T-1.
        happened: [E] int64 microseconds since 1970-01-01 UTC, at or before the arrival.
        late: [E] bool, it happened before it arrived.
        weight: [E] float64.
        times: [T] int64 microseconds, the distinct times of arrival.
    """

    arrival: np.ndarray
    happened: np.ndarray
    late: np.ndarray
    weight: np.ndarray
    times: np.ndarray

    @property
    def num_times(self) -> int:
        """T."""
        return int(self.times.size)

    def take(self, rows: np.ndarray) -> EventArrays:
        """The events at ``rows``."""
        return EventArrays(
            self.arrival[rows],
            self.happened[rows],
            self.late[rows],
            self.weight[rows],
            self.times,
        )


class GroupedEvents:
    """Running statistics of each group of events.

    Events are kept in order of (group, arrival):

        group    1 1 1 2 2 5
        arrival  3 4 4 1 9 2
        count    1 2 3 1 2 1     value just after each event, within its group

    The value at a moment m is that of the group's last event with arrival < m. Sums run within
    each group only, so later events and other groups cannot change a bit of them.

    Args:
        group: [E] int64 >= 0; events of group 0 belong to none and are dropped.
        events: the events.
    """

    def __init__(self, group: np.ndarray, events: EventArrays) -> None:
        order = np.argsort(group, kind="stable")
        order = order[np.searchsorted(group[order], 1) :]
        self._group = group[order]
        self._events = events.take(order)
        self._stride = events.num_times + 1
        self._key = self._group * self._stride + self._events.arrival
        late = np.flatnonzero(self._events.late)
        self._late = LateEvents(self._key[late], self._stride, self._events.take(late))
        self._values: dict[Statistic, np.ndarray] = {}

    def locate(self, group: np.ndarray, rank: np.ndarray) -> np.ndarray:
        """Position of the last event of each group before a time, -1 if there is none.

        Args:
            group: [Q] int64.
            rank: [Q] int64, number of distinct times of arrival before the moment, 0..T.

        Returns:
            [Q] int64 positions in the order of this object.
        """
        if self._group.size == 0:
            return np.full(group.shape, -1, dtype=np.int64)
        place = np.searchsorted(self._key, group * self._stride + rank, side="left") - 1
        hit = (place >= 0) & (self._group[place] == group) & (group > 0)
        return np.where(hit, place, -1)

    def at(self, statistic: Statistic, place: np.ndarray) -> np.ndarray:
        """[Q] float64 value of a statistic at positions from `locate`.

        At -1 counts and sums are 0 and times are NaN. ("hits", t) counts weights >= t.
        """
        if statistic not in self._values:
            self._values[statistic] = self._running(statistic)
        values: np.ndarray = self._values[statistic][place]
        return values

    def late(
        self,
        statistic: Statistic,
        group: np.ndarray,
        start_rank: np.ndarray,
        rank: np.ndarray,
        start_us: np.ndarray,
    ) -> np.ndarray:
        """The part of a count or sum that arrived in a window and had happened before it.

        Args:
            statistic: a count or a sum.
            group: [Q] int64.
            start_rank: [Q] int64, number of distinct times of arrival before the window.
            rank: [Q] int64, the same before the moment.
            start_us: [Q] int64 microseconds, where the window begins.

        Returns:
            [Q] float64.
        """
        return self._late.straddling(statistic, group, start_rank, rank, start_us)

    def _running(self, statistic: Statistic) -> np.ndarray:
        """[E + 1] float64; the extra last entry is what position -1 reads."""
        name, size = statistic[0], self._group.size
        if size == 0:
            return np.array([np.nan if name in ("last", "first") else 0.0])
        starts = np.flatnonzero(np.diff(self._group, prepend=-1))
        lengths = np.diff(np.append(starts, size))
        if name in ("last", "first") and not self._late.size:
            happened = self._events.happened
            times = happened if name == "last" else np.repeat(happened[starts], lengths)
            return np.append(times.astype(np.float64), np.nan)
        if name in ("last", "first"):
            frame = pl.DataFrame({"group": self._group, "step": self._events.happened})
            extreme = pl.col("step").cum_max() if name == "last" else pl.col("step").cum_min()
            times = frame.select(extreme.over("group"))["step"].to_numpy()
            return np.append(times.astype(np.float64), np.nan)
        step = _step(statistic, self._events)
        if name != "weight" or starts.size == 1:  # whole numbers: the sums are exact
            running = np.cumsum(step)
            running -= np.repeat(running[starts] - step[starts], lengths)
            return np.append(running, 0.0)
        frame = pl.DataFrame({"group": self._group, "step": step})
        running = frame.select(pl.col("step").cum_sum().over("group"))["step"].to_numpy()
        return np.append(running, 0.0)


class LateEvents:
    """The events that arrived after they happened.

    Most are late by little. An event that happened before a window and arrived in it by at most a
    short delay d arrived within d of the window's begin; those few are looked at one by one. The
    rest, late by more than d, are summed up by `DominanceSums`.

    Attributes:
        size: L.

    Args:
        key: [L] int64 rising, group * stride + rank of the arrival.
        stride: more than the largest rank.
        events: the same L events.
    """

    def __init__(self, key: np.ndarray, stride: int, events: EventArrays) -> None:
        self._times = events.times
        delay = events.times[events.arrival] - events.happened
        self._short_us = int(np.quantile(delay, _SHORT, method="lower")) if delay.size else 0
        short = delay <= self._short_us
        self.size = int(key.size)
        self._short, self._long = (
            _LatePart(key[kept], stride, events.take(np.flatnonzero(kept)))
            for kept in (short, ~short)
        )

    def straddling(
        self,
        statistic: Statistic,
        group: np.ndarray,
        start_rank: np.ndarray,
        rank: np.ndarray,
        start_us: np.ndarray,
    ) -> np.ndarray:
        """See `GroupedEvents.late`."""
        if self.size == 0:
            return np.zeros(group.shape)
        soon = np.searchsorted(self._times, start_us + self._short_us, side="right")
        near = self._short.between(group, start_rank, np.minimum(rank, soon))
        found: np.ndarray = self._long.sums(
            statistic, self._long.between(group, start_rank, rank), start_us
        )
        if int((near[1] - near[0]).sum()) > _PAIRS_PER_QUESTION * group.size + _CELLS_AT_ONCE:
            found += self._short.sums(statistic, near, start_us)
        else:
            found += self._short.one_by_one(statistic, near, start_us)
        return found


class _LatePart:
    """Some late events; see `LateEvents` for the arguments."""

    def __init__(self, key: np.ndarray, stride: int, events: EventArrays) -> None:
        self._key, self._stride, self._events = key, stride, events
        self._sums: dict[Statistic, DominanceSums] = {}

    def between(
        self, group: np.ndarray, start_rank: np.ndarray, rank: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        """[Q] positions of each group's first event from one arrival on, and from another on."""
        base = group * self._stride
        return np.searchsorted(self._key, base + start_rank), np.searchsorted(
            self._key, base + rank
        )

    def sums(
        self, statistic: Statistic, between: tuple[np.ndarray, np.ndarray], before_us: np.ndarray
    ) -> np.ndarray:
        """[Q] sums over the events between two positions that happened before a time."""
        if self._key.size == 0:
            return np.zeros(before_us.shape)
        if statistic not in self._sums:
            step = _step(statistic, self._events)
            self._sums[statistic] = DominanceSums(self._events.happened, step)
        return self._sums[statistic].between(*between, before_us)

    def one_by_one(
        self, statistic: Statistic, between: tuple[np.ndarray, np.ndarray], before_us: np.ndarray
    ) -> np.ndarray:
        """As `sums`, looking at every event between the positions."""
        begin, end = between
        found, step = np.zeros(before_us.shape), _step(statistic, self._events)
        for part in _parts(end - begin, _CELLS_AT_ONCE):
            count = end[part] - begin[part]
            question = np.repeat(np.arange(part.start, part.stop), count)
            event = np.arange(question.size) + np.repeat(
                begin[part] - (np.cumsum(count) - count), count
            )
            before = self._events.happened[event] < before_us[question]
            found += np.bincount(
                question[before], weights=step[event[before]], minlength=found.size
            )
        return found


class DistinctValues:
    """How many different values the events of each group have.

    For a (group, value) the last time it happened rises with some of its events. Each rise starts
    one record and ends the one before, so at a moment every value that was seen has exactly one
    record, and the values of a window are the records whose time lies in it.

    Args:
        group: [E] int64 >= 0; events of group 0 belong to none and are dropped.
        value: [E] int64 >= 1.
        events: the events.
    """

    def __init__(self, group: np.ndarray, value: np.ndarray, events: EventArrays) -> None:
        order = np.lexsort((value, group))  # stable: arrivals stay in order
        order = order[np.searchsorted(group[order], 1) :]
        group, value, events = group[order], value[order], events.take(order)
        frame = pl.DataFrame({"group": group, "value": value, "happened": events.happened})
        before = pl.col("happened").cum_max().shift(1).over("group", "value")
        rises = frame.select((before.is_null() | (pl.col("happened") > before)).alias("rises"))
        kept = rises["rises"].to_numpy()
        group, value, events = group[kept], value[kept], events.take(np.flatnonzero(kept))
        follows = (group[1:] == group[:-1]) & (value[1:] == value[:-1])
        replaced = np.flatnonzero(follows)
        self._starts = _Records(group, events.arrival, events.happened, events.num_times)
        self._ends = _Records(
            group[replaced],
            events.arrival[replaced + 1],
            events.happened[replaced],
            events.num_times,
        )

    def count(self, group: np.ndarray, rank: np.ndarray, start_us: np.ndarray | None) -> np.ndarray:
        """[Q] float64 number of values seen before the time, of those since ``start_us``.

        Args:
            group: [Q] int64.
            rank: [Q] int64, number of distinct times of arrival before the moment.
            start_us: [Q] int64 microseconds, where the window begins. None: no window.
        """
        started = self._starts.count(group, rank, start_us)
        current: np.ndarray = started - self._ends.count(group, rank, start_us)
        return current


class _Records:
    """Points (group, arrival, time): how many of a group before an arrival, since a time."""

    def __init__(
        self, group: np.ndarray, arrival: np.ndarray, happened: np.ndarray, num_times: int
    ) -> None:
        self._stride = num_times + 1
        key = group * self._stride + arrival
        order = np.argsort(key, kind="stable")
        self._key = key[order]
        self._happened = happened[order]
        self._before: DominanceSums | None = None

    def count(self, group: np.ndarray, rank: np.ndarray, start_us: np.ndarray | None) -> np.ndarray:
        base = group * self._stride
        begin = np.searchsorted(self._key, base, side="left")
        end = np.searchsorted(self._key, base + rank, side="left")
        found: np.ndarray = (end - begin).astype(np.float64)
        if start_us is None:
            return found
        if self._before is None:
            self._before = DominanceSums(self._happened, np.ones(self._key.size))
        found -= self._before.between(begin, end, start_us)
        return found


def _parts(sizes: np.ndarray, limit: int) -> list[slice]:
    """Runs of questions with about ``limit`` pairs each."""
    pairs = np.cumsum(sizes)
    if pairs.size == 0 or pairs[-1] == 0:
        return []
    cuts = np.searchsorted(pairs, np.arange(limit, pairs[-1], limit), side="right")
    edges = np.unique(np.concatenate([[0], cuts, [sizes.size]])).tolist()
    return [slice(start, stop) for start, stop in pairwise(edges)]


def _step(statistic: Statistic, events: EventArrays) -> np.ndarray:
    """[E] float64: what each event adds to a count or sum."""
    name, threshold = statistic
    if name == "count":
        return np.ones(events.weight.size)
    if name == "weight":
        return events.weight
    hits: np.ndarray = (events.weight >= threshold).astype(np.float64)
    return hits
