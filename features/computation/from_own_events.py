"""What one user did before one moment: the features of a live request, without a frame.

Values equal those of `features.computation.from_log` over the same events; a handful of events
needs no running sums.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple, Self

import numpy as np
import polars as pl

from features.computation.base import Computation
from features.computation.feature_tables import FeatureTables
from features.computation.gaps import gaps
from features.computation.grouped import Statistic
from features.computation.pasts import Past
from features.computation.questions import Asked, Group, Level
from features.tables.schema import CREATED, EVENT, TIMESTAMP, WEIGHT
from features.tables.vocabulary import Vocabulary

__all__ = ["OwnComputation", "OwnEvents"]


class OwnEvents(NamedTuple):
    """E events of one user, by the time at which they happened; a dislike weighs below 0.

    Attributes:
        item: [E] int64 item index.
        happened: [E] int64 microseconds since 1970-01-01 UTC.
        arrived: [E] int64, likewise; at or after ``happened``.
        weight: [E] float64.
        kind: [E] text.
    """

    item: np.ndarray
    happened: np.ndarray
    arrived: np.ndarray
    weight: np.ndarray
    kind: np.ndarray

    @classmethod
    def of_frame(cls, frame: pl.DataFrame, item: np.ndarray) -> Self:
        """The events of a frame of one user's `Interactions`.

        Args:
            frame: E rows.
            item: [E] their items' indices.
        """
        happened = frame[TIMESTAMP].to_physical().to_numpy().astype(np.int64)
        arrived = happened
        if CREATED in frame.columns:
            arrived = frame[CREATED].to_physical().to_numpy().astype(np.int64)
        weight = frame[WEIGHT].to_numpy().astype(np.float64)
        return cls(item, happened, arrived, weight, frame[EVENT].to_numpy())

    def take(self, rows: np.ndarray) -> OwnEvents:
        """The events at ``rows``."""
        return OwnEvents(*(part[rows] for part in self))


class OwnComputation(Computation):
    """A `Computation` of one request, whose past is the asking user's own events.

    Args:
        tables: as `Computation`.
        columns: as `Computation`.
        user_id: who asks.
        item_ids: ids of the item table, index 1..N, then of items known beyond it.
        item: [R] int64 candidates.
        events: the user's, with indices in ``item_ids``; others beyond it are unknown items.
        moment_us: of the request, microseconds since the epoch.
        vector_rows: by name of vectors, [len(item_ids) + 1] int64 rows of each item, 0: none.
    """

    def __init__(
        self,
        tables: FeatureTables,
        columns: Mapping[str, np.ndarray],
        *,
        user_id: str,
        item_ids: Vocabulary,
        item: np.ndarray,
        events: OwnEvents,
        moment_us: int,
        vector_rows: Mapping[str, np.ndarray],
    ) -> None:
        super().__init__(
            tables,
            columns,
            item_ids=item_ids,
            user_ids=pl.Series([user_id]),
            item=item,
            user=np.ones(item.size, dtype=np.int64),
            moment=np.full(item.size, moment_us),
        )
        self._events = events
        self._vector_rows = vector_rows
        self._seen: dict[tuple[str | None, int], OwnEvents] = {}
        self._by_group: dict[
            tuple[Group, int | None], tuple[np.ndarray, np.ndarray, OwnEvents]
        ] = {}
        self._places: dict[tuple[Group, int | None], np.ndarray] = {}

    def level(self, scope: str) -> Level:
        """See `Computation.level`; the rows are of one user at one moment."""
        rows = self.rows
        if scope not in self._levels and rows.item.size:
            one = np.zeros(1, dtype=np.int64)
            if scope in ("user", "global"):
                owner = rows.user[:1] if scope == "user" else one
                self._levels[scope] = Level(owner, one, one, np.zeros_like(rows.item))
            elif scope == "item" and bool((rows.item[1:] > rows.item[:-1]).all()):
                none = np.zeros_like(rows.item)
                self._levels[scope] = Level(none, rows.item, rows.moment, np.arange(none.size))
        return super().level(scope)

    def vector_rows(self, name: str, item: np.ndarray) -> np.ndarray:
        """Rows of named vectors for item indices of any shape, 0 where they lack the item."""
        rows = self._vector_rows[name]
        found: np.ndarray = rows[np.where(item < rows.size, item, 0)]
        return found

    @property
    def request_id(self) -> np.ndarray:
        """[R] zeros: the rows are of one request."""
        return np.zeros(self.rows.item.size, dtype=np.int64)

    def _values(
        self, group: Group, asked: Asked, statistic: Statistic, window_us: int | None
    ) -> np.ndarray:
        name, threshold = statistic
        times = name in ("last", "first")
        missing = np.nan if times else 0.0
        if asked.user.size == 0:
            return np.zeros(0)
        known, group_of, events = self._grouped(group, window_us)
        if times:
            total = np.full(known.size, -np.inf if name == "last" else np.inf)
            extreme = np.maximum if name == "last" else np.minimum
            extreme.at(total, group_of, events.happened.astype(np.float64))
        else:
            step = events.weight if name != "count" else None
            if name == "hits":
                step = (events.weight >= threshold).astype(np.float64)
            total = np.bincount(group_of, weights=step, minlength=known.size)
        return _spread(total, missing, self._found(group, known, asked, window_us))

    def _distinct_counts(
        self, group: Group, asked: Asked, of: str, window_us: int | None
    ) -> np.ndarray:
        if asked.user.size == 0:
            return np.zeros(0)
        known, group_of, events = self._grouped(group, window_us)
        if of == "user":
            value = np.ones_like(events.item)
        elif of == "item":
            value = events.item
        elif of == "basket":
            value = events.happened
        else:
            position, value = self.tables.attribute(of).pairs(events.item)
            group_of = group_of[position]
        counted = np.unique(np.stack([group_of, value]), axis=1)[0]
        count = np.bincount(counted, minlength=known.size)
        return _spread(count, 0.0, self._found(group, known, asked, window_us))

    def _newest(self, event: str | None, last: int) -> Past:
        until = int(self.moments[0]) if self.moments.size else 0
        events = self._before(event, until)
        events = events.take(np.flatnonzero(events.happened < until)[-last:])
        size = events.item.size
        past = Past(
            np.zeros((self.moments.size, last), dtype=np.int64),
            np.zeros((self.moments.size, last), dtype=np.int64),
            np.zeros((self.moments.size, last)),
        )
        if size and self.moments.size:
            past.item[0, last - size :] = events.item
            past.happened[0, last - size :] = events.happened
            past.weight[0, last - size :] = events.weight
        return past

    def _before(self, kind: str | None, until_us: int) -> OwnEvents:
        """The events of a kind, or all likes, that had arrived before a time."""
        key = (kind, until_us)
        if key not in self._seen:
            kept = self._events.arrived < until_us
            kept &= self._events.weight > 0 if kind is None else self._events.kind == kind
            found = self._events.take(np.flatnonzero(kept))
            self._seen[key] = found._replace(weight=np.abs(found.weight))
        return self._seen[key]

    def _grouped(
        self, group: Group, window_us: int | None
    ) -> tuple[np.ndarray, np.ndarray, OwnEvents]:
        """The groups that have events, rising; the place of each event among them; the events."""
        key = (group, window_us)
        if key not in self._by_group:
            until = int(self.moments_of(group)[0])
            events = self._before(group.event, until)
            if group.again:
                came, days = gaps(np.zeros_like(events.item), events.item, events.happened)
                events = events.take(came)._replace(weight=days)
            if window_us is not None:
                events = events.take(np.flatnonzero(events.happened >= until - window_us))
            place, code = self._groups(group, events.item)
            if group.level == "user":  # one group, if there are events
                known, group_of = code[:1], code
            else:
                known, group_of = np.unique(code, return_inverse=True)
            self._by_group[key] = (known, group_of, events.take(place))
        return self._by_group[key]

    def _found(
        self, group: Group, known: np.ndarray, asked: Asked, window_us: int | None
    ) -> np.ndarray:
        """[Q] place of each question's group among ``known``, or one beyond the last."""
        key = (group, window_us)
        if key not in self._places:
            self._places[key] = _places(known, self._asked_code(group, asked))
        return self._places[key]

    def _groups(self, group: Group, item: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Positions of the events that enter groups of the asking user, and these groups."""
        every = np.arange(item.size)
        if group.column is not None:
            return self.tables.attribute(group.column).pairs(item)
        return every, item if group.by in ("item", "user_item") else np.zeros_like(item)

    @staticmethod
    def _asked_code(group: Group, asked: Asked) -> np.ndarray:
        if group.column is not None:
            return asked.value
        return asked.item if group.by in ("item", "user_item") else np.zeros_like(asked.item)


def _spread(total: np.ndarray, missing: float, place: np.ndarray) -> np.ndarray:
    """[Q] float64 of totals at their places, ``missing`` one beyond the last."""
    values = np.full(total.size + 1, missing)
    values[:-1] = total
    spread: np.ndarray = values[place]
    return spread


def _places(known: np.ndarray, asked: np.ndarray) -> np.ndarray:
    """[Q] place of each code among the rising ``known``, or one beyond the last."""
    if known.size == 0:
        return np.zeros(asked.shape, dtype=np.int64)
    place = np.minimum(np.searchsorted(known, asked), known.size - 1)
    return np.where(known[place] == asked, place, known.size)
