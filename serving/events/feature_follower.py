"""Running feature state that follows the stream of feedback events.

The position in the stream is part of the state: both change in one transaction, so a follower that
was killed goes on where its last transaction ended, and every event counts once. What clients send
again is known by its identity.

The state begins as the log of the training left it; the stream is followed from there.
"""

from __future__ import annotations

import json
import logging
import random
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from threading import Event as Flag
from typing import Any, NamedTuple

import numpy as np
import polars as pl

from features.computation import FeatureComputer
from features.moments import microseconds
from features.online.arrivals import Arrival
from features.online.features import NO_EVENTS, OnlineFeatures, UpdateReport
from features.online.store import Field, StateStore
from features.tables import CREATED, TIMESTAMP, WEIGHT
from features.tables.rules import EventRules
from serving.errors import StageUnavailable
from serving.events.event_stream import EventStream, Lag, Position, StreamedEvent
from serving.events.feature_state import RedisStateStore

__all__ = ["FeatureFollower", "FollowReport", "followed_to"]

log = logging.getLogger(__name__)

_WAIT_S = 0.5
_FIRST_PAUSE_S, _LONGEST_PAUSE_S = 0.1, 5.0
_SAY_EVERY_S = 60.0
_FOREVER_DAYS = 36_500.0


@dataclass(frozen=True)
class FollowReport:
    """What a follower did.

    Attributes:
        seeded: what became of the log's events; none where the state was there.
        update: what became of the stream's events.
        refused: entries of the stream that were no events.
        interruptions: how often the store was away.
        position: in the stream.
        seconds: spent on the stream's events, without waiting for any.
    """

    seeded: UpdateReport = NO_EVENTS
    update: UpdateReport = NO_EVENTS
    refused: int = 0
    interruptions: int = 0
    position: Position | None = None
    seconds: float = 0.0

    @property
    def events_per_s(self) -> float:
        """Events of the stream that were applied in a second."""
        return self.update.applied / max(self.seconds, 1e-9)


class FeatureFollower:
    """Folds the stream's events into the feature state of definitions.

    Args:
        stream: what to follow.
        open_state: makes the state's store as its writer; asked once, when the server answers.
        computer: definitions and their tables.
        read_log: the log, columns as `OnlineFeatures.update` takes them; asked where there is no
            state yet. It is taken to hold everything that arrived up to its newest event.
        batch: events of one transaction.
        remember_days: an event that comes again within so many days counts once.
        rules: what events mean, as in the log. None: that all are likes.
        stop: set to end `run` after the transaction under way.

    Raises:
        ValueError: ``batch`` is not positive.

    Attributes:
        report: what was done so far.
    """

    def __init__(
        self,
        stream: EventStream,
        open_state: Callable[[], RedisStateStore],
        computer: FeatureComputer,
        read_log: Callable[[], pl.DataFrame],
        *,
        batch: int = 1000,
        remember_days: float = 7.0,
        rules: EventRules | None = None,
        stop: Flag | None = None,
    ) -> None:
        if batch < 1:
            raise ValueError(f"batch must be >= 1, got {batch}")
        self._stream = stream
        self._open_state = open_state
        self._computer = computer
        self._read_log = read_log
        self._batch = batch
        self._remember_days = remember_days
        self._rules = rules or EventRules()
        self._stop = stop or Flag()
        self._state: _State | None = None
        self.report = FollowReport()

    def run(self, *, once: bool = False) -> FollowReport:
        """Follow until ``stop`` is set.

        Where the store is away, it is asked again after a pause that grows to five seconds.

        Args:
            once: end when nothing waits in the stream.

        Raises:
            WriterReplaced: another process has begun to update the state.
        """
        pause_s = _FIRST_PAUSE_S
        while not self._stop.is_set():
            done = self.report
            try:
                self._follow(self._ready(), once)
                break
            except StageUnavailable as error:
                if self.report != done:
                    pause_s = _FIRST_PAUSE_S
                self._add(interruptions=1)
                log.warning("feature state waits %.1f s for the store: %s", pause_s, error)
                self._stop.wait(pause_s * random.uniform(0.5, 1.0))
                pause_s = min(2 * pause_s, _LONGEST_PAUSE_S)
        return self.report

    def _ready(self) -> _State:
        """The state, filled, and this process its writer."""
        if self._state is None:
            self._state = _State(self._open_state(), self._new_features, self._rules)
        else:
            self._state.store.renew()
        if self._state.read() is None:
            self._fill(self._state)
        return self._state

    def _new_features(
        self, store: StateStore, remember_days: float | None = None
    ) -> OnlineFeatures:
        computer = self._computer
        return OnlineFeatures(
            computer.definitions,
            computer.items,
            computer.users,
            computer.tables.vectors,
            store,
            remember_days=remember_days or self._remember_days,
        )

    def _fill(self, state: _State) -> None:
        """Begin with the log; cut off, it begins again, and what is there counts once."""
        events = self._read_log()
        seen = CREATED if CREATED in events.columns else TIMESTAMP
        events = events.sort(seen, maintain_order=True)
        log.info("feature state %s begins with %s events of the log", state.name, events.height)
        features = self._new_features(state.store, _FOREVER_DAYS)
        for start in range(0, events.height, self._batch):
            self._add(seeded=features.update(events[start : start + self._batch]))
            if self._stop.is_set():
                return
        newest: Any = events[seen].max()
        position = Position() if newest is None else Position.after(microseconds(newest))
        mean: Any = events[WEIGHT].mean() if WEIGHT in events.columns else None
        state.begin(position, 1.0 if mean is None else float(mean))

    def _follow(self, state: _State, once: bool) -> None:
        said = time.monotonic()
        while not self._stop.is_set():
            position = state.read()
            if position is None:
                raise StageUnavailable(
                    f"the store has lost the feature state {state.name}", stage="features"
                )
            batch = self._stream.read(position, self._batch)
            if batch.num_entries:
                began = time.perf_counter()
                update = state.apply(batch.events, batch.position)
                self._add(update=update, refused=batch.refused, seconds=time.perf_counter() - began)
                self.report = replace(self.report, position=batch.position)
                if batch.position.lost > position.lost:
                    log.warning(
                        "%s events were gone from the stream before they were followed; raise its "
                        "length, or run the follower all the time",
                        batch.position.lost - position.lost,
                    )
            elif once:
                self.report = replace(self.report, position=position)
                return
            else:
                self._stream.wait(position, _WAIT_S)
            if time.monotonic() - said >= _SAY_EVERY_S:
                said = time.monotonic()
                self._say(batch.lag)

    def _add(
        self,
        *,
        seeded: UpdateReport = NO_EVENTS,
        update: UpdateReport = NO_EVENTS,
        refused: int = 0,
        interruptions: int = 0,
        seconds: float = 0.0,
    ) -> None:
        old = self.report
        self.report = replace(
            old,
            seeded=old.seeded.plus(seeded),
            update=old.update.plus(update),
            refused=old.refused + refused,
            interruptions=old.interruptions + interruptions,
            seconds=old.seconds + seconds,
        )

    def _say(self, lag: Lag) -> None:
        done = self.report
        log.info(
            "feature state: %s events followed, %s known already, %.0f a second; %s wait, the "
            "oldest for %.1f s; %s lost",
            done.update.applied,
            done.update.duplicates,
            done.events_per_s,
            "unknown" if lag.waiting is None else lag.waiting,
            lag.behind_s,
            lag.lost,
        )


