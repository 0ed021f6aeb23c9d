"""The running state of one group of events, and of one user's newest events.

Events arrive one by one, in order of arrival, and may have happened earlier. Where a value is
refreshed every r seconds, the events that arrived since the last refresh wait: a cell answers what
was known at the refresh.

    packed cell   refresh i64 | first i64 | last i64 | sums, buckets, waiting, text u32 each
                  totals f64[s] | bucket i64[b] | sums f64[b, s] | waiting i64[w], f64[w] | JSON
"""

from __future__ import annotations

import json
import struct
from bisect import insort
from collections.abc import Sequence
from typing import NamedTuple

from features.computation.grouped import Statistic
from features.online.plan import CellPlan

__all__ = ["Cell", "Happening", "Tape"]

_HEAD = struct.Struct("<qqqIIII")
_NEVER = -(2**63)
_SPARE = 16


class Happening(NamedTuple):
    """One event as the cells take it.

    Attributes:
        happened: microseconds since 1970-01-01 UTC.
        arrived: likewise, at or after it.
        item: item id.
        kind: kind of the event.
        weight: its weight.
        drawn: its place among what its user did at the same time.
    """

    happened: int
    arrived: int
    item: str
    kind: str
    weight: float
    drawn: int = 0


class Cell:
    """Counts, sums, first and last time, windows and different values of one group.

    Args:
        plan: what to keep.
        packed: what `pack` gave. None: no event yet.
    """

    __slots__ = (
        "_buckets",
        "_first",
        "_last",
        "_latest",
        "_plan",
        "_pruned",
        "_refresh",
        "_totals",
        "_waiting",
    )

    def __init__(self, plan: CellPlan, packed: bytes | None = None) -> None:
        self._plan = plan
        self._refresh = _NEVER  # number of the refresh after which the waiting events arrived
        self._first, self._last = _NEVER, _NEVER
        self._totals = [0.0] * len(plan.sums)
        self._buckets: dict[int, list[float]] = {}
        self._waiting: list[tuple[int, float, list[list[str]]]] = []
        self._latest: list[dict[str, int]] = [{} for _ in plan.distinct]
        if packed is not None:
            self._unpack(packed)
        self._pruned = self._size()

    def add(self, event: Happening, values: list[list[str]]) -> None:
        """Take in an event.

        Args:
            event: the next one to arrive.
            values: for each unique count of the plan, the event's values.
        """
        every = self._plan.group.refresh_us
        if every:
            number = event.arrived // every
            if number > self._refresh:
                self._settle()
                self._refresh = number
            if number == self._refresh:
                self._waiting.append((event.happened, event.weight, values))
                return
        self._count(event.happened, event.weight, values)
        self._prune(event.arrived)

    def sum(self, statistic: Statistic, moment_us: int, window_us: int | None) -> float:
        """A count or sum at a moment (of a refresh), of all time or of a window before it."""
        place = self._plan.sums.index(statistic)
        waiting = self._seen_waiting(moment_us)
        if window_us is None:
            total = self._totals[place]
            return total + sum(_step(statistic, weight) for _, weight, _ in waiting)
        width = self._plan.bucket_us
        start = (moment_us - window_us) // width
        total = sum(sums[place] for bucket, sums in self._buckets.items() if bucket >= start)
        return total + sum(
            _step(statistic, weight)
            for happened, weight, _ in waiting
            if happened // width >= start
        )

    def time(self, name: str, moment_us: int) -> float:
        """Microseconds of the "first" or the "last" event seen at a moment, NaN without one."""
        times = [happened for happened, _, _ in self._seen_waiting(moment_us)]
        own = self._first if name == "first" else self._last
        if own != _NEVER:
            times.append(own)
        if not times:
            return float("nan")
        return float(min(times) if name == "first" else max(times))

    def distinct(self, of: str, moment_us: int, window_us: int | None) -> float:
        """How many different values were seen at a moment, of all time or of a window."""
        place = [name for name, _ in self._plan.distinct].index(of)
        latest = self._latest[place]
        waiting = self._seen_waiting(moment_us)
        if waiting:
            latest = dict(latest)
            for happened, _, values in waiting:
                _note(latest, values[place], happened)
        if window_us is None:
            return float(len(latest))
        return float(sum(time >= moment_us - window_us for time in latest.values()))

    def pack(self) -> bytes:
        """The cell as bytes."""
        text = b""
        if self._plan.distinct:
            waiting = [values for _, _, values in self._waiting]
            text = json.dumps([self._latest, waiting], ensure_ascii=False).encode()
        head = _HEAD.pack(
            self._refresh,
            self._first,
            self._last,
            len(self._totals),
            len(self._buckets),
            len(self._waiting),
            len(text),
        )
        sums = [value for each in self._buckets.values() for value in each]
        numbers = struct.pack(
            f"<{len(self._totals)}d{len(self._buckets)}q{len(sums)}d"
            f"{len(self._waiting)}q{len(self._waiting)}d",
            *self._totals,
            *self._buckets,
            *sums,
            *(happened for happened, _, _ in self._waiting),
            *(weight for _, weight, _ in self._waiting),
        )
        return head + numbers + text

    def _unpack(self, packed: bytes) -> None:
        self._refresh, self._first, self._last, sums, buckets, waiting, text = _HEAD.unpack_from(
            packed
        )
        layout = f"<{sums}d{buckets}q{buckets * sums}d{waiting}q{waiting}d"
        numbers = struct.unpack_from(layout, packed, _HEAD.size)
        self._totals = list(numbers[:sums])
        at = sums + buckets
        for place, bucket in enumerate(numbers[sums:at]):
            self._buckets[bucket] = list(numbers[at + place * sums : at + (place + 1) * sums])
        at += buckets * sums
        values: Sequence[list[list[str]]] = [[]] * waiting
        if text:
            self._latest, values = json.loads(packed[-text:])
        self._waiting = list(
            zip(numbers[at : at + waiting], numbers[at + waiting :], values, strict=True)
        )

    def _seen_waiting(self, moment_us: int) -> list[tuple[int, float, list[list[str]]]]:
        """The waiting events that had arrived by the refresh at ``moment_us``."""
        every = self._plan.group.refresh_us
        return self._waiting if every and moment_us // every > self._refresh else []

    def _settle(self) -> None:
        for happened, weight, values in self._waiting:
            self._count(happened, weight, values)
        if self._waiting:
            self._waiting = []
            self._prune((self._refresh + 1) * self._plan.bucket_us)

    def _count(self, happened: int, weight: float, values: list[list[str]]) -> None:
        steps = [_step(statistic, weight) for statistic in self._plan.sums]
        for place, step in enumerate(steps):
            self._totals[place] += step
        if self._plan.window_us is not None:
            bucket = happened // self._plan.bucket_us
            before = self._buckets.get(bucket)
            if before is None:
                self._buckets[bucket] = steps
            else:
                for place, step in enumerate(steps):
                    before[place] += step
        if self._first == _NEVER or happened < self._first:
            self._first = happened
        if happened > self._last:
            self._last = happened
        if self._latest:
            for latest, found in zip(self._latest, values, strict=True):
                _note(latest, found, happened)

    def _prune(self, now_us: int) -> None:
        """Forget what no later question can ask for; now and then, so that it costs little."""
        if self._size() < 2 * self._pruned + _SPARE:
            return
        width = self._plan.bucket_us
        now_us = now_us // width * width
        if self._plan.window_us is not None:
            start = (now_us - self._plan.window_us) // width
            self._buckets = {
                bucket: sums for bucket, sums in self._buckets.items() if bucket >= start
            }
        for place, (_, window_us) in enumerate(self._plan.distinct):
            if window_us is not None:
                start = now_us - window_us
                latest = self._latest[place]
                self._latest[place] = {key: at for key, at in latest.items() if at >= start}
        self._pruned = self._size()

    def _size(self) -> int:
        size = len(self._buckets)
        return size + sum(map(len, self._latest)) if self._latest else size


