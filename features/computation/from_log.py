"""What happened before each request row, looked up in a log."""

from __future__ import annotations

from functools import cached_property

import numpy as np
import polars as pl

from features.computation.base import Computation, slices
from features.computation.feature_tables import FeatureTables
from features.computation.gaps import gaps
from features.computation.grouped import DistinctValues, EventArrays, GroupedEvents, Statistic
from features.computation.pasts import Past, UserPasts
from features.computation.questions import Asked, Group
from features.tables.schema import CREATED, EVENT, ITEM, TIMESTAMP, USER, WEIGHT
from features.tables.vocabulary import Vocabulary, covering

__all__ = ["LogComputation"]


class LogComputation(Computation):
    """A `Computation` that looks back on a log.

    Args:
        requests: as `Computation`.
        log: the frame of an `Interactions`.
        tables: as `Computation`; the log and the requests may know more items and users.
    """

    def __init__(
        self,
        requests: pl.DataFrame,
        log: pl.DataFrame,
        tables: FeatureTables,
    ) -> None:
        item_ids, self._item, of_requests = covering(tables.item_ids, log[ITEM], requests[ITEM])
        users = Vocabulary.from_ids(log[USER])
        user_ids, self._user, asking = covering(users, log[USER], requests[USER])
        super().__init__(
            tables,
            requests,
            item_ids=item_ids,
            user_ids=user_ids.to_series(),
            item=of_requests,
            user=asking,
            moment=requests["moment"].to_physical().to_numpy().astype(np.int64),
        )
        self._kind = log[EVENT]
        happened = log[TIMESTAMP].to_physical().to_numpy().astype(np.int64)
        arrived = happened
        if CREATED in log.columns:
            arrived = log[CREATED].to_physical().to_numpy().astype(np.int64)
        self._times, arrival = np.unique(arrived, return_inverse=True)
        weight = log[WEIGHT].to_numpy().astype(np.float64)
        self._liked = weight > 0
        weight = np.abs(weight)
        self._events = EventArrays(arrival, happened, happened < arrived, weight, self._times)
        self._kept: dict[str | None, np.ndarray] = {}
        self._groups: dict[Group, GroupedEvents] = {}
        self._distinct: dict[tuple[Group, str], DistinctValues] = {}
        self._places: dict[tuple[Group, int], np.ndarray] = {}
        self._user_pasts: dict[str | None, UserPasts] = {}

    def _values(
        self, group: Group, asked: Asked, statistic: Statistic, window_us: int | None
    ) -> np.ndarray:
        events = self._grouped(group)
        value = events.at(statistic, self._place(group, asked, 0))
        if window_us is not None:
            value = value - events.at(statistic, self._place(group, asked, window_us))
            start_us = self.moments_of(group)[asked.moment] - window_us
            value = value - events.late(
                statistic,
                self._group_code(group, asked.user, asked.item, asked.value),
                self._rank(group, window_us)[asked.moment],
                self._rank(group, 0)[asked.moment],
                start_us,
            )
        return value

    def _distinct_counts(
        self, group: Group, asked: Asked, of: str, window_us: int | None
    ) -> np.ndarray:
        key = (group._replace(refresh_us=0), of)
        if key not in self._distinct:
            kept, code, _ = self._events_of(group)
            if of in ("user", "item"):
                value = (self._user if of == "user" else self._item)[kept]
            elif of == "basket":
                value = self._basket[kept]
            else:
                position, value = self.tables.attribute(of).pairs(self._item[kept])
                kept, code = kept[position], code[position]
            self._distinct[key] = DistinctValues(code, value, self._events.take(kept))
        start_us = None
        if window_us is not None:
            start_us = self.moments_of(group)[asked.moment] - window_us
        return self._distinct[key].count(
            self._group_code(group, asked.user, asked.item, asked.value),
            self._rank(group, 0)[asked.moment],
            start_us,
        )

    def _newest(self, event: str | None, last: int) -> Past:
        if event not in self._user_pasts:
            kept = self._of_kind(event)
            self._user_pasts[event] = UserPasts(
                self._user[kept], self._item[kept], self._events.take(kept)
            )
        pasts, level = self._user_pasts[event], self.level("user")
        rank = self._rank(Group("user"), 0)[level.moment]
        moment = self.moments[level.moment]
        parts = [
            pasts.newest(level.user[part], rank[part], moment[part], last)
            for part in slices(level.user.size, last)
        ]
        none = np.zeros((0, last), dtype=np.int64)
        if not parts:
            return Past(none, none, none.astype(np.float64))
        return Past(*(np.concatenate(side) for side in zip(*parts, strict=True)))

    def _of_kind(self, event: str | None) -> np.ndarray:
        """Positions of the events of a kind, or of all likes, by when they happened."""
        if event not in self._kept:
            wanted = self._liked if event is None else (self._kind == event).to_numpy()
            self._kept[event] = np.flatnonzero(wanted)
        return self._kept[event]

    @cached_property
    def _basket(self) -> np.ndarray:
        """[E] int64 >= 1, the same for what one user did at one time."""
        times, place = np.unique(self._events.happened, return_inverse=True)
        return np.asarray(self._user * times.size + place)

    def _events_of(self, group: Group) -> tuple[np.ndarray, np.ndarray, EventArrays]:
        """Positions of the events that enter groups, in order of arrival; groups and events."""
        kept = self._of_kind(group.event)
        kept = kept[np.argsort(self._events.arrival[kept], kind="stable")]
        events = self._events.take(kept)
        if group.again:
            came, days = gaps(self._user[kept], self._item[kept], events.happened)
            kept, events = kept[came], events.take(came)._replace(weight=days)
        value = np.zeros(kept.size, dtype=np.int64)
        if group.column is not None:
            position, value = self.tables.attribute(group.column).pairs(self._item[kept])
            kept, events = kept[position], events.take(position)
        return kept, self._group_code(group, self._user[kept], self._item[kept], value), events

    def _grouped(self, group: Group) -> GroupedEvents:
        key = group._replace(refresh_us=0)
        if key not in self._groups:
            _, code, events = self._events_of(group)
            self._groups[key] = GroupedEvents(code, events)
        return self._groups[key]

    def _group_code(
        self, group: Group, user: np.ndarray, item: np.ndarray, value: np.ndarray
    ) -> np.ndarray:
        """A number >= 1 for each group."""
        if group.by == "global":
            return np.ones_like(user)
        if group.by in ("user", "item"):
            return user if group.by == "user" else item
        if group.column is None:
            pairs: np.ndarray = user * self.item_ids.size + item
            return pairs
        if group.by == "attribute":
            return value
        code: np.ndarray = user * (self.tables.attribute(group.column).num_values + 1) + value
        return code

    def _rank(self, group: Group, lag_us: int) -> np.ndarray:
        """[M] number of distinct times of arrival before each moment less a lag."""
        return np.asarray(np.searchsorted(self._times, self.moments_of(group) - lag_us))

    def _place(self, group: Group, asked: Asked, lag_us: int) -> np.ndarray:
        """[Q] position in its group of the last event before moment - lag."""
        key = (group, lag_us)
        if key not in self._places:
            code = self._group_code(group, asked.user, asked.item, asked.value)
            rank = self._rank(group, lag_us)[asked.moment]
            self._places[key] = self._grouped(group).locate(code, rank)
        return self._places[key]