def followed_to(store: StateStore, state: str) -> Position | None:
    """How far a state has followed the stream; None where there is no such state yet.

    Args:
        store: where the state lives.
        state: name of it, `features.online.plan.StatePlan.digest`.
    """
    (found,) = store.read([_field(state)])
    return None if found is None else _Followed.unpack(found).position


class _Followed(NamedTuple):
    """What stands beside the cells of a state.

    Attributes:
        position: in the stream.
        mean_weight: of the log that the state began with; for events that do not say theirs.
    """

    position: Position
    mean_weight: float

    def pack(self) -> bytes:
        return json.dumps([*self.position, self.mean_weight]).encode()

    @classmethod
    def unpack(cls, packed: bytes) -> _Followed:
        entry, number, lost, mean_weight = json.loads(packed)
        return cls(Position(entry, number, lost), mean_weight)


class _State:
    """The state and the position in it, as the store has them.

    The position is read anew before every batch: where the server went back to an older state,
    nothing kept in this process is used any more.
    """

    def __init__(
        self,
        store: RedisStateStore,
        new_features: Callable[[StateStore], OnlineFeatures],
        rules: EventRules,
    ) -> None:
        self.store = store
        self._rules = rules
        self._new_features = new_features
        self._with_position = _WithPosition(store)
        self._features = new_features(self._with_position)
        self.name = self._features.plan.digest
        self._followed: _Followed | None = None

    def read(self) -> Position | None:
        (packed,) = self.store.read([_field(self.name)])
        found = None if packed is None else _Followed.unpack(packed)
        if found != self._followed:
            self._followed = found
            self._features = self._new_features(self._with_position)
        return None if found is None else found.position

    def begin(self, position: Position, mean_weight: float) -> None:
        self.store.write({_field(self.name): _Followed(position, mean_weight).pack()})

    def apply(self, events: Sequence[StreamedEvent], position: Position) -> UpdateReport:
        """Count the events and move on, both or neither."""
        if self._followed is None:
            raise RuntimeError("the state must have been read")
        reached = self._followed._replace(position=position)
        self._with_position.entry = {_field(self.name): reached.pack()}
        if events:
            report = self._features.update(
                [_arrival(event, reached.mean_weight, self._rules) for event in events]
            )
        else:
            self._with_position.write({})
            report = NO_EVENTS
        self._followed = reached
        return report


class _WithPosition:
    """A `StateStore` that writes the position with everything else."""

    def __init__(self, store: StateStore) -> None:
        self._store = store
        self.entry: Mapping[Field, bytes] = {}

    def read(self, fields: Sequence[Field]) -> list[bytes | None]:
        return self._store.read(fields)

    def read_all(self, keys: Sequence[str]) -> list[dict[str, bytes]]:
        return self._store.read_all(keys)

    def write(self, values: Mapping[Field, bytes]) -> None:
        self._store.write({**values, **self.entry})


def _field(state: str) -> Field:
    return f"{state}:followed", "position"


def _arrival(event: StreamedEvent, mean_weight: float, rules: EventRules) -> Arrival:
    weight = rules.weight_of(event.event, event.weight, mean_weight)
    return Arrival(
        event.user_id,
        event.item_id,
        event.happened_us,
        event.event,
        float(np.float32(weight)),  # as a log has it
        event.arrived_us,
        event.identity,
    )
