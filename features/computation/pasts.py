"""The newest events of each user as they were seen at each moment."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from features.computation.grouped import EventArrays

__all__ = ["Past", "UserPasts"]


class Past(NamedTuple):
    """The newest events of n users, one row each, the newest on the right.

    Attributes:
        item: [n, L] int64 item index, 0 where there is no event.
        happened: [n, L] int64 microseconds since 1970-01-01 UTC.
        weight: [n, L] float64.
    """

    item: np.ndarray
    happened: np.ndarray
    weight: np.ndarray

    def only(self, kept: np.ndarray) -> Past:
        """The events where ``kept`` [n, L] bool says so; the others become none."""
        return Past(
            np.where(kept, self.item, 0),
            np.where(kept, self.happened, 0),
            np.where(kept, self.weight, 0.0),
        )

    def newest(self, last: int) -> Past:
        """The ``last`` newest ones."""
        return Past(*(part[:, -last:] for part in self))

    def since(self, start_us: np.ndarray) -> Past:
        """The events at or after ``start_us`` [n]."""
        return self.only((self.item > 0) & (self.happened >= start_us[:, None]))

    def session(self, moment_us: np.ndarray, gap_us: int) -> Past:
        """The newest events, each at most ``gap_us`` before the next one or the moment [n]."""
        following = np.concatenate([self.happened[:, 1:], moment_us[:, None]], axis=1)
        close = (self.item > 0) & (following - self.happened <= gap_us)
        return self.only(np.logical_and.accumulate(close[:, ::-1], axis=1)[:, ::-1])


class UserPasts:
    """The events of each user by the time at which they happened.

    Args:
        user: [E] int64 user index, in order of time (ties in the order of the log).
        item: [E] int64 item index.
        events: the same events.
    """

    def __init__(self, user: np.ndarray, item: np.ndarray, events: EventArrays) -> None:
        order = np.argsort(user, kind="stable")
        self._item = np.append(item[order], 0)
        events = events.take(order)
        self._arrival = np.append(events.arrival, events.num_times + 1)
        self._happened = np.append(events.happened, 0)
        self._weight = np.append(events.weight, 0.0)
        self._times, rank = np.unique(events.happened, return_inverse=True)
        self._stride = self._times.size + 1
        self._key = user[order] * self._stride + rank
        self._arrivals = events.num_times + 1
        self._arrival_key = np.sort(user[order] * self._arrivals + events.arrival)

    def newest(self, user: np.ndarray, rank: np.ndarray, moment_us: np.ndarray, last: int) -> Past:
        """The newest events of each user that had arrived before a moment.

        Args:
            user: [n] int64.
            rank: [n] int64, number of distinct times of arrival before the moment.
            moment_us: [n] int64 microseconds.
            last: how many.
        """
        base = user * self._stride
        begin = np.searchsorted(self._key, base, side="left")
        before = np.searchsorted(self._times, moment_us, side="left")
        end = np.searchsorted(self._key, base + before, side="left")
        base = user * self._arrivals
        seen = np.searchsorted(self._arrival_key, base + rank, side="left")
        seen -= np.searchsorted(self._arrival_key, base, side="left")
        unseen = int((end - begin - seen).max(initial=0))  # happened, but on its way
        back = np.arange(last + unseen, 0, -1)
        place = end[:, None] - back
        place = np.where(place >= begin[:, None], place, -1)  # -1: the empty event at the end
        if unseen:
            arrived = self._arrival[place] < rank[:, None]
            last_ones = np.argsort(arrived, axis=1, kind="stable")[:, -last:]
            kept = np.take_along_axis(arrived, last_ones, axis=1)
            place = np.where(kept, np.take_along_axis(place, last_ones, axis=1), -1)
        return Past(self._item[place], self._happened[place], self._weight[place])
