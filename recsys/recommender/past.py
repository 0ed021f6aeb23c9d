"""One live request: what its user did up to now, as the retrievers and the features take it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import NamedTuple, Protocol

import numpy as np

from features.computation.from_own_events import OwnEvents
from features.moments import EPOCH
from features.tables import ITEM, WEIGHT, Histories, Interactions, Vocabulary
from features.tables.repeats import RepeatRule
from features.tables.rules import EventRules
from recsys.dataset.user_events import UserEvents

__all__ = [
    "FreshEvent",
    "LiveItems",
    "LivePast",
    "LoggedEvents",
    "LoggedPasts",
    "MappedPasts",
    "PastEvents",
]

RECENT = "recent"
"""Kind of the events that a request brings itself."""
_SECOND_US = 1_000_000


@dataclass(frozen=True, slots=True)
class FreshEvent:
    """Something a user did after the log ended.

    Attributes:
        item_id: with what.
        happened_us: microseconds since 1970-01-01 UTC.
        event: kind, as in the log.
        weight: as in the log's file; None: that of its kind, or the log's mean.
    """

    item_id: str
    happened_us: int
    event: str = RECENT
    weight: float | None = None


class PastEvents(NamedTuple):
    """E logged events of one user, oldest first.

    Attributes:
        item_index: [E] int64 of the vocabulary, 0 for an item outside it.
        outside: [E] int64: different numbers >= 1 for different items outside it, 0 for others.
        happened: [E] int64 microseconds.
        arrived: [E] int64 microseconds.
        weight: [E] float32, below 0 for a dislike.
        kind: [E] text.
    """

    item_index: np.ndarray
    outside: np.ndarray
    happened: np.ndarray
    arrived: np.ndarray
    weight: np.ndarray
    kind: np.ndarray


class LoggedEvents(Protocol):
    """Where the past of a user is looked up."""

    @property
    def mean_weight(self) -> float:
        """Mean weight of all likes; 1 where there are none."""
        ...

    def of(self, user_id: str, before_us: int) -> PastEvents:
        """What the user did, as far as it had arrived before a moment."""
        ...


class LoggedPasts:
    """Looks users up in a log in memory.

    Args:
        log: everybody's events. None: nobody did anything.
        items: the vocabulary.
    """

    def __init__(self, log: Interactions | None, items: Vocabulary) -> None:
        self._log = log
        self._items = items
        self.mean_weight = 1.0
        if log is not None and len(log):
            self.mean_weight = float(log.frame[WEIGHT].mean())  # type: ignore[arg-type]

    def of(self, user_id: str, before_us: int) -> PastEvents:
        """See `LoggedEvents`."""
        if self._log is None:
            return _nothing()
        moment = EPOCH + timedelta(microseconds=before_us)
        frame = self._log.filter_users([user_id]).before(moment).whole
        index = self._items.index(frame[ITEM])
        outside = np.zeros_like(index)
        if bool((index == 0).any()):
            others = Vocabulary.from_ids(frame[ITEM].gather(np.flatnonzero(index == 0)))
            outside = others.index(frame[ITEM])
        own = OwnEvents.of_frame(frame, index)
        return PastEvents(
            index, outside, own.happened, own.arrived, own.weight.astype(np.float32), own.kind
        )


class MappedPasts:
    """Looks users up in the mapped log of a bundle.

    Args:
        events: the file.
    """

    def __init__(self, events: UserEvents) -> None:
        self._events = events
        self._kinds = np.array(events.event_names, dtype=object)
        self.mean_weight = events.mean_weight

    def of(self, user_id: str, before_us: int) -> PastEvents:
        """See `LoggedEvents`."""
        past, outside, arrived = self._events.details(user_id, before=before_us)
        return PastEvents(
            past.item_index.astype(np.int64),
            outside,
            past.timestamp_us,
            arrived,
            past.weight,
            self._kinds[past.kind],
        )


@dataclass(frozen=True, eq=False)
class LivePast:
    """What the user of a request did before its moment.

    Attributes:
        history: one row, of the items in the vocabulary, with what was disliked.
        events: everything, as feature definitions take it; a dislike weighs below 0.
        moment_us: of the request.
    """

    history: Histories
    events: OwnEvents
    moment_us: int

    def hidden(self, num_items: int) -> np.ndarray:
        """[1, N + 1] bool, True where the user must not be shown the item at that moment."""
        return self.history.hidden_mask(num_items, np.full(1, self.moment_us, dtype=np.int64))


class LiveItems:
    """The vocabulary beside the items that feature definitions know.

    Args:
        items: the vocabulary, N ids.
        known: items of the definitions' tables; holds all of ``items``.

    Attributes:
        known: [N + 1] int64 index in ``known`` of each item.
    """

    def __init__(self, items: Vocabulary, known: Vocabulary) -> None:
        self._items = items
        self._num_known = len(known)
        self.known = np.append(0, known.index(items.to_series()))

    def past(
        self,
        user_id: str,
        logged: LoggedEvents,
        recent_items: Sequence[str],
        fresh: Sequence[FreshEvent],
        *,
        as_of_us: int,
        moment_us: int | None,
        rules: EventRules,
        repeats: RepeatRule | None = None,
    ) -> LivePast:
        """The past of a request.

        Args:
            user_id: whose; "" for nobody in particular.
            logged: where to look it up.
            recent_items: what the request says the user just met, oldest first; ids that the
                vocabulary lacks are left out. They happened a second apart, the last one a second
                before the moment, and weigh what the mean event does.
            fresh: what the service was told since; what happened before ``as_of_us`` is in the
                log and is left out here.
            as_of_us: when the log ended.
            moment_us: of the request. None: ``as_of_us``, or just after the newest fresh event.
            rules: what fresh events mean.
            repeats: for how long events hide their item. None: for good.
        """
        fresh = [event for event in fresh if event.happened_us >= as_of_us]
        newest = max((event.happened_us + 1 for event in fresh), default=as_of_us)
        if moment_us is None:
            moment_us = max(as_of_us, newest)
        fresh = sorted(
            (event for event in fresh if event.happened_us < moment_us),
            key=lambda event: event.happened_us,
        )
        old = logged.of(user_id, min(as_of_us, moment_us)) if user_id else _nothing()
        item = old.item_index
        events = OwnEvents(
            np.where(old.outside > 0, self._num_known + old.outside, self.known[item]),
            old.happened,
            old.arrived,
            old.weight.astype(np.float64),
            old.kind,
        )
        if fresh or recent_items:
            weight = [
                *(rules.weight_of(one.event, one.weight, logged.mean_weight) for one in fresh),
                *[logged.mean_weight] * len(recent_items),
            ]
            kind = [
                *(rules.kind_of(one.event, own) for one, own in zip(fresh, weight, strict=False)),
                *[RECENT] * len(recent_items),
            ]
            index, added = self._added(fresh, recent_items, moment_us, weight, kind)
            events = OwnEvents(*map(np.concatenate, zip(events, added, strict=True)))
            order = np.argsort(events.happened, kind="stable")
            item, events = np.append(item, index)[order], events.take(order)
        if not events.weight.all():  # what counts for nothing is in no log either
            counts = np.flatnonzero(events.weight)
            item, events = item[counts], events.take(counts)
        liked, disliked = events.weight > 0, events.weight < 0
        repeats = repeats or RepeatRule()
        history = _row(item, events, liked, repeats)
        if disliked.any():
            history = replace(history, refused=_row(item, events, disliked, repeats))
        return LivePast(history, events, moment_us)

    def _added(
        self,
        fresh: Sequence[FreshEvent],
        recent_items: Sequence[str],
        moment_us: int,
        weight: Sequence[float],
        kind: Sequence[str],
    ) -> tuple[np.ndarray, OwnEvents]:
        """Vocabulary indices, and the events, of what came after the log; known items alone."""
        index = self._items.index([*(event.item_id for event in fresh), *recent_items])
        count = len(recent_items)
        happened = np.array(
            [
                *(event.happened_us for event in fresh),
                *(moment_us - (count - place) * _SECOND_US for place in range(count)),
            ],
            dtype=np.int64,
        )
        known = np.flatnonzero(index > 0)
        item = index[known]
        happened = happened[known]
        weighed = np.array(weight, dtype=np.float32)[known].astype(np.float64)
        kinds = np.array(kind, dtype=object)[known]
        return item, OwnEvents(self.known[item], happened, happened, weighed, kinds)


def _row(item: np.ndarray, events: OwnEvents, kept: np.ndarray, repeats: RepeatRule) -> Histories:
    """One row of those events whose item is in the vocabulary."""
    inside = np.flatnonzero((item > 0) & kept)
    return Histories(
        np.array([0, inside.size], dtype=np.int64),
        item[inside],
        events.happened[inside],
        np.abs(events.weight[inside]).astype(np.float32),
        hidden_until=repeats.hidden_until(events.happened[inside], events.kind[inside]),
    )


def _nothing() -> PastEvents:
    none = np.zeros(0, dtype=np.int64)
    return PastEvents(
        none, none, none, none, np.zeros(0, dtype=np.float32), np.zeros(0, dtype=object)
    )
