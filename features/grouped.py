"""Events sorted by group and time, so that any running statistic is one binary search away."""

from __future__ import annotations

import numpy as np
import polars as pl

__all__ = ["GroupedEvents", "Statistic"]

Statistic = tuple[str, float]
COUNT: Statistic = ("count", 0.0)
WEIGHT: Statistic = ("weight", 0.0)
LAST: Statistic = ("last", 0.0)
FIRST: Statistic = ("first", 0.0)


class GroupedEvents:
    """Running statistics of each group of events.

    Events are kept in order of (group, time):

        group    1 1 1 2 2 5
        time     3 4 4 1 9 2
        count    1 2 3 1 2 1     value just after each event, within its group

    The value "strictly before moment m" is that of the group's last event with time < m. Sums run
    within each group only, so later events and other groups cannot change a bit of them.

    Args:
        group: [E] int64 >= 0 in order of time; events of group 0 belong to none and are dropped.
        rank: [E] int64, position of the event's time among the T distinct times, 0..T-1.
        timestamp: [E] int64 microseconds since 1970-01-01 UTC.
        weight: [E] float64.
        item: [E] int64 item index.
        num_times: T.
    """

    def __init__(
        self,
        group: np.ndarray,
        rank: np.ndarray,
        timestamp: np.ndarray,
        weight: np.ndarray,
        item: np.ndarray,
        num_times: int,
    ) -> None:
        order = np.argsort(group, kind="stable")
        order = order[np.searchsorted(group[order], 1) :]
        self.group = group[order]
        self.item = item[order]
        self._timestamp = timestamp[order]
        self._weight = weight[order]
        self._stride = num_times + 1
        self._key = self.group * self._stride + rank[order]
        self._values: dict[Statistic, np.ndarray] = {}

    def locate(self, group: np.ndarray, rank: np.ndarray) -> np.ndarray:
        """Position of the last event of each group before a time, -1 if there is none.

        Args:
            group: [Q] int64.
            rank: [Q] int64, number of distinct times before the moment asked for, 0..T.

        Returns:
            [Q] int64 positions in the order of this object.
        """
        if self.group.size == 0:
            return np.full(group.shape, -1, dtype=np.int64)
        place = np.searchsorted(self._key, group * self._stride + rank, side="left") - 1
        hit = (place >= 0) & (self.group[place] == group) & (group > 0)
        return np.where(hit, place, -1)

    def at(self, statistic: Statistic, place: np.ndarray) -> np.ndarray:
        """[Q] float64 value of a statistic at positions from `locate`.

        At -1 counts and sums are 0 and times are NaN. ("hits", t) counts weights >= t.
        """
        if statistic not in self._values:
            self._values[statistic] = self._running(statistic)
        values: np.ndarray = self._values[statistic][place]
        return values

    def _running(self, statistic: Statistic) -> np.ndarray:
        """[E + 1] float64; the extra last entry is what position -1 reads."""
        name, threshold = statistic
        if name in ("last", "first"):
            times = self._timestamp.astype(np.float64)
            if name == "first" and times.size:
                starts = np.flatnonzero(np.diff(self.group, prepend=-1))
                times = np.repeat(times[starts], np.diff(np.append(starts, times.size)))
            return np.append(times, np.nan)
        if name == "count":
            step = np.ones(self.group.size)
        else:
            step = self._weight if name == "weight" else (self._weight >= threshold).astype(float)
        frame = pl.DataFrame({"group": self.group, "step": step})
        running = frame.select(pl.col("step").cum_sum().over("group"))["step"].to_numpy()
        return np.append(running, 0.0)