class Tape:
    """A user's newest events, by the time at which they happened.

    Args:
        size: how many are kept.
        packed: what `pack` gave. None: no event yet.
    """

    __slots__ = ("_size", "events")

    def __init__(self, size: int, packed: bytes | None = None) -> None:
        self._size = size
        self.events: list[tuple[int, int, str, str, float]] = []
        """(happened, drawn, item id, kind, weight), oldest first."""
        if packed is not None:
            # What an older version packed was in the order of ids within one time.
            self.events = [
                (happened, drawn[0] if drawn else 0, item, kind, weight)
                for happened, item, kind, weight, *drawn in json.loads(packed)
            ]

    def add(self, event: Happening, _: object = None) -> None:
        """Take in an event."""
        entry = (event.happened, event.drawn, event.item, event.kind, event.weight)
        if self.events and entry >= self.events[-1]:
            self.events.append(entry)
        else:
            insort(self.events, entry)
        del self.events[: -self._size]

    def pack(self) -> bytes:
        """The tape as bytes."""
        rows = [(at, item, kind, weight, drawn) for at, drawn, item, kind, weight in self.events]
        return json.dumps(rows, ensure_ascii=False).encode()


def _step(statistic: Statistic, weight: float) -> float:
    """What an event of a weight adds to a count or sum."""
    name, threshold = statistic
    if name == "count":
        return 1.0
    return weight if name == "weight" else float(weight >= threshold)


def _note(latest: dict[str, int], values: list[str], happened: int) -> None:
    for value in values:
        latest[value] = max(latest.get(value, _NEVER), happened)
